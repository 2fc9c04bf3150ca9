"""Statements that travel in front of or behind what asyncpg sends, and cost no round trip.

PostgreSQL answers requests in their order, so a client may send the next one before it has the last
answer. A :class:`Pipeline` stands between a connection's transport and asyncpg, which knows
nothing of it: it writes such statements, takes their answers out of what the server says, and
hands everything else on.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

from asyncpg.exceptions import PostgresError

from penstock.deadlines import StatementLimit
from penstock.drivers.driver import always, never, without_values
from penstock.drivers.row_counter import RowCounter

Parameters = Sequence[str | None]
"""Values of one statement, as text; None for NULL."""

_HEADER = 5
_ERROR, _READY, _ROW = ord("E"), ord("Z"), ord("D")
_ASYNCHRONOUS = frozenset(b"NSA")
"""Notices, new values of parameters and notifications: they belong to no statement."""
_READY_HEADER = b"Z\0\0\0\5"
_TAIL = len(_READY_HEADER) + _HEADER
"""Bytes that are kept of what is passed on: a ReadyForQuery or a header may be cut as well."""
_LARGE = 16_384
"""Bytes in one piece from which messages are not counted, as each row would cost a bit."""
_SYNC = b"S\0\0\0\4"
_IDLE = ord("I")
_ENDS = (b"FATAL", b"PANIC")
_EXECUTE = b"E\0\0\0\x09\0\0\0\0\0"
_ROLLED_BACK = b"C\0\0\0\x0dROLLBACK\0Z\0\0\0\5I"
"""The answer to ROLLBACK: CommandComplete and ReadyForQuery, with no transaction open."""


class _Batch:
    """Statements without a Sync: they and what the driver sends next are one transaction.

    Args:
        answers: The types of the messages that answer them, in order.
        settings: Names and values that they set, which no error may show.
    """

    __slots__ = ("answers", "settings")

    def __init__(self, answers: bytes, settings: tuple[tuple[str, str], ...]) -> None:
        self.answers = answers
        self.settings = settings


class _Query:
    """A statement, or a Sync, whose answer ends with ReadyForQuery.

    Args:
        ignores_error: Called after an error: whether the statement is no longer needed.
        leaves_idle: Whether no transaction may be open afterwards.
    """

    __slots__ = ("failed", "ignores_error", "leaves_idle")

    def __init__(self, ignores_error: Callable[[], bool], *, leaves_idle: bool) -> None:
        self.ignores_error = ignores_error
        self.leaves_idle = leaves_idle
        self.failed = False


class Pipeline(asyncio.Protocol):
    """Between one connection's transport and asyncpg's protocol, from its first use on.

    Args:
        transport: Of an open connection that is idle.

    Attributes:
        ended_by: The SQLSTATE with which the server has ended the connection; empty while it has
            not said one. The driver drops what it receives between two statements, so that the
            connection is closed then, though the server may take its time to hang up.
        row_counter: Counts the rows of the driver's answers; None for nothing.
    """

    __slots__ = (
        "_driver",
        "_expected",
        "_left",
        "_received",
        "_tail",
        "_transport",
        "ended_by",
        "is_refused",
        "row_counter",
    )

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._driver: Any = transport.get_protocol()
        self._expected: deque[_Batch | _Query] = deque()
        """What the server has still to answer before it comes to what the driver has sent."""
        self._received = bytearray()
        self._left: int | None = 0
        """How many bytes of a message the driver has still to receive; below 0, how many it has
        received of a header; None where that is not known, during a large answer."""
        self._tail = b""
        """The last bytes that the driver has received, if they did not end an answer."""
        self.is_refused = False
        """Whether the server has refused a statement of the latest batch, or one before it."""
        self.ended_by = ""
        self.row_counter: RowCounter | None = None
        transport.set_protocol(self)

    @classmethod
    def of(cls, transport: Any) -> Self:
        """Return the pipeline of a transport, which is put in place at the first call."""
        protocol = transport.get_protocol()
        return protocol if protocol.__class__ is cls else cls(transport)

    # What is sent.

    def send_batch(
        self,
        statements: Sequence[tuple[str, Parameters]],
        settings: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Send statements that are one transaction with what the driver sends next.

        Should one of them fail, the server skips the rest, the driver's statement included,
        which then fails by that error. The driver's next message must be of the extended protocol.

        Args:
            statements: Each with its parameters ``$1``, ``$2`` ...; one that returns rows returns
                exactly one.
            settings: Names and values among the parameters that are not to be shown, should the
                server refuse them.
        """
        messages, answers = bytearray(), b""
        for text, values in statements:
            messages += _statement(text, values)
            answers += b"12DC" if text.startswith("SELECT") else b"12C"
        self.is_refused = False
        self._expected.append(_Batch(answers, settings))
        self._transport.write(messages)

    def send_query(
        self, text: str, ignores_error: Callable[[], bool] = never, *, leaves_idle: bool = False
    ) -> None:
        """Send one or several statements as a separate transaction.

        Should the server refuse, the connection is closed: its next user relies on them.

        Args:
            text: Without parameters.
            ignores_error: Called when the server has refused: whether it is no longer needed.
            leaves_idle: Whether the connection is closed, too, if a transaction is open then.
        """
        query = text.encode() + b"\0"
        self.expect_query(ignores_error, leaves_idle=leaves_idle)
        self._transport.write(b"Q" + (len(query) + 4).to_bytes(4) + query)

    def expect_query(
        self, ignores_error: Callable[[], bool] = never, *, leaves_idle: bool = False
    ) -> None:
        """Keep the answer to a statement from the driver which the driver itself is to send."""
        self.end_batch()
        self._expected.append(_Query(ignores_error, leaves_idle=leaves_idle))

    def roll_back(self, protocol: Any) -> None:
        """Have the driver send ROLLBACK, and give it at once what the answer will be.

        Args:
            protocol: asyncpg's.

        Raises:
            InternalClientError: The driver cannot send it; nothing was sent.
            InterfaceError: The driver is at another statement; nothing was sent.
        """
        self.end_batch()
        query = protocol.query("ROLLBACK;", None)
        waiter = query.send(None)
        # It would come too late, and take the timeout of the next statement for its own.
        waiter.remove_done_callback(protocol._on_waiter_completed)
        self.expect_query(leaves_idle=True)
        protocol.data_received(_ROLLED_BACK)
        with contextlib.suppress(StopIteration):
            query.send(None)

    @property
    def has_open_batch(self) -> bool:
        """Whether the answers to a batch have not come yet."""
        expected = self._expected
        return bool(expected) and isinstance(expected[-1], _Batch)

    def end_batch(self) -> None:
        """End a batch that the driver has sent nothing after: it is a separate transaction."""
        if self.has_open_batch:
            self._expected.append(_Query(always, leaves_idle=False))
            self._transport.write(_SYNC)

    # What is received.

    def data_received(self, data: bytes) -> None:
        """Take the answers out that are not for the driver, and hand on the rest."""
        if not self._expected and data[-6:-1] == _READY_HEADER and self.row_counter is None:
            self._left, self._tail = 0, b""  # as _follow() would, which most answers need not pay
            self._driver.data_received(data)
            self._close_if_ended()
            return
        if self._expected and self._left:
            data = self._end_of_message(data, self._left)
        if not self._expected:
            self._follow(data)
            self._driver.data_received(data)
            self._close_if_ended()
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
            if message[0] in _ASYNCHRONOUS:
                passed_on += message
            else:
                if message[0] == _ERROR:
                    self._note_end(message)
                passed_on += self._for_driver(message)
        if not self._expected:
            self._follow(received)
            passed_on += received
            received.clear()
        if passed_on and not self._transport.is_closing():
            self._driver.data_received(bytes(passed_on))
        self._close_if_ended()

    def _note_end(self, error: bytes | bytearray) -> None:
        self.ended_by = self.ended_by or _sqlstate_of_end(error)

    def _close_if_ended(self) -> None:
        if self.ended_by and not self._transport.is_closing():
            self._transport.abort()

    def _follow(self, data: bytes | bytearray) -> None:
        """Record where in a message the driver is after it has received some more.

        What the server sends unasked may be cut anywhere when a statement is sent.
        """
        if self.row_counter is not None:
            self.row_counter.feed(data)
        if data[-6:-1] == _READY_HEADER:
            self._left, self._tail = 0, b""
            return
        known = self._tail + data
        size, ready = len(known), known.rfind(_READY_HEADER)
        if ready >= 0:
            # The driver's last answer, if it is idle: what follows cannot have these bytes.
            at = ready + len(_READY_HEADER) + 1
        elif self._left is not None and size < _LARGE:
            at = len(self._tail) + self._left
        else:
            self._left, self._tail = None, known[-_TAIL:]
            return
        while size - at >= _HEADER:
            if known[at] == _ERROR:
                self._note_end(known[at:])
            at += 1 + int.from_bytes(known[at + 1 : at + _HEADER])
        self._left, self._tail = at - size, known[-_TAIL:]

    def _end_of_message(self, data: bytes, left: int) -> bytes:
        """Hand on the end of a message of which the driver has the beginning; return the rest."""
        if left < 0:
            header = self._tail[left:] + data[: _HEADER + left]
            is_whole = len(header) == _HEADER
            left += 1 + int.from_bytes(header[1:]) if is_whole else _HEADER
        end = data[:left]
        self._follow(end)
        self._driver.data_received(end)
        return data[left:]

    @property
    def is_within_message(self) -> bool:
        """Whether the driver has received only the beginning of a message."""
        return bool(self._left)

    def _for_driver(self, message: bytes) -> bytes:
        expected = self._expected[0]
        if isinstance(expected, _Batch):
            return self._beyond_batch(expected, message)
        self._take_of_query(expected, message)
        return b""

    def _beyond_batch(self, batch: _Batch, message: bytes) -> bytes:
        kind = message[0]
        if kind == _ERROR:
            is_drivers = self._is_error_for_driver(message)
            return _without_values(message, batch.settings) if is_drivers else b""
        if kind != batch.answers[0]:
            self._transport.abort()
        batch.answers = batch.answers[1:]
        if not batch.answers:
            self._expected.popleft()
        return b""

    def _is_error_for_driver(self, message: bytes) -> bool:
        self.is_refused = True
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
            if is_left_open or (query.failed and not query.ignores_error()):
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


def may_pipeline(driver: Any) -> bool:
    """Return whether asyncpg's connection is open, and the server cancels nothing of it."""
    return not (driver.is_closed() or driver._protocol._is_cancelling())


def _sqlstate_of_end(error: bytes | bytearray) -> str:
    """Return the SQLSTATE of an error that ends the connection; empty for any other."""
    fields = _fields(error)
    severity = fields.get(b"V", fields.get(b"S"))  # of which poolers have only the latter
    return fields.get(b"C", b"XX000").decode() if severity in _ENDS else ""


def _fields(error: bytes | bytearray) -> dict[bytes, bytes]:
    """Return the fields of an error by their letters.

    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """
    end = 1 + int.from_bytes(error[1:_HEADER])
    return {field[:1]: field[1:] for field in bytes(error[_HEADER:end]).split(b"\0")}


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


def _without_values(error: bytes, settings: tuple[tuple[str, str], ...]) -> bytes:
    """Return an error of the server's with no value of the settings in its texts."""
    if not settings:
        return error
    sqlstate = "" if _sqlstate_of_end(error) else _fields(error).get(b"C", b"").decode()
    fields = bytearray()
    for field in filter(None, error[_HEADER:].split(b"\0")):
        if field[:1] == b"M":
            message = without_values(field[1:].decode(errors="replace"), settings, sqlstate)
            fields += b"M" + message.encode() + b"\0"
        elif field[:1] not in b"DHW":
            fields += field + b"\0"
    fields += b"\0"
    return b"E" + (len(fields) + 4).to_bytes(4) + bytes(fields)


STAY_READ_ONLY: tuple[str, Parameters] = ("SET TRANSACTION READ ONLY", ())
"""Keeps the open transaction, or savepoint, from writing until it ends."""


def begin_text(transaction: Any) -> str:
    """Return the text that begins a transaction.

    Args:
        transaction: asyncpg's, not started.
    """
    words = ["BEGIN"]
    if transaction._isolation:
        words += ["ISOLATION LEVEL", transaction._isolation.replace("_", " ").upper()]
    if transaction._readonly:
        words.append("READ ONLY")
    if transaction._deferrable:
        words.append("DEFERRABLE")
    return " ".join(words)


def context_statements(settings: tuple[tuple[str, str], ...]) -> list[tuple[str, Parameters]]:
    """Return the statement that makes settings hold until the transaction ends; none for none.

    Args:
        settings: Names and values, which travel as parameters.
    """
    if not settings:
        return []
    calls = ", ".join(
        f"set_config(${2 * number + 1}, ${2 * number + 2}, true)" for number in range(len(settings))
    )
    return [(f"SELECT {calls}", [text for setting in settings for text in setting])]


def limit_statement(limit: StatementLimit) -> tuple[str, Parameters]:
    """Return the statement that makes a limit hold until the open transaction ends.

    It is no query, so that the transaction's isolation level may be set after it.
    """
    return f"SET LOCAL statement_timeout = {limit.milliseconds}", ()


_BEGIN: list[tuple[str, Parameters]] = [("SAVEPOINT penstock_read", ()), STAY_READ_ONLY]
_END = "ROLLBACK TO SAVEPOINT penstock_read;RELEASE SAVEPOINT penstock_read"


class ReadOnlySavepoint:
    """The turn of one read on a connection, in a savepoint that is rolled back with it.

    Args:
        mutex: Held by what is in progress on the connection.
        driver: asyncpg's connection.
    """

    def __init__(self, mutex: asyncio.Lock, driver: Any) -> None:
        self._mutex = mutex
        self._driver = driver
        self._has_begun = False
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._mutex.acquire()
        return self

    def begin(self, settings: tuple[tuple[str, str], ...]) -> None:
        """Begin the savepoint with the driver's next statement.

        Args:
            settings: Names and values that hold within it.
        """
        context = context_statements(settings)
        Pipeline.of(self._driver._transport).send_batch([*_BEGIN, *context])
        self._has_begun = True

    async def __aexit__(self, *_: object) -> None:
        if self._has_begun and not may_pipeline(self._driver):
            # The driver waits until the server has ended what was cancelled.
            self._ending = asyncio.create_task(self._end())
            return
        if self._has_begun:
            Pipeline.of(self._driver._transport).send_query(_END, always)
        self._mutex.release()

    async def _end(self) -> None:
        try:
            await self._driver.execute(_END)
        except PostgresError:
            pass  # the transaction has failed as a whole, which the next statement meets as well
        except Exception:  # noqa: BLE001 - whatever it is, nothing is known of the transaction
            self._driver.terminate()
        finally:
            self._mutex.release()
