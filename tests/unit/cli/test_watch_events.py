"""Server-sent events, however the stream is cut."""

import pytest

from penstock.watch.server_sent_events import EventReader, EventTooLongError

STREAM = (
    b"\xef\xbb\xbf: a comment\r\n\r\nretry: 1000\n\n"
    b"data: one\n\n"
    b"data:two\r\ndata: lines\r\n\r\n"
    b"id: 7\rdata: three\r\r"
    b"event: other\ndata: not for us\n\n"
    b"event: message\ndata\ndata: \xc3\xbc\n\n"
    b": heartbeat\n\n"
    b"data: unfinished"
)
EVENTS = ["one", "two\nlines", "three", "\nü"]


def read(*chunks: bytes) -> list[str]:
    reader = EventReader(1000)
    return [event for chunk in chunks for event in reader.feed(chunk)]


def test_comments_types_and_all_line_endings_are_understood() -> None:
    assert read(STREAM) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_cuts_of_the_network_do_not_matter(size: int) -> None:
    assert read(*(STREAM[at : at + size] for at in range(0, len(STREAM), size))) == EVENTS


@pytest.mark.parametrize("cut", range(len(STREAM)))
def test_no_place_is_wrong_for_a_cut(cut: int) -> None:
    assert read(STREAM[:cut], b"", STREAM[cut:]) == EVENTS


def test_an_event_counts_as_soon_as_it_is_complete() -> None:
    reader = EventReader(1000)

    assert reader.feed(b"data: one\n") == []
    assert reader.feed(b"\n") == ["one"]


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    assert read(b"data: \xff\n\n") == ["\ufffd"]


@pytest.mark.parametrize("chunk", [b"data: 1234567890\n", b"data: 123456", b":" * 20])
def test_an_endless_event_is_refused(chunk: bytes) -> None:
    reader = EventReader(20)

    with pytest.raises(EventTooLongError):
        reader.feed(chunk * 2)
