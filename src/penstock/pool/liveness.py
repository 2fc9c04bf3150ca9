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
    from penstock.pool.runtime import Keeper

__all__ = [
    "LOOK_EVERY",
    "Hangups",
    "Question",
    "Questions",
    "Watched",
    "abandon",
    "ended",
    "heed",
    "shut",
]

SLICES = 5


async def ended(task: "asyncio.Task[Any]", seconds: float) -> bool:
    """Wait until a task has ended, and tell whether it has.

    Where the loop stands still, blocked by somebody's code or paused with its machine, an answer
    may be there that nobody could read. So the time is taken in slices, of which a standstill,
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


def heed(task: "asyncio.Task[Any]") -> None:
    """Look at what became of a task that nobody waits for any more: it is not worth a warning."""
    if not task.cancelled():
        task.exception()


LOOK_EVERY = 0.001
"""Seconds. The event loop sees a hang-up by itself in each of its rounds; this is for those that
came during the present round, so that to look more often would be for nothing."""


class Watched(Protocol):
    """Whatever is told that its server has hung up."""

    fileno: int | None
    hung_up: bool


class Hangups:
    """Watches the sockets of one pool, on Linux; elsewhere the event loop has to notice.

    ``POLLIN`` is not asked for: a notification that waits to be read is no hang-up.
    """

    __slots__ = ("_epoll", "_watched", "looked_at")

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._watched: dict[int, Watched] = {}
        self.looked_at = -math.inf

    def watch(self, watched: Watched, fileno: int | None) -> None:
        """Begin to watch a socket; None for a connection that has none.

        Args:
            watched: Whose ``hung_up`` will be set.
            fileno: The socket's number.
        """
        watched.hung_up = False
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

    def look(self, now: float) -> None:
        """Ask the kernel, which takes a microsecond at most, if it has not just been asked."""
        if self._epoll is None or now - self.looked_at <= LOOK_EVERY:
            return
        self.looked_at = now
        for fileno, _ in self._epoll.poll(0, len(self._watched) + 1):
            watched = self._watched.pop(fileno, None)
            if watched is not None:
                watched.hung_up = True
            self._unregister(fileno)

    def _unregister(self, fileno: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            assert self._epoll is not None  # noqa: S101 - nothing is watched without
            self._epoll.unregister(fileno)


_logger = logging.getLogger("penstock.pool")

CLOSE_TIMEOUT = 5.0
"""Seconds for the server to end a connection's process; then the socket is dropped."""


async def shut(keeper: "Keeper", connection: Any, close: Callable[[], None]) -> None:
    """Close a connection, and wait until the server has hung up, too; both within a bound.

    Args:
        keeper: Who looks after its pool.
        connection: SQLAlchemy's adapter around the driver's connection.
        close: What closes it. Runs in a greenlet.
    """
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT), _seen_off(keeper, connection):
            await greenlet_spawn(close)
    except Exception:
        _logger.debug("A connection did not close in time or properly", exc_info=True)
        abandon(keeper, connection)
    except BaseException:
        abandon(keeper, connection)
        raise


def abandon(keeper: "Keeper", connection: Any) -> None:
    """Drop a connection that does not close: outside a greenlet this waits for nothing."""
    with contextlib.suppress(Exception):
        keeper.driver_of(connection).abandon(keeper.dialect, connection)


@asynccontextmanager
async def _seen_off(keeper: "Keeper", connection: Any) -> AsyncIterator[None]:
    number = keeper.driver_of(connection).sees_off(connection)
    if number is None:
        yield
        return
    with socket.socket(fileno=os.dup(number)) as copy:
        copy.setblocking(False)
        yield
        with contextlib.suppress(OSError):
            while await keeper.loop.sock_recv(copy, 4096):
                pass


T = TypeVar("T")
Question = Callable[[Any], Awaitable[T]]


class Questions:
    """Asks on one pool's connections, and tells the ledger which of them do not answer.

    Args:
        keeper: Who looks after the pool.
    """

    def __init__(self, keeper: "Keeper") -> None:
        self._keeper = keeper

    async def ask(self, question: Question[T], seconds: float) -> T | None:
        """As ``PenstockPool.ask`` says."""
        if (slot := self._keeper.ledger.spare()) is None:
            return None
        is_alive = False
        try:
            async with asyncio.timeout(seconds):
                answer = await question(slot.content.dbapi_connection)
            is_alive = self._keeper.lives(slot.content)
        finally:
            self._asked(slot, is_alive=is_alive)
        return answer

    async def check(self, slot: Slot) -> None:
        """Ping an idle slot's connection, as the ledger has ordered."""
        record: Record = slot.content
        is_alive = False
        try:
            is_alive = await self.ping(record, self._keeper.policy.ping_timeout)
        except Exception:
            _logger.debug("A ping failed", exc_info=True)
        finally:
            self._asked(slot, is_alive=is_alive)

    def _asked(self, slot: Slot, *, is_alive: bool) -> None:
        if is_alive:
            self._keeper.ledger.restore(slot, monotonic())
        else:
            self._keeper.ledger.discard(slot, CloseReason.DEAD)
        self._keeper.carry_out()

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
        if self._keeper.listeners.are_there:
            self._keeper.listeners.tell(Pinged(monotonic() - began, is_alive))
        return is_alive

    async def _answers(self, record: Record, seconds: float) -> bool:
        keeper, connection = self._keeper, record.dbapi_connection
        driver = keeper.driver_of(connection)
        ping = keeper.loop.create_task(greenlet_spawn(driver.ping, keeper.dialect, connection))
        ping.add_done_callback(heed)
        try:
            answered = await ended(ping, seconds)
        except BaseException:
            ping.cancel()
            raise
        if answered:
            return ping.result()
        # First, for a driver that is cancelled would ask the silent server to cancel, and wait.
        abandon(self._keeper, connection)
        ping.cancel()
        return False
