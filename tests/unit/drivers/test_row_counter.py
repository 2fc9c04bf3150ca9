"""Rows of several answers, counted in whatever pieces they come."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.drivers.row_counter import RowCounter

_PAYLOADS = st.binary(max_size=40) | st.just(b"C\0\0\0\x0dSELECT 1\0") | st.just(b"D" * 30)
_OTHERS = st.sampled_from([b"2", b"1", b"N", b"S", b"Z", b"T", b"n"])


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + (len(payload) + 4).to_bytes(4) + payload


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[int], bytes]:
    """How many rows each answer has, and the messages of all of them."""
    counts = draw(st.lists(st.integers(0, 5), max_size=8))
    sent = bytearray()
    for count in counts:
        for kind in [*draw(st.lists(_OTHERS, max_size=2)), *[b"D"] * count, b"C"]:
            sent += message(kind, draw(_PAYLOADS))
    return counts, bytes(sent)


@given(answers(), st.data())
def test_each_answers_rows_are_counted_however_they_are_cut(
    given_answers: tuple[list[int], bytes], data: st.DataObject
) -> None:
    counts, sent = given_answers
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=20).map(sorted))
    exceeded: list[None] = []
    counter = RowCounter(len(sent), lambda: exceeded.append(None))
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        counter.feed(sent[begin:end])
    assert counter.counts == counts
    assert counter.received == len(sent)
    assert not exceeded


@given(st.integers(0, 50), st.integers(1, 60))
def test_who_asks_is_told_once_more_has_come_than_may(most: int, come: int) -> None:
    exceeded: list[None] = []
    RowCounter(most, lambda: exceeded.append(None)).feed(message(b"D", bytes(come)))
    assert bool(exceeded) == (come + 5 > most)
