"""Units of work in one transaction: one at a time, but for those that one has within it."""

import asyncio
from contextvars import ContextVar
from typing import Self

from penstock.database.errors import SessionBusy

__all__ = ["NestedTurn"]


class NestedTurn:
    """The turn of one unit of work, whose savepoints must not mix with those of another.

    A unit that is made within another, by the same task or one that it has started, is at work
    within its turn; those that are made beside it wait until it has ended.

    Args:
        timeout: Seconds that it waits for others; None for no limit.
        outer: The turn within which it is; None for none.
    """

    __slots__ = ("_entry", "_inside", "_is_over", "_is_taken", "_outer", "_timeout")

    def __init__(self, timeout: float | None, outer: Self | None = None) -> None:
        self._timeout = timeout
        self._outer = outer
        self._entry, self._inside = asyncio.Lock(), asyncio.Lock()
        self._is_taken = outer is None
        self._is_over = False

    def within(self) -> "NestedTurn":
        """Return the turn of a unit that is made now, within this one or deeper."""
        outer = self._current()
        turn = NestedTurn(self._timeout, outer)
        _enclosing.set((self, turn))
        return turn

    def _current(self) -> "NestedTurn":
        root, turn = _enclosing.get()
        while root is self and turn is not None:
            if not turn._is_over:  # noqa: SLF001 - of the same class
                return turn
            turn = turn._outer  # noqa: SLF001 - as above
        return self

    async def take(self) -> None:
        """Wait for the turn, once.

        Raises:
            SessionBusy: Another did not end in time.
        """
        if self._is_taken:
            return
        assert self._outer is not None  # noqa: S101 - or it would be taken
        await self._outer.take()
        async with self._entry:
            if not self._is_taken:
                await self._wait(self._outer)
                self._is_taken = True

    async def _wait(self, outer: "NestedTurn") -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await outer._inside.acquire()  # noqa: SLF001 - of the same class
        except TimeoutError as error:
            raise SessionBusy(
                "Under undone() one unit of work is at work at a time, and this one has waited "
                f"{self._timeout:g} s (pool_timeout) for another to end. Let what is awaited "
                "within a session's block not be started before it, or test it without undone()."
            ) from error

    def leave(self) -> None:
        """End the turn."""
        if self._is_taken and not self._is_over and self._outer is not None:
            self._outer._inside.release()  # noqa: SLF001 - of the same class
        self._is_over = True


_enclosing: ContextVar[tuple[NestedTurn | None, NestedTurn | None]] = ContextVar(
    "penstock_nested_turn", default=(None, None)
)
"""The outermost turn, and that of the unit which was made last."""
