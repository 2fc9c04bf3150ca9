"""Running statements on a checked-out connection, in its transactions, and observing them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence, Sized
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from penstock.context import Settings
from penstock.deadlines import limits_in_force, within_limits
from penstock.drivers.asyncpg_protocol import prepare, prepared_of
from penstock.drivers.driver import BeginOptions
from penstock.engine import ReadOnlyConnections
from penstock.express.compiled import Plan
from penstock.express.errors import (
    ErrorTranslator,
    LaneEnded,
    is_lost,
    is_outdated,
    was_interrupted,
)
from penstock.express.lease import Lease
from penstock.express.work import (
    Answer,
    ConnectionLost,
    ResultsFailed,
    Then,
    Use,
    Work,
    execute_many,
    fetch,
    fetch_many,
    learn,
    repeated,
    rows_of,
)
from penstock.pool import PenstockPool
from penstock.pool.lease import STATEMENT_KEY, OpenLease
from penstock.pool.record import Record
from penstock.telemetry.leases import IDLE_IN_TRANSACTION_KEY
from penstock.telemetry.statement_watch import StatementWatch

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
        if work.settings or limits_in_force() is not None:
            if not await _is_prepared(lease, work):
                return await self._run_in_transaction(lease, work)
            await lease.adapter.limit_next(BeginOptions(settings=work.settings))
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
            try:
                answer = await self._read_apart(lease, traced)
            except Exception as error:
                if not is_outdated(lease.driver, error, writes=False, rolls_back_after=True):
                    raise
                await lease.driver.reload_schema_state()
                answer = await self._read_apart(lease, traced)
        except BaseException as error:  # noqa: BLE001 - translated
            translated = self.errors.translate(lease.adapter, error, work.sql, work.arguments)
            raise translated from translated.__cause__
        return results_of(answer)

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


_ENDED = (
    "This snapshot or stream ended when its async with block was left or its request was over, and "
    "its connection may be in use elsewhere by now. What runs later (a background task, a task of "
    "your own) opens its own. {}"
)


@asynccontextmanager
async def read_transaction(
    pool: PenstockPool, execution: Execution, sql: str, options: BeginOptions
) -> AsyncIterator["ReadTransaction"]:
    """Check out a connection for a read-only transaction, and give what runs statements in it.

    Args:
        pool: Whose connection.
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
        yield ReadTransaction(lease, opened, execution)
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


class ReadTransaction:
    """An open read-only transaction.

    Args:
        lease: Its connection.
        opened: The block that holds the connection.
        execution: Runs what is to leave nothing in the transaction.
    """

    def __init__(self, lease: Lease, opened: OpenLease, execution: Execution) -> None:
        self._lease = lease
        self._opened = opened
        self._execution = execution

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
            answering = observer.traced(use)(lease.driver, plan, sql, arguments)
            return await observer.timed(sql, _within_limits(answering))
        except BaseException as error:  # noqa: BLE001 - translated
            translated = self._execution.errors.translate(lease.adapter, error, sql, arguments)
            raise translated from translated.__cause__
        finally:
            lease.record.info[IDLE_IN_TRANSACTION_KEY] = monotonic()


def _within_limits(work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    return work if limits_in_force() is None else within_limits(work)


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
