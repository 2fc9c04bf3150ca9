"""A checked-out connection of the lane, and how long its statement may take."""

import asyncio
from typing import Any, Self

from sqlalchemy.util import greenlet_spawn

from penstock.drivers.asyncpg_protocol import is_cancelling
from penstock.drivers.sqlalchemy_internals import record_of
from penstock.express.errors import is_lost, was_interrupted
from penstock.pool import PenstockPool
from penstock.pool.record import Record


class Lease:
    """A checked-out connection: from the pool itself or, where it has listeners, by SQLAlchemy.

    Args:
        record: Of the connection.
        checkout: SQLAlchemy's, if it is one.

    Attributes:
        record: Of the connection.
        adapter: SQLAlchemy's, around asyncpg's connection; kept, for the pool may take it away.
        driver: asyncpg's connection.
        is_over: Whether it was released, so that the connection may be on another lease.
        is_committing: Whether a COMMIT is on its way.
    """

    def __init__(self, record: Record, checkout: Any = None) -> None:
        self.record = record
        self.is_over = False
        self.is_committing = False
        adapter: Any = record.dbapi_connection
        self.adapter = adapter
        self.driver = adapter.driver_connection
        self._checkout = checkout

    @classmethod
    async def of(
        cls, pool: PenstockPool, *, records_checkout: bool = True, asked_at: float | None = None
    ) -> Self:
        """Check out a connection.

        Args:
            pool: Whose.
            records_checkout: As for ``PenstockPool.checkout``.
            asked_at: As for ``PenstockPool.checkout``; of no effect where the pool has listeners.

        Raises:
            PoolTimeout: None was to be had.
        """
        if pool.has_checkout_listeners():
            checkout: Any = await greenlet_spawn(pool.connect)
            return cls(record_of(checkout), checkout)
        checked_out = pool.checkout(records_checkout=records_checkout, asked_at=asked_at)
        return cls(checked_out if checked_out.__class__ is Record else await checked_out)  # type: ignore[misc]  # the one or the other

    async def release(self) -> None:
        """Return the connection, on which nothing is open."""
        self.is_over = True
        if self._checkout is None:
            self.record.release(self.record)
        else:
            await asyncio.shield(greenlet_spawn(self._checkout.close))

    async def release_failed(self, error: BaseException, *, in_transaction: bool = False) -> None:
        """Return the connection after something has failed.

        Args:
            error: What was raised.
            in_transaction: Whether one is open, which is rolled back in the background then.
        """
        self.is_over = True
        if self._checkout is None:
            release_failed(self.record, self.driver, error, in_transaction=in_transaction)
            return
        why = _reason(self.driver, error, in_transaction=in_transaction)
        if why is not None:
            self._checkout.invalidate(why)
        if isinstance(error, GeneratorExit):  # during which nothing can be awaited
            self.record.runtime.in_background(greenlet_spawn(self._checkout.close))
        else:
            await asyncio.shield(greenlet_spawn(self._checkout.close))


def release_failed(
    record: Record, driver: Any, error: BaseException, *, in_transaction: bool = False
) -> None:
    """Return a connection that the pool itself has checked out, after something has failed.

    Args:
        record: Of the connection.
        driver: asyncpg's connection.
        error: What was raised.
        in_transaction: Whether one is open, which is rolled back in the background then.
    """
    runtime = record.runtime
    why = _reason(driver, error, in_transaction=in_transaction)
    if record.dbapi_connection is None:  # taken away meanwhile
        runtime.returned_without_connection(record)
    elif why is not None:
        runtime.evict(record, why)
    else:
        record.release(record)


def _reason(driver: Any, error: BaseException, *, in_transaction: bool) -> BaseException | None:
    """Return why a connection cannot be used again at once; a cancellation has it cleaned up."""
    if in_transaction and not driver.is_closed():
        return asyncio.CancelledError()  # whatever failed: it may be the caller's own
    if is_lost(driver, error):
        return error
    if was_interrupted(error) or _is_unsettled(driver, error):
        return asyncio.CancelledError()
    return None if isinstance(error, Exception) else error


def _is_unsettled(driver: Any, error: BaseException) -> bool:
    """Return whether the server may still run a statement that the driver does not wait for.

    A COPY whose rows could not be made is being cancelled. A statement that was prepared for values
    which asyncpg then could not send has begun, with its locks, and goes on until the next one.
    """
    is_the_servers = getattr(error, "severity", None) is not None
    return is_cancelling(driver) or (isinstance(error, Exception) and not is_the_servers)
