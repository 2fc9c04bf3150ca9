"""Between a transport and asyncpg: each answer goes to whom it belongs, however it arrives."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.drivers.pipelining import Pipeline


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


# What a server says at any moment, to nobody in particular; some of it looks like the end of an
# answer.
ASYNCHRONOUS = [
    message(b"N", b"SNOTICE\0Msomething\0\0"),
    message(b"N", b"SWARNING\0M" + b"long " * 60 + b"\0\0"),
    message(b"S", b"TimeZone\0UTC\0"),
    message(b"S", b"Z\0\0"),
    message(b"A", b"\0\0\1\2news\0" + b"p" * 300 + b"\0"),
    message(b"A", b"\0\0\0\5Z\0\0"),
]
PARSED, BOUND = message(b"1"), message(b"2")
DONE = message(b"C", b"SELECT 1\0")
DESCRIBED = message(b"t", b"\0\0") + message(b"T", b"\0\1a\0" + b"\0" * 18)
ROW = message(b"D", b"\0\1\0\0\0\7Z\0\0\0\5IN")
LARGE_ROW = message(b"D", b"\0\1\0\0\x9c\x40" + b"Z\0\0\0\5INA" * 5000)
REFUSED = message(b"E", b"SERROR\0C57014\0Mcanceling statement\0\0")
IDLE, OPEN = message(b"Z", b"I"), message(b"Z", b"T")
ENDS = {
    "57P01": message(b"E", b"STERMINE\0VFATAL\0C57P01\0Mterminating connection\0\0"),
    "08P01": message(b"E", b"SFATAL\0C08P01\0Mserver conn crashed?\0\0"),  # PgBouncer's
    "XX000": message(b"E", b"SPANIC\0VPANIC\0CXX000\0Mno space\0\0"),
}
"""What a server says before it hangs up."""


class Transport:
    """What asyncio gives a protocol, as far as it is used."""

    def __init__(self, driver: "Driver") -> None:
        self.protocol: Any = driver
        self.is_aborted = False

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        """Take what a scripted server knows without being told."""

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted


class Driver(asyncio.Protocol):
    """Stands for asyncpg, and remembers what it is told."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


Say = Callable[[bytes, bool], None]
"""Has the server say something, and tells whether it is for the driver."""


@dataclass
class Batch:
    """Statements ahead of the driver's next one.

    Args:
        statements: How many, each with rows or without.
        fails_at: The message in whose place the server refuses; None for nowhere.
    """

    rows: list[bool]
    fails_at: int | None

    def send(self, pipeline: Pipeline) -> None:
        pipeline.send_batch([("SELECT $1" if has else "BEGIN", ()) for has in self.rows])

    def answer(self, say: Say, *, is_ended: bool) -> bool:
        """Answer, and return whether the server has refused."""
        answers = [each for has in self.rows for each in (PARSED, BOUND, *[ROW] * has, DONE)]
        for number, each in enumerate(answers):
            if number == self.fails_at:
                say(REFUSED, not is_ended)
                return True
            say(each, False)
        return False


@dataclass
class Turn:
    """Something by itself, then statements ahead, then what the driver asks.

    Args:
        queries: Sent before, each with whether it fails.
        batches: Sent ahead.
        is_ended: Whether the driver could send nothing after them.
        kind: What the driver asks: one of ``ANSWERS``.
        fails_at: The message in whose place the server refuses the driver; None for nowhere.
        split: How much of what the server has to say arrives in one piece, again and again.
        held_back: Bytes of what is said last, of its own accord, that arrive with the next turn.
    """

    queries: list[bool]
    batches: list[Batch]
    is_ended: bool
    kind: str
    fails_at: int | None
    split: list[int]
    held_back: int


ANSWERS = {
    "query": [DONE, IDLE],
    "prepare": [PARSED, DESCRIBED],
    "large": [BOUND, LARGE_ROW, ROW, DONE, IDLE],
    "execute": [BOUND, ROW, ROW, DONE, IDLE],
}
FAILS_AT = st.none() | st.integers(0, 6)
BATCHES = st.builds(Batch, st.lists(st.booleans(), min_size=1, max_size=3), FAILS_AT)
TURNS = st.builds(
    Turn,
    st.lists(st.booleans(), max_size=2),
    st.lists(BATCHES, max_size=2),
    st.booleans(),
    st.sampled_from(sorted(ANSWERS)),
    st.none() | st.integers(0, 3),
    st.lists(st.integers(1, 400) | st.integers(1_000, 40_000), min_size=1, max_size=5),
    st.integers(0, 500),
)


@dataclass
class Server:
    """Says what it has to, in order; what is for the driver is expected there.

    Args:
        notices: Said between the rest, one after the other.
    """

    notices: list[bytes | None]
    wire: bytes = b""
    expected: bytes = b""
    said: int = field(default=0)

    def say(self, data: bytes, is_for_driver: bool) -> None:
        self.of_its_own_accord()
        self.wire += data
        if is_for_driver:
            self.expected += data

    def of_its_own_accord(self) -> None:
        notice = self.notices[self.said % len(self.notices)] if self.notices else None
        self.said += 1
        if notice is not None:
            self.wire += notice
            self.expected += notice


class Conversation:
    """One connection from its first turn to its end."""

    def __init__(self, notices: list[bytes | None]) -> None:
        self.server = Server(notices)
        self.driver = Driver()
        self.transport = Transport(self.driver)
        self.pipeline = Pipeline.of(self.transport)
        self.held_back = 0
        """Bytes of a message that the driver has not heard yet, of which it has heard some."""

    def turn(self, turn: Turn) -> None:
        """Send and answer, up to what the server says after it of its own accord."""
        self.say(turn)
        end = len(self.server.wire)
        self.server.of_its_own_accord()
        said = len(self.server.wire) - end
        self.held_back = min(turn.held_back, said) % (said or 1)
        self.deliver(len(self.server.wire) - self.held_back, turn.split)

    def say(self, turn: Turn) -> None:
        for fails in turn.queries:
            self.pipeline.send_query("SELECT 1", lambda: True)
            self.server.say(REFUSED if fails else DONE, False)
            self.server.say(IDLE, False)
        is_ended = turn.is_ended or turn.kind == "query"
        refused = False
        for batch in turn.batches:
            batch.send(self.pipeline)
            refused = refused or batch.answer(self.server.say, is_ended=is_ended)
        if turn.batches and is_ended:
            self.pipeline.end_batch()
            self.server.say(OPEN, False)
            refused = False
        self._ask(turn, refused=refused)

    def _ask(self, turn: Turn, *, refused: bool) -> None:
        if not refused:
            for number, answer in enumerate(ANSWERS[turn.kind]):
                refused = number == turn.fails_at and answer is not IDLE
                if refused:
                    break
                self.server.say(answer, True)
        if refused:
            self.server.say(REFUSED, True)
            self.server.say(IDLE, True)  # to the Sync that the driver sends with it or after it

    def deliver(self, until: int, split: list[int]) -> None:
        sizes, at = cycle(split), 0
        while at < until:
            end = min(at + next(sizes), until)
            self.transport.protocol.data_received(self.server.wire[at:end])
            at = end
        self.server.wire = self.server.wire[until:]


@pytest.mark.slow
@settings(deadline=None, max_examples=500)
@given(st.lists(TURNS, max_size=6), st.lists(st.none() | st.sampled_from(ASYNCHRONOUS)))
def test_the_driver_hears_its_own_answers_and_nothing_else(
    turns: list[Turn], notices: list[bytes | None]
) -> None:
    conversation = Conversation(notices)
    server, driver = conversation.server, conversation.driver
    for turn in turns:
        conversation.turn(turn)
        # Nothing that it waits for is held back.
        assert driver.heard == server.expected[: len(server.expected) - len(server.wire)]
    conversation.deliver(len(server.wire), [7])
    assert driver.heard == server.expected
    assert not conversation.transport.is_aborted
    assert not conversation.pipeline.has_open_batch
    conversation.transport.protocol.data_received(DONE)
    assert driver.heard == server.expected + DONE


@settings(deadline=None, max_examples=300)
@given(
    st.lists(TURNS, max_size=4),
    st.lists(st.none() | st.sampled_from(ASYNCHRONOUS)),
    st.sampled_from(sorted(ENDS)),
    st.booleans(),
    st.booleans(),
)
def test_a_connection_that_is_told_its_end_is_closed_at_once(
    turns: list[Turn],
    notices: list[bytes | None],
    sqlstate: str,
    awaits_answer: bool,
    answers: bool,
) -> None:
    conversation = Conversation(notices)
    for turn in turns:
        conversation.turn(turn)
    if awaits_answer:
        conversation.pipeline.send_query("ROLLBACK")
    if answers:  # to that, or to what the driver has asked
        conversation.server.say(DONE, not awaits_answer)
        conversation.server.say(IDLE, not awaits_answer)
    conversation.server.wire += ENDS[sqlstate]

    conversation.deliver(len(conversation.server.wire), [1 << 20])

    assert conversation.transport.is_aborted
    assert conversation.pipeline.ended_by == sqlstate


@settings(deadline=None, max_examples=200)
@given(
    st.lists(TURNS, min_size=1, max_size=4),
    st.lists(st.none() | st.sampled_from(ASYNCHRONOUS)),
    TURNS,
    st.data(),
)
def test_a_connection_that_is_lost_at_any_byte_is_lost_once(
    turns: list[Turn], notices: list[bytes | None], last: Turn, data: st.DataObject
) -> None:
    conversation = Conversation(notices)
    server, driver, transport = conversation.server, conversation.driver, conversation.transport
    for turn in turns:
        conversation.turn(turn)
    conversation.say(last)
    conversation.deliver(data.draw(st.integers(0, len(server.wire))), last.split)
    error = ConnectionResetError()
    transport.protocol.connection_lost(error)
    assert driver.lost == [error]
    assert server.expected.startswith(driver.heard)
    assert not conversation.pipeline.has_open_batch


STATUSES = {"idle": (IDLE, True), "open": (OPEN, False), "failed": (message(b"Z", b"E"), False)}


@pytest.mark.parametrize("ignores_error", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("status", "is_idle"), STATUSES.values(), ids=STATUSES)
@pytest.mark.parametrize("leaves_idle", [False, True])
def test_a_query_that_somebody_relies_on_closes_the_connection_where_it_fails(
    leaves_idle: bool, status: bytes, is_idle: bool, fails: bool, ignores_error: bool
) -> None:
    conversation = Conversation([])
    driver, transport = conversation.driver, conversation.transport
    conversation.pipeline.send_query("SET a.b = 1", lambda: ignores_error, leaves_idle=leaves_idle)
    for data in (REFUSED if fails else DONE, status):
        transport.protocol.data_received(data)
    assert transport.is_aborted is ((fails and not ignores_error) or (leaves_idle and not is_idle))
    assert driver.heard == b""


def test_an_answer_that_is_none_to_what_was_sent_closes_the_connection() -> None:
    conversation = Conversation([])
    conversation.pipeline.send_batch([("BEGIN", ())])
    conversation.transport.protocol.data_received(BOUND + ROW + DONE)
    assert conversation.transport.is_aborted
    assert conversation.driver.heard == b""


@settings(deadline=None, max_examples=200)
@given(st.lists(TURNS, max_size=4), st.lists(st.none() | st.sampled_from(ASYNCHRONOUS)))
def test_where_the_driver_is_in_a_message_is_known(
    turns: list[Turn], notices: list[bytes | None]
) -> None:
    conversation = Conversation(notices)
    for turn in turns:
        conversation.turn(turn)
        assert conversation.pipeline.is_within_message is bool(conversation.held_back)
    conversation.deliver(len(conversation.server.wire), [5])
    assert not conversation.pipeline.is_within_message
