"""A checked-out connection, and the statements that run on it, in its transactions and observed."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence, Sized
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Protocol, Self

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from penstock.deadlines import current_limits
from penstock.drivers.asyncpg import is_cancelling, prepare, prepared_of
from penstock.drivers.driver import BeginOptions
from penstock.drivers.sqlalchemy_internals import record_of
from penstock.engine import ReadOnlyConnections
from penstock.express.compiled import Plan
from penstock.express.errors import ErrorTranslator, is_lost, is_outdated, was_interrupted
from penstock.express.work import (
    Answer,
    ResultsFailed,
    Use,
    Work,
    execute_many,
    fetch,
    fetch_many,
    learn,
    rows_of,
)
from penstock.pool import PenstockPool
from penstock.pool.record import Record
from penstock.telemetry.statement_watch import IDLE_IN_TRANSACTION_KEY, StatementWatch

SCHEMA_CHANGES = 4
"""How many changes of the schema, one after another, a statement is sent again for."""
_BATCHES = frozenset({execute_many, fetch_many})
"""What sends a statement for several sets of values."""


class Spans(Protocol):
    """Makes the spans of statements."""

    def of(self, sql: str, batch: int = 0) -> AbstractContextManager[Any]:
        """Give a span for the length of a block, which ends it where it fails.

        Args:
            sql: The statement.
            batch: For how many sets of values it is run; 0 for one.
        """
        ...

    def succeed(self, span: Any, rows: int | None) -> None:
        """End a span whose block did not fail.

        Args:
            span: The span.
            rows: How many the statement returned; None where it returns none.
        """
        ...


class Observer:
    """Observes the statements of one engine's express lane.

    Args:
        engine: Whose logger is used.

    Attributes:
        logger: SQLAlchemy's, of the engine.
        watch: Counts the statements of a request and reports slow ones; None for none.
        spans: What makes spans of the statements; the first makes the outermost.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.logger = engine.sync_engine.logger
        self.watch: StatementWatch | None = None
        self.spans: tuple[Spans, ...] = ()

    def add_spans(self, spans: Spans) -> Callable[[], None]:
        """Make a span of each statement from now on, retries included.

        The wait for a connection is not within the span.

        Args:
            spans: Makes them.

        Returns:
            What ends that.
        """
        self.spans = (*self.spans, spans)
        return partial(self._remove, spans)

    def _remove(self, spans: Spans) -> None:
        self.spans = tuple(other for other in self.spans if other is not spans)

    def traced(self, use: Use) -> Use:
        """Return what does the same within a span, or itself where there are none.

        Args:
            use: Sends a statement and returns the answer.
        """
        if not self.spans or use is learn:  # which runs nothing yet
            return use
        is_batch = use in _BATCHES
        for spans in reversed(self.spans):
            use = _within_span(spans, use, is_batch=is_batch)
        return use

    def count(self, sql: str) -> None:
        """Count a statement that is about to run, if a request runs it."""
        if self.watch is not None:
            self.watch.count(sql)

    def report_slow(self, sql: str, seconds: float, answer: Any = None) -> None:
        """Report a statement if it was slow.

        Args:
            sql: The statement.
            seconds: What it took.
            answer: The server's; None where there was none.
        """
        if self.watch is not None and seconds > self.watch.slow_after:
            self.watch.slow(sql, seconds, rows_of(answer))

    def time_lease(self, record: Record, sql: str, answer: Any = None) -> None:
        """Report a statement if it was slow, timed from its connection's checkout.

        That moment is known, so that no statement need be timed by itself.

        Args:
            record: Of the connection.
            sql: The statement.
            answer: The server's; None where there was none.
        """
        self.report_slow(sql, monotonic() - record.slot.checked_out_at, answer)

    async def timed(self, sql: str, answering: Coroutine[Any, Any, Any]) -> Any:
        """Await an answer, and report the statement if it was slow.

        Args:
            sql: The statement.
            answering: Returns the answer.
        """
        began, answer = monotonic(), None
        try:
            answer = await answering
        finally:
            self.report_slow(sql, monotonic() - began, answer)
        return answer


def _within_span(spans: Spans, use: Use, *, is_batch: bool) -> Use:
    async def traced(driver: Any, plan: Any, sql: str, arguments: Any) -> Any:
        with spans.of(sql, len(arguments) if is_batch else 0) as span:
            answer = await use(driver, plan, sql, arguments)
        spans.succeed(span, _returned(answer))
        return answer

    return traced


def _returned(answer: Any) -> int | None:
    """Return how many rows came; None where it was a command's tag, or a cursor."""
    records = answer.records if isinstance(answer, Answer) else answer
    return len(records) if isinstance(records, Sized) and not isinstance(records, str) else None


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


class Execution:
    """Runs statements, and what their results take.

    Args:
        observer: Observes them.
        errors: Translates what they raise.
        read_only: Whether a connection may be kept read-only for its session.
        snapshot: The isolation level of a read of several statements; None for the configured one.
    """

    def __init__(
        self,
        observer: Observer,
        errors: ErrorTranslator,
        read_only: ReadOnlyConnections,
        snapshot: str | None,
    ) -> None:
        self.observer = observer
        self.errors = errors
        self._read_only = read_only
        self._snapshot = snapshot

    async def run_alone(self, lease: Lease, work: Work) -> Any:
        """Run a statement as a transaction of its own, with its settings.

        Args:
            lease: The connection.
            work: What to run.

        Returns:
            The answer or its results; :class:`ResultsFailed` where these could not be made.

        Raises:
            Exception: The driver's error; the transaction is rolled back where that is possible.
        """
        lease.adapter.effects |= work.plan.effects
        if work.then is not None or not (work.writes or self._read_only.are_possible):
            return await self._run_in_transaction(lease, work)
        if work.settings or current_limits.get():
            if not await _is_prepared(lease, work):
                return await self._run_in_transaction(lease, work)
            await lease.adapter.limit_next(BeginOptions(settings=work.settings))
            if prepared_of(lease.driver, work.sql) is None:  # the driver has dropped it meanwhile
                return await self._run_in_transaction(lease, work)
            lease.adapter.send_settings(work.settings)
        return await work.on(lease.driver)

    async def _run_in_transaction(self, lease: Lease, work: Work) -> Any:
        """Run what takes several messages, between a BEGIN with its settings and a COMMIT."""
        adapter = lease.adapter
        isolation = None if work.then is None or work.writes else self._snapshot
        adapter.begin = BeginOptions(not work.writes, isolation, settings=work.settings)
        await adapter.begin_pipelined()
        try:
            answer = await self._run(lease, work)
        except Exception as error:
            limit = adapter.limit
            if not was_interrupted(error) and not is_lost(lease.driver, error):
                with suppress(Exception):  # the connection is recovered then
                    await greenlet_spawn(adapter.rollback)
            adapter.limit = limit  # for the error's text
            raise
        if isinstance(answer, ResultsFailed):
            await greenlet_spawn(adapter.rollback)
        else:
            lease.is_committing = True
            await greenlet_spawn(adapter.commit)
        return answer

    async def _run(self, lease: Lease, work: Work) -> Any:
        """Run a statement, and what its results take, in the open transaction."""
        if work.then is None:
            return await work.on(lease.driver)
        answer = await self.observer.timed(work.sql, work.on(lease.driver))
        failures: dict[BaseException, Exception] = {}
        try:
            results = await work.then(partial(self._fetch_further, lease, failures), answer)
        except Exception as error:  # noqa: BLE001 - raised once the transaction is over
            if error in failures:
                raise failures[error] from None
            return ResultsFailed(error)
        if failures and work.writes:  # a listener has passed over it, but nothing can be committed
            raise next(iter(failures.values()))
        return results

    async def _fetch_further(
        self,
        lease: Lease,
        failures: dict[BaseException, Exception],
        plan: Plan,
        sql: str,
        arguments: Sequence[Any],
    ) -> Any:
        observer = self.observer
        observer.count(sql)
        observer.logger.info(sql)
        lease.adapter.note(sql)
        answering = observer.traced(fetch)(lease.driver, plan, sql, arguments)
        try:
            return await observer.timed(sql, answering)
        except Exception as error:  # noqa: BLE001 - translated
            error.statement_sent = sql, arguments  # type: ignore[attr-defined]  # for its text
            translated = self.errors.translate(lease.adapter, error, sql, arguments)
            failures[translated] = error
            raise translated from translated.__cause__

    async def read_within(self, lease: Lease, work: Work) -> Any:
        """Read on a connection that the caller holds, as a part of the transaction open there.

        What a further statement sees is up to that transaction.

        Args:
            lease: The connection.
            work: What to run; its settings hold for it alone.

        Raises:
            sqlalchemy.exc.DBAPIError: As a session would raise it; the transaction is as before.
        """
        self.observer.count(work.sql)
        self.observer.logger.info(work.sql)
        traced = replace(work, use=self.observer.traced(work.use))
        try:
            answer = await self._read_apart_anew(lease, traced)
        except BaseException as error:  # noqa: BLE001 - translated
            translated = self.errors.translate(lease.adapter, error, work.sql, work.arguments)
            raise translated from translated.__cause__
        return results_of(answer)

    async def _read_apart_anew(self, lease: Lease, work: Work) -> Any:
        left = SCHEMA_CHANGES
        while True:
            try:
                return await self._read_apart(lease, work)
            except Exception as error:
                may = is_outdated(lease.driver, error, writes=False, rolls_back_after=True)
                if not left or not may:
                    raise
            left -= 1
            await lease.driver.reload_schema_state()

    async def _read_apart(self, lease: Lease, work: Work) -> Any:
        info = lease.record.info
        info[IDLE_IN_TRANSACTION_KEY] = inf
        try:
            reading = lease.adapter.read_apart(
                work.sql, work.settings, lambda _: self._run(lease, work)
            )
            return await (reading if work.then else self.observer.timed(work.sql, reading))
        finally:
            info[IDLE_IN_TRANSACTION_KEY] = monotonic()


def results_of(answer: Any) -> Any:
    """Return an answer or its results.

    Raises:
        Exception: They could not be made, for this reason.
    """
    if isinstance(answer, ResultsFailed):
        raise answer.error
    return answer


async def _is_prepared(lease: Lease, work: Work) -> bool:
    """Prepare a statement; return whether it can be run in one go, right behind its settings.

    What prepares a statement ends the transaction of what is in front of it.
    """
    if not isinstance(work.plan, Plan):
        return False  # as COPY, which asks for the columns first
    if prepared_of(lease.driver, work.sql) is not None:
        return True
    lease.adapter.send_settings(work.settings)  # a search_path, by which names are looked up
    await prepare(lease.driver, work.sql)
    return prepared_of(lease.driver, work.sql) is not None
