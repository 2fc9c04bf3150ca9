"""Taking turns on a session's connection: its operations, and statements of the express lane."""

import asyncio
from collections import deque

from penstock.database.errors import SessionBusy

__all__ = ["Turns"]


class Turns:
    """Who is at work on the connection of one session: one party at a time, first come, first.

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
        """Who waits; made when somebody does. Nobody waits while no party is at work."""

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
