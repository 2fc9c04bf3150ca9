"""Statements that travel in front of or behind what asyncpg sends, and cost no round trip.

PostgreSQL answers in the order in which it was asked, so a client may speak before it was
answered. A :class:`Pipeline` stands between a connection's transport and asyncpg, which knows
nothing of it: it writes such statements, takes their answers out of what the server says, and
hands everything else on.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

__all__ = ["Parameters", "Pipeline"]

Parameters = Sequence[str | None]
"""Values of one statement, as text; None for NULL."""

_HEADER = 5
_ERROR, _READY, _ROW = ord("E"), ord("Z"), ord("D")
_ASYNCHRONOUS = frozenset(b"NSA")
"""Notices, new values of parameters and notifications: they belong to no statement."""
_SYNC = b"S\0\0\0\4"
_IDLE = ord("I")
_EXECUTE = b"E\0\0\0\x09\0\0\0\0\0"


def _never() -> bool:
    return False


class _Batch:
    """Statements without a Sync: they and what the driver sends next are one transaction.

    Args:
        answers: The types of the messages that answer them, in order.
    """

    __slots__ = ("answers",)

    def __init__(self, answers: bytes) -> None:
        self.answers = answers


class _Query:
    """A statement, or a Sync, whose answer ends with ReadyForQuery.

    Args:
        is_excused: Asked after an error: whether nobody relies on the statement any more.
        leaves_idle: Whether no transaction may be open afterwards.
    """

    __slots__ = ("failed", "is_excused", "leaves_idle")

    def __init__(self, is_excused: Callable[[], bool], *, leaves_idle: bool) -> None:
        self.is_excused = is_excused
        self.leaves_idle = leaves_idle
        self.failed = False


class Pipeline(asyncio.Protocol):
    """Between one connection's transport and asyncpg's protocol, from its first use on.

    Args:
        transport: Of an open connection, at rest.
    """

    __slots__ = ("_driver", "_expected", "_received", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._driver: Any = transport.get_protocol()
        self._expected: deque[_Batch | _Query] = deque()
        """What the server has still to answer before it comes to what the driver has sent."""
        self._received = bytearray()
        transport.set_protocol(self)

    @classmethod
    def of(cls, transport: Any) -> Self:
        """Return the pipeline of a transport, which is put in place when first asked for."""
        protocol = transport.get_protocol()
        return protocol if protocol.__class__ is cls else cls(transport)

    # What is sent.

    def send_batch(self, statements: Sequence[tuple[str, Parameters]]) -> None:
        """Send statements that are one transaction with what the driver sends next.

        Should one of them fail, the server skips the rest, the driver's statement included,
        which then fails by that error. The driver's next message must be of the extended protocol.

        Args:
            statements: Each with its parameters ``$1``, ``$2`` ...; one that returns rows returns
                exactly one.
        """
        messages, answers = bytearray(), b""
        for text, values in statements:
            messages += _statement(text, values)
            answers += b"12DC" if text.startswith("SELECT") else b"12C"
        self._expected.append(_Batch(answers))
        self._transport.write(messages)

    def send_query(
        self, text: str, is_excused: Callable[[], bool] = _never, *, leaves_idle: bool = False
    ) -> None:
        """Send one or several statements as a transaction of their own.

        Should the server refuse, the connection is closed: whoever uses it next relies on them.

        Args:
            text: Without parameters.
            is_excused: Asked when the server has refused: whether nobody relies on it any more.
            leaves_idle: Whether the connection is closed, too, if a transaction is open then.
        """
        query = text.encode() + b"\0"
        self.expect_query(is_excused, leaves_idle=leaves_idle)
        self._transport.write(b"Q" + (len(query) + 4).to_bytes(4) + query)

    def expect_query(
        self, is_excused: Callable[[], bool] = _never, *, leaves_idle: bool = False
    ) -> None:
        """Keep the answer to a statement from the driver which the driver itself is to send."""
        self.end_batch()
        self._expected.append(_Query(is_excused, leaves_idle=leaves_idle))

    @property
    def has_open_batch(self) -> bool:
        """Whether the answers to a batch have not come yet."""
        expected = self._expected
        return bool(expected) and isinstance(expected[-1], _Batch)

    def end_batch(self) -> None:
        """End a batch that the driver has sent nothing after: it is a transaction of its own."""
        if self.has_open_batch:
            self._expected.append(_Query(_always, leaves_idle=False))
            self._transport.write(_SYNC)

    # What is received.

    def data_received(self, data: bytes) -> None:
        """Take the answers out that are not for the driver, and hand on the rest."""
        if not self._expected:
            self._driver.data_received(data)
            return
        received = self._received
        received += data
        passed_on = bytearray()
        while self._expected and len(received) >= _HEADER:
            end = 1 + int.from_bytes(received[1:_HEADER])
            if len(received) < end:
                break
            message = bytes(received[:end])
            del received[:end]
            if message[0] in _ASYNCHRONOUS or self._is_for_driver(message):
                passed_on += message
        if not self._expected:
            passed_on += received
            received.clear()
        if passed_on and not self._transport.is_closing():
            self._driver.data_received(bytes(passed_on))

    def _is_for_driver(self, message: bytes) -> bool:
        expected = self._expected[0]
        if isinstance(expected, _Batch):
            return self._is_beyond_batch(expected, message)
        self._take_of_query(expected, message)
        return False

    def _is_beyond_batch(self, batch: _Batch, message: bytes) -> bool:
        kind = message[0]
        if kind == _ERROR:
            return self._is_error_for_driver(message)
        if kind != batch.answers[0]:
            self._transport.abort()
        batch.answers = batch.answers[1:]
        if not batch.answers:
            self._expected.popleft()
        return False

    def _is_error_for_driver(self, message: bytes) -> bool:
        # The server skips everything up to the next Sync: the driver's, or one that ended a batch.
        while self._expected:
            expected = self._expected[0]
            if not isinstance(expected, _Batch):
                self._take_of_query(expected, message)
                return False
            self._expected.popleft()
        return True

    def _take_of_query(self, query: _Query, message: bytes) -> None:
        kind = message[0]
        if kind == _ERROR:
            query.failed = True
        elif kind == _READY:
            self._expected.popleft()
            is_left_open = query.leaves_idle and message[_HEADER] != _IDLE
            if is_left_open or (query.failed and not query.is_excused()):
                self._transport.abort()

    # For the driver, as it comes.

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the driver; nothing more is answered."""
        self._expected.clear()
        self._received.clear()
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell the driver."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """Tell the driver."""
        self._driver.resume_writing()

    def eof_received(self) -> bool | None:
        """Tell the driver."""
        answer: bool | None = self._driver.eof_received()
        return answer


def _always() -> bool:
    return True


def _statement(text: str, values: Parameters) -> bytes:
    """Return Parse, Bind and Execute for the unnamed statement and portal."""
    parse = b"\0" + text.encode() + b"\0\0\0"
    bind = bytearray(b"\0\0\0\0" + len(values).to_bytes(2))
    for value in values:
        encoded = None if value is None else value.encode()
        bind += b"\xff\xff\xff\xff" if encoded is None else len(encoded).to_bytes(4) + encoded
    bind += b"\0\0"
    return b"".join(
        (
            b"P" + (len(parse) + 4).to_bytes(4) + parse,
            b"B" + (len(bind) + 4).to_bytes(4) + bytes(bind),
            _EXECUTE,
        )
    )
