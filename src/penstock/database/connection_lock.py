"""The lock of a session's connection, and the errors of its use."""

import asyncio
from collections import deque
from contextvars import ContextVar
from typing import Self

from sqlalchemy.exc import InvalidRequestError

from penstock.base_error import PenstockError


class ReadOnlyError(PenstockError, InvalidRequestError):
    """A read-only session was to write, or an object that it loaded was changed."""


class SelfDeadlock(PenstockError, InvalidRequestError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """A statement of the express lane waited for a lock of a session of the same request.

    The server sees no deadlock: the session's transaction only ends after the statement. The
    statement was cancelled and has written nothing.
    """


class SessionBusy(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """A unit of work should have been committed while one of its statements was in progress."""


class SessionClosed(PenstockError, InvalidRequestError):  # noqa: N818 - as above
    """The session's unit of work is over; a transaction that it began now would never end."""


class ConnectionLock:
    """Which party is at work on a session's connection: one at a time, first come, first served.

    A party may do several things at once while it holds the lock.

    Args:
        timeout: Seconds that a party waits for the lock; None for no limit.
    """

    __slots__ = ("_count", "_party", "_queue", "_timeout")

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._party: object | None = None
        self._count = 0
        """What the party has in progress."""
        self._queue: deque[tuple[object, asyncio.Future[None]]] | None = None
        """The parties that wait; None while none does. None waits while no party is at work."""

    @property
    def is_held(self) -> bool:
        """Whether a party is at work."""
        return self._party is not None

    async def acquire(self, party: object) -> None:
        """Begin one piece of work, which :meth:`release` ends, once no other party is at work.

        Args:
            party: Whose work it is.

        Raises:
            SessionBusy: Others were at work for the whole of the timeout.
        """
        if self._party is not None and self._party is not party:
            await self._wait(party)
            return
        self._party = party
        self._count += 1

    def release(self) -> None:
        """End a piece of work; the end of the last hands the lock to the next party."""
        self._count -= 1
        if self._count:
            return
        self._party = None
        while self._queue:
            party, waiter = self._queue.popleft()
            if not waiter.done():
                self._party, self._count = party, 1
                waiter.set_result(None)
                return

    async def _wait(self, party: object) -> None:
        waiter = asyncio.get_running_loop().create_future()
        if self._queue is None:
            self._queue = deque()
        self._queue.append((party, waiter))
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.release()
            if not isinstance(error, TimeoutError) or not limit.expired():
                raise
            raise SessionBusy(
                f"A statement waited {self._timeout:g} s (pool_timeout) for others of its request, "
                "which are in progress on the same connection."
            ) from error


class NestedLock:
    """The lock of one unit of work, whose savepoints must not mix with those of another.

    A unit that is made within another, by the same task or one that it has started, works while
    that holds its lock; those that are made beside it wait until it has ended.

    Args:
        timeout: Seconds that it waits for others; None for no limit.
        outer: The lock of the unit around it; None for none.

    Attributes:
        outer: The lock of the unit around it; None for none.
        inside: Held by the one unit at work within this one.
        is_over: Whether the unit has ended.
    """

    __slots__ = ("_entry", "_is_taken", "_timeout", "inside", "is_over", "outer")

    def __init__(self, timeout: float | None, outer: Self | None = None) -> None:
        self._timeout = timeout
        self.outer = outer
        self._entry, self.inside = asyncio.Lock(), asyncio.Lock()
        self._is_taken = outer is None
        self.is_over = False

    def within(self) -> "NestedLock":
        """Return the lock of a unit that is made now, within this one or deeper."""
        outer = self._current()
        lock = NestedLock(self._timeout, outer)
        _enclosing.set((self, lock))
        return lock

    def _current(self) -> "NestedLock":
        root, lock = _enclosing.get()
        while root is self and lock is not None:
            if not lock.is_over:
                return lock
            lock = lock.outer
        return self

    async def acquire(self) -> None:
        """Wait for the lock, once.

        Raises:
            SessionBusy: Another did not end in time.
        """
        if self._is_taken:
            return
        assert self.outer is not None  # noqa: S101 - or it would be taken
        await self.outer.acquire()
        async with self._entry:
            if not self._is_taken:
                await self._wait(self.outer)
                self._is_taken = True

    async def _wait(self, outer: "NestedLock") -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await outer.inside.acquire()
        except TimeoutError as error:
            raise SessionBusy(
                "Under rollback_after() one unit of work is at work at a time, and this one has "
                f"waited {self._timeout:g} s (pool_timeout) for another to end. Start within a "
                "session's block what is awaited there, or test it without rollback_after()."
            ) from error

    def release(self) -> None:
        """Release it, for good."""
        if self._is_taken and not self.is_over and self.outer is not None:
            self.outer.inside.release()
        self.is_over = True


_enclosing: ContextVar[tuple[NestedLock | None, NestedLock | None]] = ContextVar(
    "penstock_nested_lock", default=(None, None)
)
"""The outermost lock, and that of the unit which was made last."""
