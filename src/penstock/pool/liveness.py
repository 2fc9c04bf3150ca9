"""Liveness checks: which connections are alive, and closing those that are not."""

import asyncio
import contextlib
import logging
import math
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Protocol, TypeVar

from sqlalchemy.engine import Dialect
from sqlalchemy.util import greenlet_spawn

from penstock.drivers.capabilities import driver_of
from penstock.drivers.driver import Driver
from penstock.drivers.effects import Effect
from penstock.pool.events import Listeners, Pinged
from penstock.pool.ledger import Ledger
from penstock.pool.record import Record
from penstock.pool.slot import CloseReason, Slot

_logger = logging.getLogger("penstock.pool")

SLICES = 5


async def wait_done(task: "asyncio.Task[Any]", seconds: float) -> bool:
    """Wait until a task is done; return whether it is.

    While the event loop is blocked by a handler, or paused with its machine, an answer may have
    arrived that was not read. So the time is taken in slices: a stall of any length uses up one.

    Args:
        task: The task, which is not cancelled.
        seconds: The timeout, while the loop runs.
    """
    for _ in range(SLICES):
        done, _ = await asyncio.wait({task}, timeout=seconds / SLICES)
        if done:
            return True
    return False


def retrieve_exception(task: "asyncio.Task[Any]") -> None:
    """Retrieve the exception of a task that is no longer awaited, so that asyncio does not warn."""
    if not task.cancelled():
        task.exception()


POLL_INTERVAL = 0.001
"""Seconds. The event loop reads a closed socket once in each iteration; the poll finds those that
were closed during the present iteration, so that to poll more often finds nothing."""


class Monitored(Protocol):
    """What has a socket that the monitor watches."""

    fileno: int | None
    peer_closed: bool


class SocketMonitor:
    """Watches the sockets of one pool, on Linux; elsewhere the event loop alone notices.

    ``POLLIN`` is not watched: a notification that is not read yet is no closed socket.
    """

    __slots__ = ("_epoll", "_monitored", "polled_at")

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._monitored: dict[int, Monitored] = {}
        self.polled_at = -math.inf

    def watch(self, monitored: Monitored, fileno: int | None) -> None:
        """Begin to watch a socket.

        Args:
            monitored: Its ``peer_closed`` is set once the server has closed the socket.
            fileno: The socket's number; None for a connection without one.
        """
        monitored.peer_closed = False
        monitored.fileno = fileno
        if self._epoll is None or fileno is None:
            return
        self._monitored[fileno] = monitored
        try:
            self._epoll.register(fileno, select.EPOLLRDHUP)
        except FileExistsError:  # of a closed socket that has a duplicate
            self._epoll.modify(fileno, select.EPOLLRDHUP)

    def unwatch(self, monitored: Monitored) -> None:
        """Stop watching a socket, unless its number belongs to another connection by now."""
        fileno, monitored.fileno = monitored.fileno, None
        if fileno is not None and self._monitored.get(fileno) is monitored:
            del self._monitored[fileno]
            self._unregister(fileno)

    def poll(self, now: float) -> None:
        """Poll the kernel, which takes a microsecond at most, once in each ``POLL_INTERVAL``."""
        if self._epoll is None or now - self.polled_at <= POLL_INTERVAL:
            return
        self.polled_at = now
        for fileno, _ in self._epoll.poll(0, len(self._monitored) + 1):
            monitored = self._monitored.pop(fileno, None)
            if monitored is not None:
                monitored.peer_closed = True
            self._unregister(fileno)

    def _unregister(self, fileno: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._epoll is not None  # noqa: S101 - nothing is watched without
            self._epoll.unregister(fileno)


_UNKNOWN = Driver()
"""The driver of connections that a creator or a ``do_connect`` listener has brought."""

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


T = TypeVar("T")
Probe = Callable[[Any], Awaitable[T]]
"""Queries the server; given the driver's connection."""


class Pinger:
    """Pings and probes connections of one pool, and reports to the ledger which are dead.

    Args:
        ledger: The ledger of the pool.
        registry: The connections.
        listeners: Are notified of each ping.
        loop: The event loop of the connections.
        ping_timeout: Seconds for the server to answer a ping in the background.
        dispatch: Starts the actions that the ledger has queued.
    """

    def __init__(
        self,
        ledger: Ledger,
        registry: ConnectionRegistry,
        listeners: Listeners,
        loop: asyncio.AbstractEventLoop,
        *,
        ping_timeout: float,
        dispatch: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._listeners = listeners
        self._loop = loop
        self._ping_timeout = ping_timeout
        self._dispatch = dispatch

    async def run_probe(self, probe: Probe[T], seconds: float) -> T | None:
        """Run a probe on an idle connection, which is not checked out for it.

        Args:
            probe: Given the driver's connection; if it raises, that connection is closed.
            seconds: The timeout.

        Returns:
            Its answer; None where no connection was idle.
        """
        if (slot := self._ledger.take_idle()) is None:
            return None
        is_alive = False
        try:
            async with asyncio.timeout(seconds):
                answer = await probe(slot.content.dbapi_connection)
            is_alive = self._registry.is_alive(slot.content)
        finally:
            self._checked(slot, is_alive=is_alive)
        return answer

    async def check(self, slot: Slot) -> None:
        """Ping an idle slot's connection, and report the result to the ledger."""
        is_alive = False
        try:
            is_alive = await self.ping(slot.content, self._ping_timeout)
        except Exception:
            _logger.debug("A ping failed", exc_info=True)
        finally:
            self._checked(slot, is_alive=is_alive)

    def _checked(self, slot: Slot, *, is_alive: bool) -> None:
        if is_alive:
            self._ledger.restore(slot, monotonic())
        else:
            self._ledger.close_connection(slot, CloseReason.DEAD)
        self._dispatch()

    async def ping(self, record: Record, seconds: float) -> bool:
        """Make one round trip.

        Args:
            record: Holds the connection.
            seconds: The timeout.

        Returns:
            Whether the server answered in time.
        """
        began = monotonic()
        is_alive = await self._answers(record.dbapi_connection, seconds)
        if self._listeners.active:
            self._listeners.notify(Pinged(monotonic() - began, is_alive))
        return is_alive

    async def _answers(self, connection: Any, seconds: float) -> bool:
        registry = self._registry
        driver = registry.driver_of(connection)
        ping = self._loop.create_task(greenlet_spawn(driver.ping, registry.dialect, connection))
        ping.add_done_callback(retrieve_exception)
        try:
            answered = await wait_done(ping, seconds)
        except BaseException:
            ping.cancel()
            raise
        if answered:
            return ping.result()
        # First: a cancelled driver would ask the silent server to cancel the ping, and wait.
        registry.abandon(connection)
        ping.cancel()
        return False
