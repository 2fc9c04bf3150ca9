"""A statement that travels in front of the next one: it costs no round trip of its own."""

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["send_ahead"]

_READY = ord("Z")
_ERROR = ord("E")
_OF_THE_STATEMENT = frozenset(b"CEI")
_HEADER = 5


def send_ahead(transport: Any, statement: str, is_excused: Callable[[], bool]) -> None:
    """Send a statement whose answer nobody waits for; what is sent next follows it at once.

    The connection must be at rest. Should the server refuse, the connection is closed: whoever
    uses it next relies on what the statement did.

    Args:
        transport: Of a connection to PostgreSQL, between asyncio and the driver's protocol.
        statement: One that returns no rows, such as ``SET``.
        is_excused: Asked when the server has refused: whether nobody relies on it any more.
    """
    text = statement.encode() + b"\0"
    # https://www.postgresql.org/docs/current/protocol-message-formats.html, Query
    transport.set_protocol(_Answer(transport, is_excused))
    transport.write(b"Q" + (len(text) + 4).to_bytes(4) + text)


class _Answer(asyncio.Protocol):
    """Stands before the driver's protocol until the answer has come, and keeps it to itself.

    What else the server says meanwhile (a parameter's new value, a notice) goes to the driver.

    Args:
        transport: Whose protocol it replaces until then.
        is_excused: As above.
    """

    def __init__(self, transport: Any, is_excused: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_excused = is_excused
        self._driver = transport.get_protocol()
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        """Take the answer out of what the server says."""
        received = self._received
        received += data
        passed_on = bytearray()
        while len(received) >= _HEADER:
            end = 1 + int.from_bytes(received[1:_HEADER])
            if len(received) < end:
                break
            kind, message = received[0], bytes(received[:end])
            del received[:end]
            if kind == _READY:
                self._step_aside(bytes(passed_on + received))
                return
            if kind == _ERROR and not self._is_excused():
                self._transport.abort()
                return
            if kind not in _OF_THE_STATEMENT:
                passed_on += message
        if passed_on:
            self._driver.data_received(bytes(passed_on))

    def _step_aside(self, rest: bytes) -> None:
        # For the driver, or for the one that keeps the answer to a statement sent before this.
        self._transport.set_protocol(self._driver)
        if rest:
            self._driver.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on to the driver."""
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on to the driver."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on to the driver."""
        self._driver.resume_writing()

    def eof_received(self) -> bool | None:
        """Pass it on to the driver."""
        answer: bool | None = self._driver.eof_received()
        return answer
