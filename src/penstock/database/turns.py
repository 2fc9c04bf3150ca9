"""Taking turns on a session's connection, and what is refused there."""

import asyncio
from collections import deque
from contextvars import ContextVar
from typing import Self

from sqlalchemy.exc import InvalidRequestError

from penstock.base_error import PenstockError

__all__ = [
    "NestedTurn",
    "ReadOnlyError",
    "SelfDeadlock",
    "SessionBusy",
    "SessionClosed",
    "Turns",
]


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


class Turns:
    """Which party is at work on a session's connection: one at a time, first come, first served.

    A party may do several things at once in its turn.

    Args:
        timeout: Seconds that a party waits for its turn; None for no limit.
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
    def are_taken(self) -> bool:
        """Whether a party is at work."""
        return self._party is not None

    async def take(self, party: object) -> None:
        """Begin one piece of work, for which :meth:`leave` is called, as soon as it may be.

        Args:
            party: Whose work it is.

        Raises:
            SessionBusy: Others were at work for as long as may be waited.
        """
        if self._party is not None and self._party is not party:
            await self._wait(party)
            return
        self._party = party
        self._count += 1

    def leave(self) -> None:
        """End a piece of work; the end of the last is the next party's turn."""
        self._count -= 1
        if self._count:
            return
        self._party = None
        while self._queue:
            party, turn = self._queue.popleft()
            if not turn.done():
                self._party, self._count = party, 1
                turn.set_result(None)
                return

    async def _wait(self, party: object) -> None:
        turn = asyncio.get_running_loop().create_future()
        if self._queue is None:
            self._queue = deque()
        self._queue.append((party, turn))
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()
            if not isinstance(error, TimeoutError) or not limit.expired():
                raise
            raise SessionBusy(
                f"A statement waited {self._timeout:g} s (pool_timeout) for others of its request, "
                "which are in progress on the same connection."
            ) from error


class NestedTurn:
    """The turn of one unit of work, whose savepoints must not mix with those of another.

    A unit that is made within another, by the same task or one that it has started, is at work
    within its turn; those that are made beside it wait until it has ended.

    Args:
        timeout: Seconds that it waits for others; None for no limit.
        outer: The turn within which it is; None for none.

    Attributes:
        outer: The turn within which it is; None for none.
        inside: Held by the one unit at work within this turn.
        is_over: Whether the unit has ended.
    """

    __slots__ = ("_entry", "_is_taken", "_timeout", "inside", "is_over", "outer")

    def __init__(self, timeout: float | None, outer: Self | None = None) -> None:
        self._timeout = timeout
        self.outer = outer
        self._entry, self.inside = asyncio.Lock(), asyncio.Lock()
        self._is_taken = outer is None
        self.is_over = False

    def within(self) -> "NestedTurn":
        """Return the turn of a unit that is made now, within this one or deeper."""
        outer = self._current()
        turn = NestedTurn(self._timeout, outer)
        _enclosing.set((self, turn))
        return turn

    def _current(self) -> "NestedTurn":
        root, turn = _enclosing.get()
        while root is self and turn is not None:
            if not turn.is_over:
                return turn
            turn = turn.outer
        return self

    async def take(self) -> None:
        """Wait for the turn, once.

        Raises:
            SessionBusy: Another did not end in time.
        """
        if self._is_taken:
            return
        assert self.outer is not None  # noqa: S101 - or it would be taken
        await self.outer.take()
        async with self._entry:
            if not self._is_taken:
                await self._wait(self.outer)
                self._is_taken = True

    async def _wait(self, outer: "NestedTurn") -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await outer.inside.acquire()
        except TimeoutError as error:
            raise SessionBusy(
                "Under rollback_after() one unit of work is at work at a time, and this one has "
                f"waited {self._timeout:g} s (pool_timeout) for another to end. Start within a "
                "session's block what is awaited there, or test it without rollback_after()."
            ) from error

    def leave(self) -> None:
        """End the turn."""
        if self._is_taken and not self.is_over and self.outer is not None:
            self.outer.inside.release()
        self.is_over = True


_enclosing: ContextVar[tuple[NestedTurn | None, NestedTurn | None]] = ContextVar(
    "penstock_nested_turn", default=(None, None)
)
"""The outermost turn, and that of the unit which was made last."""
