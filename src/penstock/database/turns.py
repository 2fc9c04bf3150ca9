"""Taking turns on a session's connection: its operations, and statements of the express lane."""

import asyncio

from penstock.database.errors import SessionBusy

__all__ = ["Turns"]


class Turns:
    """Who is at work on the connection of one session: one party at a time, as often as it likes.

    Args:
        timeout: Seconds that a party waits for its turn; None for no limit.
    """

    __slots__ = ("_count", "_freed", "_party", "_timeout")

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._party: object | None = None
        self._count = 0
        """What the party has in progress."""
        self._freed: asyncio.Future[None] | None = None
        """Done at the end of the present turn; None where no other party waits for it."""

    @property
    def are_taken(self) -> bool:
        """Whether a party is at work."""
        return self._party is not None

    def enter(self, party: object) -> bool:
        """Begin one piece of work, for which :meth:`leave` is called; False if it is not possible.

        Args:
            party: Whose it is.
        """
        if self._party is not None and self._party is not party:
            return False
        self._party = party
        self._count += 1
        return True

    async def take(self, party: object) -> None:
        """Begin one piece of work as soon as no other party is at work.

        Raises:
            SessionBusy: Another one was for as long as may be waited.
        """
        if self.enter(party):
            return
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                while not self.enter(party):
                    await self._turn_ended()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise SessionBusy(
                f"A statement waited {self._timeout:g} s (pool_timeout) for another one of its "
                "request, which is in progress on the same connection."
            ) from error

    def leave(self) -> None:
        """End a piece of work."""
        self._count -= 1
        if self._count:
            return
        self._party = None
        freed, self._freed = self._freed, None
        if freed is not None:
            freed.set_result(None)

    async def _turn_ended(self) -> None:
        if self._freed is None:
            self._freed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._freed)  # others wait for it as well
