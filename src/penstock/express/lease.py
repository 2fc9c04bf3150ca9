"""A checked-out connection of the lane, and how long its statement may take."""

import asyncio
from time import monotonic
from typing import Any, Self

from sqlalchemy.util import greenlet_spawn

from penstock.drivers.asyncpg import is_cancelling
from penstock.drivers.sqlalchemy_internals import record_of
from penstock.express.translation import is_lost, was_interrupted
from penstock.pool import PenstockPool
from penstock.pool.record import Record

SHORTEST_WATCHED = 10.0
"""Seconds below which a limit is left to the driver's timers, which are exact but cost a twelfth of
a read."""
CHECK_INTERVAL = 1.0
"""Seconds between two checks of what is running: a statement may be ended so late."""


class CommandTimeout:
    """Cancels what runs for longer than ``command_timeout``, in place of the driver.

    Args:
        seconds: The limit, which the driver has as well.

    Attributes:
        leaves_it_to_the_driver: Whether the limit is too short for this.
        running: The connections that are watched: each user adds its own, and removes it.
    """

    def __init__(self, seconds: float) -> None:
        self.leaves_it_to_the_driver = seconds < SHORTEST_WATCHED
        self._seconds = seconds
        self.running: set[Record] = set()
        self._ended: set[Record] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The timer's: one that has ended calls nothing any more."""
        self.unlimited: Any = None
        """asyncpg's configuration without the limit, as it was lifted last; None at first."""

    def watch(self) -> None:
        """Begin to check what is running."""
        loop = asyncio.get_running_loop()
        if self._timer is None or loop is not self._loop:
            self._timer, self._loop = loop.call_later(CHECK_INTERVAL, self._check), loop

    def translate_timeout(self, record: Record, error: BaseException) -> BaseException:
        """Return the error to raise: a cancellation that came from here is a ``TimeoutError``."""
        if record not in self._ended:
            return error
        self._ended.discard(record)
        task = asyncio.current_task()
        if not isinstance(error, asyncio.CancelledError) or task is None or task.uncancel() > 0:
            return error
        return TimeoutError()  # as the driver's own

    def _check(self) -> None:
        self._timer = None
        now = monotonic()
        for record in self.running - self._ended:
            holder = record.slot.lease  # None where the pool has taken the connection back
            if holder is not None and now - record.slot.checked_out_at > self._seconds:
                self._ended.add(record)
                holder.cancel()
        if self.running:
            self.watch()


def count(status: str) -> int:
    """Return the number at the end of a command's tag, such as ``INSERT 0 1``; 0 without one."""
    number = status.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0


def rows_of(answer: Any) -> int:
    """Return the rows that a statement has returned or changed; 0 where the answer does not say.

    Args:
        answer: Records, what holds ``records``, a command's tag, or anything else.
    """
    if isinstance(answer, str):
        return count(answer)
    records = getattr(answer, "records", answer)
    return len(records) if isinstance(records, list) else 0


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
