"""What a pool asks on its connections between two loans: whether they live, and what else is known.

A connection that is asked counts as neither idle nor lent.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.util import greenlet_spawn

from penstock.pool.closing import abandon
from penstock.pool.events import Pinged
from penstock.pool.record import Record
from penstock.pool.slot import CloseReason, Slot
from penstock.pool.standstill import ended, heed

if TYPE_CHECKING:
    from penstock.pool.keeper import Keeper

__all__ = ["Question", "Questions"]

_logger = logging.getLogger("penstock.pool")

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
