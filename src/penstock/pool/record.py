"""A connection's record: what SQLAlchemy keeps with it, who holds it, and whether it is alive."""

import asyncio
import contextlib
import linecache
import logging
import math
import os
import re
import select
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from time import monotonic
from types import CodeType, FrameType
from typing import Any, Protocol

import greenlet
import sqlalchemy
from sqlalchemy.engine import Dialect
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import greenlet_spawn

from penstock.drivers.capabilities import driver_of
from penstock.drivers.driver import Driver, Trace
from penstock.drivers.effects import Effect
from penstock.pool.ledger import Ledger
from penstock.pool.slot import CloseReason, Slot

_logger = logging.getLogger("penstock.pool")

DEPTH = 8
"""Frames that are recorded at a checkout, from the code that awaits SQLAlchemy outwards."""

_ROOM = Path(__file__).parent
_LIBRARY_PATHS = (
    *(str(Path(module.__file__).parent) for module in (asyncio, sqlalchemy) if module.__file__),
    contextlib.__file__,
    str(_ROOM),
    str(_ROOM.parent / "express"),
)
"""Paths of frames that are left out, because they are not the application's."""

_TEXT = re.compile(r"(['\"])(?:\\.|(?!\1).)*\1?")
"""A string in a line of source, which may be a statement with its literals."""


class Holder:
    """What checks connections out and keeps some until its end: a request.

    Args:
        route: Returns its route; called only for a report.
        tasks: Returns the tasks that have acquired what it keeps; a task that it has started and
            awaits is not one of them. None where it keeps nothing.

    Attributes:
        leases: The blocks of it that are open.
    """

    __slots__ = ("leases", "route", "tasks")

    def __init__(
        self,
        route: Callable[[], str] | None = None,
        tasks: Callable[[], Iterable[Any]] | None = None,
    ) -> None:
        self.route = route
        self.tasks = tasks
        self.leases: set[Any] = set()


# One for all of it: each variable that a request sets costs it a microsecond.
current_holder: ContextVar[Holder | None] = ContextVar("current_holder", default=None)
"""The request that is being served; None outside requests."""


def current_route() -> Callable[[], str] | None:
    """Return what returns the route of the running request; None outside requests."""
    holder = current_holder.get()
    return None if holder is None else holder.route


STATEMENT_KEY = "penstock_statement"
"""The key of the last statement in a connection's ``info``, where statements are recorded."""


class Lease:
    """The holder of a checked-out connection, and the stack of the checkout.

    Args:
        task: The task of the caller.
        info: The connection's; the last statement of the previous lease is removed.
    """

    __slots__ = ("frames", "reported", "task")

    def __init__(self, task: "asyncio.Task[Any] | None", info: dict[Any, Any]) -> None:
        self.task = task
        info.pop(STATEMENT_KEY, None)
        self.frames = _frames()
        self.reported = False

    def stack(self) -> str:
        """Return the stack of the checkout, formatted as a traceback."""
        return _text(reversed(self.frames))


def task_of(lease: Any) -> Any:
    """Return the task of a lease.

    Args:
        lease: A slot's: a :class:`Lease`, or the task itself where the stack is not recorded.
    """
    return lease.task if type(lease) is Lease else lease


def here() -> str:
    """Return the present stack, formatted as a traceback."""
    return _text(reversed(_frames(4 * DEPTH)))


def where(task: "asyncio.Task[Any] | None") -> str:
    """Return the stack of a task, through everything it awaits; empty where it has ended.

    Args:
        task: The task; None for none.
    """
    if task is None or task.done():
        return ""
    return _text((frame.f_code, frame.f_lineno) for frame in _awaited(task.get_coro()))


def _awaited(awaitable: Any) -> Iterator[FrameType]:
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is not None:
            yield frame
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)


def _frames(depth: int = DEPTH) -> list[tuple[CodeType, int]]:
    # SQLAlchemy's frames are inside the greenlet; the caller's are in its parent. Without a
    # greenlet the frames of the pool and the express lane come first.
    parent = greenlet.getcurrent().parent
    frame: FrameType | None = parent and parent.gr_frame
    if parent is None:
        frame, depth = sys._getframe(2), 2 * depth  # noqa: SLF001 - ten times as fast as inspect
    frames = []
    for _ in range(depth):
        if frame is None:
            break
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return frames


def _text(frames: "Iterator[tuple[CodeType, int]]") -> str:
    lines = []
    for code, number in frames:
        if code.co_filename.startswith(_LIBRARY_PATHS):
            continue
        lines.append(f'  File "{code.co_filename}", line {number}, in {code.co_name}\n')
        if source := linecache.getline(code.co_filename, number).strip():
            shown = _TEXT.sub("'...'", source)
            lines.append(f"    {shown}\n")
    return "".join(lines)


class RecordOwner(Protocol):
    """What a pool does for its records on its event loop."""

    ledger: Ledger
    """Decides about the records' slots."""

    def driver_of(self, connection: Any) -> Driver:
        """Return the driver of a connection."""

    def dispatch(self) -> None:
        """Start the actions that the ledger has queued."""

    def evict(self, record: "Record", error: BaseException) -> None:
        """Take back a checked-out record whose connection is broken."""

    def recover(self, record: "Record") -> bool:
        """Recover the record's connection in the background; return False if it cannot be."""

    def reset_session(self, record: "Record") -> bool:
        """Undo session state; return whether the record has lost its connection for that."""

    def reconnect(self, record: "Record") -> Any:
        """Return a new connection for a checked-out record. Runs in a greenlet."""

    def returned_without_connection(self, record: "Record") -> None:
        """Record a return without a connection, from any thread."""

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task of the pool."""


class Record(_ConnectionRecord):
    """A connection and what SQLAlchemy keeps with it; the record outlives the connection.

    Args:
        pool: SQLAlchemy's side of the pool.
        runtime: The pool's side on its event loop.
    """

    slot: Slot
    """Its place in the ledger; meaningless while it holds no connection."""
    is_closed: Callable[[], bool]
    """Whether the driver knows the connection to be closed."""
    peer_closed = False
    """Whether the kernel knows that the server has closed the socket."""
    reads_only = False
    """Whether the server refuses writes on the connection, as its last holder set it."""
    fileno: int | None = None
    """The number of the socket that is monitored; None for none."""
    registered: Any = None
    """The connection under which the record is registered."""
    is_orphan = False
    """Whether its holder, from whom it was taken, still refers to it: it is not used again."""
    repair: "asyncio.Task[None] | bool" = False
    """The task that closes or recovers the connection that was taken from the holder."""
    trace: Any = Trace()
    """Has ``effects``: what the statements of its lease may have left on the server."""
    recovered: Any = None
    """The connection that was recovered before the holder had returned the record."""

    def __init__(self, pool: Pool, runtime: RecordOwner) -> None:
        self.runtime = runtime
        # Looked up once: each return needs them.
        self.events = pool.dispatch
        self.release = pool._return_conn  # noqa: SLF001 - the base class's
        super().__init__(pool, connect=False)

    def set_read_only(self, *, to_reading: bool) -> None:
        """Make the server refuse writes from the next statement on, or accept them again.

        Args:
            to_reading: True to refuse writes, False to accept them.
        """
        self.reads_only = to_reading
        self.runtime.driver_of(self.dbapi_connection).set_read_only(
            self.dbapi_connection, to_reading=to_reading, ignores_error=self._is_in_repair
        )

    def _is_in_repair(self) -> bool:
        # Cancelled before the statement it was set for: the recovery resets it as well.
        return bool(self.repair)

    def keep_state(self) -> None:
        """Exempt this lease from leak detection and reset: its connection is closed at the end."""
        self.trace.effects |= Effect.LASTING
        if isinstance(self.slot.lease, Lease):
            self.slot.lease.reported = True

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]  # as in the base class
        """The driver's own connection, on which the caller may do anything."""
        if self.dbapi_connection is not None:
            self.runtime.driver_of(self.dbapi_connection).expose(self.dbapi_connection)
        return super().driver_connection

    def get_connection(self) -> Any:
        """Return the connection, which the pool has just found fit; reconnect if it is gone."""
        connection = self.dbapi_connection
        return self.runtime.reconnect(self) if connection is None else connection

    def connect(self) -> None:
        """Open a connection, with all of SQLAlchemy's events."""
        super().get_connection()

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """Return to the pool, also when a listener or a reset of execution options raises."""
        if self.fairy_ref is not None and not self.finalize_callback and not self.events.checkin:
            self.fairy_ref = None
            self.release(self)
            return
        try:
            super().checkin(_fairy_was_created)
        except BaseException as error:
            self.runtime.evict(self, error)
            raise

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Close the connection; after a cancellation, recover it instead.

        Args:
            e: The error that invalidates it.
            soft: Whether it stays open until it is checked out again.
        """
        if isinstance(e, asyncio.CancelledError) and not soft and self.runtime.recover(self):
            self._log_invalidate(e, soft)
            self.dbapi_connection = None
        else:
            try:
                super().invalidate(e, soft)
            finally:
                if self.dbapi_connection is not None:  # soft, or a listener of the event failed
                    self.runtime.ledger.evict(self.slot, CloseReason.INVALID)
                    self.runtime.dispatch()

    def shut(self, *, terminate: bool) -> None:
        """Close the connection, with all of SQLAlchemy's events. Runs in a greenlet.

        Args:
            terminate: Whether the socket is dropped without a message to the server.
        """
        if self.dbapi_connection is not None:
            self._ConnectionRecord__close(terminate=terminate)  # type: ignore[attr-defined]  # its own name


POLL_INTERVAL = 0.001
"""Seconds. The event loop reads a closed socket once in each iteration; the poll finds those that
were closed during the present iteration, so that to poll more often finds nothing."""


class SocketMonitor:
    """Watches the sockets of one pool, on Linux; elsewhere the event loop alone notices.

    ``POLLIN`` is not watched: a notification that is not read yet is no closed socket.
    """

    __slots__ = ("_epoll", "_records", "polled_at")

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._records: dict[int, Record] = {}
        self.polled_at = -math.inf

    def watch(self, record: Record, fileno: int | None) -> None:
        """Begin to watch a socket.

        Args:
            record: Its ``peer_closed`` is set once the server has closed the socket.
            fileno: The socket's number; None for a connection without one.
        """
        record.peer_closed = False
        record.fileno = fileno
        if self._epoll is None or fileno is None:
            return
        self._records[fileno] = record
        try:
            self._epoll.register(fileno, select.EPOLLRDHUP)
        except FileExistsError:  # of a closed socket that has a duplicate
            self._epoll.modify(fileno, select.EPOLLRDHUP)

    def unwatch(self, record: Record) -> None:
        """Stop watching a socket, unless its number belongs to another connection by now."""
        fileno, record.fileno = record.fileno, None
        if fileno is not None and self._records.get(fileno) is record:
            del self._records[fileno]
            self._unregister(fileno)

    def poll(self, now: float) -> None:
        """Poll the kernel, which takes a microsecond at most, once in each ``POLL_INTERVAL``."""
        if self._epoll is None or now - self.polled_at <= POLL_INTERVAL:
            return
        self.polled_at = now
        for fileno, _ in self._epoll.poll(0, len(self._records) + 1):
            record = self._records.pop(fileno, None)
            if record is not None:
                record.peer_closed = True
            self._unregister(fileno)

    def _unregister(self, fileno: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._epoll is not None  # noqa: S101 - nothing is watched without
            self._epoll.unregister(fileno)


_UNKNOWN = Driver()
"""The driver of connections that a creator or a ``do_connect`` listener has brought."""

PREPARE_TIMEOUT = 5.0
"""Seconds for preparing a replacement's statements; the others are prepared when they are used."""
CLOSE_TIMEOUT = 5.0
"""Seconds for the server to end a connection's process; then the socket is dropped."""


class ConnectionRegistry:
    """The open connections of one pool: by which driver, in which record, and whether alive.

    Args:
        dialect: SQLAlchemy's dialect of the engine.
        loop: The event loop of the connections.
    """

    def __init__(self, dialect: Dialect, loop: asyncio.AbstractEventLoop) -> None:
        self.dialect = dialect
        self.socket_monitor = SocketMonitor()
        self._loop = loop
        self._driver = driver_of(dialect)
        self._records: dict[int, Record] = {}
        """By the identity of the connection, to which the record keeps a reference."""

    def driver_of(self, connection: Any) -> Driver:
        """Return the driver of a connection, which may be another than the dialect's."""
        return self._driver if self._driver.owns(connection) else _UNKNOWN

    def register(self, record: Record, connection: Any) -> None:
        """Record that the record holds the connection, and watch its socket."""
        driver = self.driver_of(connection)
        record.registered = connection
        record.is_closed = driver.is_closed(connection)
        record.trace = driver.trace(connection)
        record.trace.effects = Effect.NONE  # what `connect` listeners have set is there to stay
        self.socket_monitor.watch(record, driver.fileno(connection))
        self._records[id(connection)] = record

    def unregister(self, record: Record) -> None:
        """Remove the record's connection, which no longer belongs to the pool."""
        self._records.pop(id(record.registered), None)
        record.registered = None
        record.is_closed = _is_unregistered
        self.socket_monitor.unwatch(record)

    def record_of(self, connection: Any) -> Record | None:
        """Return the record that holds the connection; None where it is not registered."""
        return self._records.get(id(connection))

    def is_alive(self, record: Record) -> bool:
        """Return, without a round trip, whether the record's connection is still open."""
        self.socket_monitor.poll(monotonic())
        return not (record.peer_closed or record.is_closed())

    async def prepare(self, record: Record, old: Record) -> None:
        """Prepare the statements that the connection of another record has prepared.

        Args:
            record: Holds the connection on which they are prepared.
            old: The record of the other one, which that replaces.
        """
        if old.dbapi_connection is None:
            return
        connection = record.dbapi_connection
        prepare = self.driver_of(connection).prepare
        try:
            statements = self.driver_of(old.dbapi_connection).statements(old.dbapi_connection)
            async with asyncio.timeout(PREPARE_TIMEOUT):
                await greenlet_spawn(prepare, self.dialect, connection, statements)
        except Exception:
            _logger.debug("Not every statement was prepared on a new connection", exc_info=True)

    async def close(self, connection: Any, close: Callable[[], None]) -> None:
        """Close a connection and wait until the server has closed its end, within a timeout.

        Args:
            connection: SQLAlchemy's adapter around the driver's connection.
            close: Closes it. Runs in a greenlet.
        """
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT), self._until_peer_closes(connection):
                await greenlet_spawn(close)
        except Exception:
            _logger.debug("A connection was not closed in time or without an error", exc_info=True)
            self.abandon(connection)
        except BaseException:
            self.abandon(connection)
            raise

    @asynccontextmanager
    async def _until_peer_closes(self, connection: Any) -> AsyncIterator[None]:
        number = self.driver_of(connection).sees_off(connection)
        if number is None:
            yield
            return
        with socket.socket(fileno=os.dup(number)) as copy:
            copy.setblocking(False)
            yield
            with contextlib.suppress(OSError):
                while await self._loop.sock_recv(copy, 4096):
                    pass

    def abandon(self, connection: Any) -> None:
        """Drop a connection that does not close; outside a greenlet this does not wait."""
        with contextlib.suppress(Exception):
            self.driver_of(connection).abandon(self.dialect, connection)

    def abandon_all(self) -> None:
        """Drop every connection: their event loop is gone or not running."""
        for record in list(self._records.values()):
            self.abandon(record.registered)


def _is_unregistered() -> bool:
    return True
