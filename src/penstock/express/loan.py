"""One connection in the express lane's hands, and how it goes back, whatever has happened."""

import asyncio
from typing import Any, Self

from sqlalchemy.util import greenlet_spawn

from penstock.express.failures import is_lost, was_interrupted
from penstock.pool import PenstockPool
from penstock.pool.record import Record

__all__ = ["Loan", "take_back"]


class Loan:
    """A connection, borrowed from the pool itself or, where somebody listens, through SQLAlchemy.

    Args:
        record: Of the connection.
        checkout: SQLAlchemy's, if it is one.

    Attributes:
        record: As above.
        adapter: SQLAlchemy's, around asyncpg's connection; kept, for the pool may take it away.
        driver: asyncpg's connection.
        is_over: Whether it went back, so that the connection may be somebody else's.
        is_committing: Whether a COMMIT is on its way.
    """

    def __init__(self, record: Record, checkout: Any = None) -> None:
        self.record = record
        self.is_over = False
        self.is_committing = False
        adapter: Any = record.dbapi_connection
        self.adapter = adapter
        self.driver = adapter._connection  # noqa: SLF001 - asyncpg's
        self._checkout = checkout

    @classmethod
    async def of(
        cls, pool: PenstockPool, *, is_noted: bool = True, asked_at: float | None = None
    ) -> Self:
        """Borrow a connection.

        Args:
            pool: Whose.
            is_noted: As for ``PenstockPool.lend``.
            asked_at: As for ``PenstockPool.lend``; of no effect where somebody listens.

        Raises:
            PoolTimeout: None was to be had.
        """
        if pool.is_overheard():
            checkout: Any = await greenlet_spawn(pool.connect)
            return cls(checkout._connection_record, checkout)  # noqa: SLF001 - SQLAlchemy's
        lent = pool.lend(is_noted=is_noted, asked_at=asked_at)
        return cls(lent if lent.__class__ is Record else await lent)  # type: ignore[misc]  # the one or the other

    async def give_back(self) -> None:
        """Return the connection, on which nothing is open."""
        self.is_over = True
        if self._checkout is None:
            self.record.keeper.pool._return_conn(self.record)  # noqa: SLF001 - the base class's name for it
        else:
            await asyncio.shield(greenlet_spawn(self._checkout.close))

    async def take_back(self, error: BaseException, *, amid_transaction: bool = False) -> None:
        """Return the connection after something has failed.

        Args:
            error: What was raised.
            amid_transaction: Whether one is open, which is rolled back in the background then.
        """
        self.is_over = True
        if self._checkout is None:
            take_back(self.record, self.driver, error, amid_transaction=amid_transaction)
            return
        why = _reason(self.driver, error, amid_transaction=amid_transaction)
        if why is not None:
            self._checkout.invalidate(why)
        if isinstance(error, GeneratorExit):  # which lets nobody wait
            self.record.keeper.in_background(greenlet_spawn(self._checkout.close))
        else:
            await asyncio.shield(greenlet_spawn(self._checkout.close))


def take_back(
    record: Record, driver: Any, error: BaseException, *, amid_transaction: bool = False
) -> None:
    """Return a connection that the pool itself has lent, after something has failed.

    Args:
        record: Of the connection.
        driver: asyncpg's connection.
        error: What was raised.
        amid_transaction: As above.
    """
    keeper = record.keeper
    why = _reason(driver, error, amid_transaction=amid_transaction)
    if record.dbapi_connection is None:  # taken away meanwhile
        keeper.came_back_empty(record)
    elif why is not None:
        keeper.give_up(record, why)
    else:
        keeper.pool._return_conn(record)  # noqa: SLF001 - as above


def _reason(driver: Any, error: BaseException, *, amid_transaction: bool) -> BaseException | None:
    """Return why a connection cannot be lent again at once; a cancellation has it cleaned up."""
    if amid_transaction and not driver.is_closed():
        return asyncio.CancelledError()  # whatever failed: it may be the caller's own
    if is_lost(driver, error):
        return error
    if was_interrupted(error) or _is_unsettled(driver, error):
        return asyncio.CancelledError()
    return None if isinstance(error, Exception) else error


def _is_unsettled(driver: Any, error: BaseException) -> bool:
    """Whether the server may still be at a statement, though nobody waits for it.

    A COPY whose rows could not be made is being cancelled. A statement that was prepared for values
    which asyncpg then could not send has begun, with its locks, and goes on until the next one.
    """
    is_the_servers = getattr(error, "severity", None) is not None
    is_cancelling: bool = driver._protocol._is_cancelling()  # noqa: SLF001 - asyncpg tells nobody else
    return is_cancelling or (isinstance(error, Exception) and not is_the_servers)
