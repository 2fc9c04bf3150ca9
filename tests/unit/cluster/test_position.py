"""Positions, and the tokens that nobody else can make."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cluster import Position, PositionTokens, ReadPolicy
from penstock.cluster.position import LARGEST_LSN, UNKNOWN, Reads
from penstock.errors import PenstockError

NOW = 1_790_000_000.0
KEY = b"0123456789abcdef"
POSITIONS = st.builds(
    Position,
    timeline=st.integers(1, 2**31 - 1),
    lsn=st.integers(0, LARGEST_LSN),
)


def tokens(*, key: bytes = KEY, database: str = "app", lifetime: float = 60.0) -> PositionTokens:
    return PositionTokens(key, database, lifetime)


@given(POSITIONS)
def test_a_position_is_what_its_text_says(position: Position) -> None:
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text",
    ["", "1", "1:", "-1:0/1", "1:0/-1", "1:x/1", "1:1/FFFFFFFFFFFFFFFFF", "a" * 999],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(PenstockError, match="position"):
        Position.parse(text)


@given(POSITIONS, POSITIONS)
def test_a_later_timeline_is_later_wherever_it_is(one: Position, other: Position) -> None:
    assert (one < other) == ((one.timeline, one.lsn) < (other.timeline, other.lsn))
    assert one <= UNKNOWN


@given(POSITIONS)
def test_a_token_says_its_position_until_it_expires(position: Position) -> None:
    token = tokens().write(position, NOW)

    assert tokens().read(token, NOW) == position
    assert tokens().read(token, NOW + 60) == position
    assert tokens().read(token, NOW + 62) is None


def test_a_token_says_when_it_was_written() -> None:
    read = tokens().read(tokens().write(Position(1, 5), NOW), NOW + 30)

    assert read is not None
    assert abs(read.written_at - NOW) <= 1


@given(POSITIONS, st.integers(0, 95), st.sampled_from(string.ascii_letters + string.digits + ".-_"))
def test_a_changed_token_is_ignored(position: Position, at: int, character: str) -> None:
    token = tokens().write(position, NOW)
    at = min(at, len(token) - 1)
    changed = token[:at] + character + token[at + 1 :]

    assert changed == token or tokens().read(changed, NOW) is None


@pytest.mark.parametrize(
    "other",
    [tokens(key=b"another key than that"), tokens(database="another")],
    ids=["another key", "another database"],
)
def test_a_foreign_token_is_ignored(other: PositionTokens) -> None:
    assert tokens().read(other.write(Position(1, 5), NOW), NOW) is None


def test_a_token_that_counts_for_longer_than_any_of_ours_is_ignored() -> None:
    token = tokens(lifetime=3600).write(Position(1, 5), NOW)

    assert tokens().read(token, NOW) is None


@given(st.text(max_size=200))
def test_whatever_is_sent_is_no_token(text: str) -> None:
    assert tokens().read(text, NOW) is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_lag": 0},
        {"max_lag": -1},
        {"max_lag": True},
        {"max_lag": "5"},
        {"prefer": "primary"},
        {"primary": True, "max_lag": 1},
        {"primary": True, "prefer": "replica"},
    ],
    ids=str,
)
def test_a_policy_that_means_nothing_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(PenstockError):
        ReadPolicy(**arguments)  # type: ignore[arg-type]  # as they are wrong


def test_a_position_takes_the_place_of_one_that_was_not_known() -> None:
    reads = Reads()
    reads.written("db")
    reads.resolved("db", UNKNOWN, 1)
    reads.written("db")
    reads.resolved("db", Position(1, 5), 1)

    assert reads.after == {"db": Position(1, 5)}
    assert not reads.unresolved


def test_a_write_while_an_answer_travels_is_asked_for_again() -> None:
    reads = Reads()
    reads.written("db")
    asked = reads.unresolved["db"]
    reads.written("db")
    reads.resolved("db", Position(1, 5), asked)

    assert reads.after == {"db": Position(1, 5)}
    assert "db" in reads.unresolved


def test_of_two_tokens_the_unknown_one_counts() -> None:
    reads = Reads()
    for position in (UNKNOWN, Position(1, 5)):
        reads.reached("db", position)

    assert reads.after == {"db": UNKNOWN}
