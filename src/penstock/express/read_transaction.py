"""A read-only transaction on one of the pool's connections, and the statements in it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from sqlalchemy.util import greenlet_spawn

from penstock.context import Settings
from penstock.deadlines import current_limits, within_limits
from penstock.drivers.driver import BeginOptions
from penstock.express.errors import LaneEnded, is_lost, is_outdated
from penstock.express.execution import SCHEMA_CHANGES, Execution, Lease
from penstock.express.work import ConnectionLost, Then, Use, Work, fetch, learn, repeated
from penstock.pool import PenstockPool
from penstock.pool.leak import OpenLease
from penstock.pool.record import STATEMENT_KEY
from penstock.telemetry.statement_watch import IDLE_IN_TRANSACTION_KEY

_ENDED = (
    "This snapshot or stream ended when its async with block was left or its request was over, and "
    "its connection may be in use elsewhere by now. What runs later (a background task, a task of "
    "your own) opens its own. {}"
)


class ReadTransaction:
    """An open read-only transaction.

    Args:
        lease: Its connection.
        opened: The block that holds the connection.
        execution: Runs what is to leave nothing in the transaction.
        options: How it has begun, and begins anew where the schema was changed before anything was
            read.
    """

    def __init__(
        self, lease: Lease, opened: OpenLease, execution: Execution, options: BeginOptions
    ) -> None:
        self._lease = lease
        self._opened = opened
        self._execution = execution
        self._options = options
        self._new_begins = SCHEMA_CHANGES

    async def run(
        self,
        use: Use,
        plan: Any,
        sql: str,
        arguments: Any,
        *,
        apart: Settings | None = None,
        then: Then | None = None,
    ) -> Any:
        """Run a statement.

        Args:
            use: Sends it and returns the answer.
            plan: Passed on to ``use``.
            sql: The statement.
            arguments: Its values.
            apart: Settings that hold for this statement alone, of which nothing is left in the
                open transaction; None where the statement is a part of that.
            then: What makes the answer's results by further statements; None where it needs none.

        Raises:
            LaneEnded: The transaction is over.
            sqlalchemy.exc.DBAPIError: As a session would raise it.
        """
        self._opened.use()
        if self._lease.is_over:
            raise LaneEnded(_ENDED.format(sql))
        if apart is not None:
            work = Work(use, plan, sql, arguments, writes=False, settings=apart, then=then)
            return await self._execution.read_within(self._lease, work)
        answer = await self._run(use, plan, sql, arguments)
        return answer if then is None else await then(partial(self.run, fetch), answer)

    async def _run(self, use: Use, plan: Any, sql: str, arguments: Any) -> Any:
        lease, observer = self._lease, self._execution.observer
        if use is fetch:  # for a stream fetches many times
            observer.count(sql)
        lease.record.info[IDLE_IN_TRANSACTION_KEY] = inf
        lease.adapter.note(sql)
        try:
            traced = observer.traced(use)
            answering = self._answer(lambda: traced(lease.driver, plan, sql, arguments))
            answer = await observer.timed(sql, _within_limits(answering))
        except BaseException as error:  # noqa: BLE001 - translated
            translated = self._execution.errors.translate(lease.adapter, error, sql, arguments)
            raise translated from translated.__cause__
        finally:
            lease.record.info[IDLE_IN_TRANSACTION_KEY] = monotonic()
        if use is not learn:
            self._new_begins = 0
        return answer

    async def _answer(self, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        driver, adapter = self._lease.driver, self._lease.adapter
        while True:
            try:
                return await ask()
            except Exception as error:
                may = is_outdated(driver, error, writes=False, rolls_back_after=True)
                if not self._new_begins or not may:
                    raise
            self._new_begins -= 1
            await greenlet_spawn(adapter.rollback)
            await driver.reload_schema_state()
            adapter.begin = self._options
            await adapter.open_transaction()


@asynccontextmanager
async def read_transaction(
    pool: PenstockPool, execution: Execution, sql: str, options: BeginOptions
) -> AsyncIterator[ReadTransaction]:
    """Check out a connection for a read-only transaction, and give what runs statements in it.

    Args:
        pool: Whose connection it is.
        execution: Runs what is to leave nothing in the transaction.
        sql: What the transaction is for, for the log and the report of a leak.
        options: How it begins.

    Raises:
        sqlalchemy.exc.DBAPIError: As a session would raise it.
    """
    lease = await _within_limits(_begin(partial(_begun, pool, execution, sql, options)))
    opened = OpenLease(partial(_abandon, lease))
    is_ending = False
    try:
        yield ReadTransaction(lease, opened, execution, options)
        if not opened.leave():
            return
        is_ending = lease.is_over = True  # from here on no other may begin anything
        await greenlet_spawn(lease.adapter.rollback)
    except BaseException as error:
        if not is_ending and not opened.leave():
            raise  # its request has ended it
        await lease.release_failed(error, in_transaction=True)
        translated = execution.errors.translate(lease.adapter, error, sql, ())
        raise translated from translated.__cause__
    await lease.release()


def _within_limits(work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    return within_limits(work) if current_limits.get() else work


async def _begin(begun: Callable[..., Awaitable[Lease]]) -> Lease:
    try:
        return await begun()
    except ConnectionLost as error:
        lost = error
    # Nothing of the transaction had reached the server.
    return await repeated(lost, begun)


async def _begun(
    pool: PenstockPool,
    execution: Execution,
    sql: str,
    options: BeginOptions,
    *,
    asked_at: float | None = None,
) -> Lease:
    lease = await Lease.of(pool, asked_at=asked_at)
    waited = lease.record.slot.waited
    try:
        lease.record.info[STATEMENT_KEY] = sql
        execution.observer.logger.info(sql)
        lease.adapter.begin = options
        await lease.adapter.open_transaction()
        lease.record.info[IDLE_IN_TRANSACTION_KEY] = monotonic()
    except BaseException as error:
        await lease.release_failed(error, in_transaction=True)
        translated = execution.errors.translate(lease.adapter, error, sql, ())
        if is_lost(lease.driver, error):
            raise ConnectionLost(translated, waited, pool) from error
        raise translated from translated.__cause__
    return lease


async def _abandon(lease: Lease) -> None:
    """Return the connection of a block that can no longer be left."""
    lease.is_over = True
    try:
        await greenlet_spawn(lease.adapter.rollback)
    except BaseException as error:
        await lease.release_failed(error, in_transaction=True)
        raise
    await lease.release()
