"""Whether connections live, and closing those that do not."""

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
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy.util import greenlet_spawn

from penstock.pool.events import Pinged
from penstock.pool.record import Record
from penstock.pool.slot import CloseReason, Slot

if TYPE_CHECKING:
    from penstock.pool.runtime import PoolRuntime

__all__ = [
    "POLL_INTERVAL",
    "Pinger",
    "Probe",
    "SocketMonitor",
    "Watched",
    "abandon",
    "retrieve_exception",
    "shut",
    "wait_done",
]

SLICES = 5


async def wait_done(task: "asyncio.Task[Any]", seconds: float) -> bool:
    """Wait until a task has ended, and tell whether it has.

    Where the loop stands still, blocked by somebody's code or paused with its machine, an answer
    may be there that nobody could read. So the time is taken in slices, of which a stall,
    however long, uses up one.

    Args:
        task: Not cancelled by this.
        seconds: The bound, while the loop goes round.
    """
    for _ in range(SLICES):
        done, _ = await asyncio.wait({task}, timeout=seconds / SLICES)
        if done:
            return True
    return False


def retrieve_exception(task: "asyncio.Task[Any]") -> None:
    """Look at what became of a task that nobody waits for any more: it is not worth a warning."""
    if not task.cancelled():
        task.exception()


POLL_INTERVAL = 0.001
"""Seconds. The event loop sees a closed socket by itself in each of its rounds; this is for those
that came during the present round, so that to look more often would be for nothing."""


class Watched(Protocol):
    """Whatever is told that its server has closed the socket."""

    fileno: int | None
    peer_closed: bool


class SocketMonitor:
    """Watches the sockets of one pool, on Linux; elsewhere the event loop has to notice.

    ``POLLIN`` is not asked for: a notification that waits to be read is no closed socket.
    """

    __slots__ = ("_epoll", "_watched", "looked_at")

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._watched: dict[int, Watched] = {}
        self.looked_at = -math.inf

    def watch(self, watched: Watched, fileno: int | None) -> None:
        """Begin to watch a socket; None for a connection that has none.

        Args:
            watched: Whose ``peer_closed`` will be set.
            fileno: The socket's number.
        """
        watched.peer_closed = False
        watched.fileno = fileno
        if self._epoll is None or fileno is None:
            return
        self._watched[fileno] = watched
        try:
            self._epoll.register(fileno, select.EPOLLRDHUP)
        except FileExistsError:  # of a closed one, of which somebody still has a duplicate
            self._epoll.modify(fileno, select.EPOLLRDHUP)

    def forget(self, watched: Watched) -> None:
        """Watch its socket no more; the number may be another's by now, who is left alone."""
        fileno, watched.fileno = watched.fileno, None
        if fileno is not None and self._watched.get(fileno) is watched:
            del self._watched[fileno]
            self._unregister(fileno)

    def poll(self, now: float) -> None:
        """Ask the kernel, which takes a microsecond at most, if it has not just been asked."""
        if self._epoll is None or now - self.looked_at <= POLL_INTERVAL:
            return
        self.looked_at = now
        for fileno, _ in self._epoll.poll(0, len(self._watched) + 1):
            watched = self._watched.pop(fileno, None)
            if watched is not None:
                watched.peer_closed = True
            self._unregister(fileno)

    def _unregister(self, fileno: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._epoll is not None  # noqa: S101 - nothing is watched without
            self._epoll.unregister(fileno)


_logger = logging.getLogger("penstock.pool")

CLOSE_TIMEOUT = 5.0
"""Seconds for the server to end a connection's process; then the socket is dropped."""


async def shut(runtime: "PoolRuntime", connection: Any, close: Callable[[], None]) -> None:
    """Close a connection, and wait for the server to close its end; each within a bound.

    Args:
        runtime: Who looks after its pool.
        connection: SQLAlchemy's adapter around the driver's connection.
        close: What closes it. Runs in a greenlet.
    """
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT), _seen_off(runtime, connection):
            await greenlet_spawn(close)
    except Exception:
        _logger.debug("A connection did not close in time or properly", exc_info=True)
        abandon(runtime, connection)
    except BaseException:
        abandon(runtime, connection)
        raise


def abandon(runtime: "PoolRuntime", connection: Any) -> None:
    """Drop a connection that does not close: outside a greenlet this waits for nothing."""
    with contextlib.suppress(Exception):
        runtime.driver_of(connection).abandon(runtime.dialect, connection)


@asynccontextmanager
async def _seen_off(runtime: "PoolRuntime", connection: Any) -> AsyncIterator[None]:
    number = runtime.driver_of(connection).sees_off(connection)
    if number is None:
        yield
        return
    with socket.socket(fileno=os.dup(number)) as copy:
        copy.setblocking(False)
        yield
        with contextlib.suppress(OSError):
            while await runtime.loop.sock_recv(copy, 4096):
                pass


T = TypeVar("T")
Probe = Callable[[Any], Awaitable[T]]


class Pinger:
    """Asks on one pool's connections, and tells the ledger which of them do not answer.

    Args:
        runtime: Who looks after the pool.
    """

    def __init__(self, runtime: "PoolRuntime") -> None:
        self._runtime = runtime

    async def ask(self, probe: Probe[T], seconds: float) -> T | None:
        """As ``PenstockPool.ask`` says."""
        if (slot := self._runtime.ledger.spare()) is None:
            return None
        is_alive = False
        try:
            async with asyncio.timeout(seconds):
                answer = await probe(slot.content.dbapi_connection)
            is_alive = self._runtime.lives(slot.content)
        finally:
            self._asked(slot, is_alive=is_alive)
        return answer

    async def check(self, slot: Slot) -> None:
        """Ping an idle slot's connection, as the ledger has ordered."""
        record: Record = slot.content
        is_alive = False
        try:
            is_alive = await self.ping(record, self._runtime.policy.ping_timeout)
        except Exception:
            _logger.debug("A ping failed", exc_info=True)
        finally:
            self._asked(slot, is_alive=is_alive)

    def _asked(self, slot: Slot, *, is_alive: bool) -> None:
        if is_alive:
            self._runtime.ledger.restore(slot, monotonic())
        else:
            self._runtime.ledger.discard(slot, CloseReason.DEAD)
        self._runtime.dispatch()

    async def ping(self, record: Record, seconds: float) -> bool:
        """Make one round trip.

        Args:
            record: Whose connection is pinged.
            seconds: The bound.

        Returns:
            False where no answer came in time, or the connection is broken.
        """
        began = monotonic()
        is_alive = await self._answers(record, seconds)
        if self._runtime.listeners.are_there:
            self._runtime.listeners.tell(Pinged(monotonic() - began, is_alive))
        return is_alive

    async def _answers(self, record: Record, seconds: float) -> bool:
        runtime, connection = self._runtime, record.dbapi_connection
        driver = runtime.driver_of(connection)
        ping = runtime.loop.create_task(greenlet_spawn(driver.ping, runtime.dialect, connection))
        ping.add_done_callback(retrieve_exception)
        try:
            answered = await wait_done(ping, seconds)
        except BaseException:
            ping.cancel()
            raise
        if answered:
            return ping.result()
        # First, for a driver that is cancelled would ask the silent server to cancel, and wait.
        abandon(self._runtime, connection)
        ping.cancel()
        return False
