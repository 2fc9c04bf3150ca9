"""The pool's connections, checked out for one statement or for a transaction that only reads."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from logging import INFO
from math import inf
from time import monotonic
from typing import Any, Protocol, TypeVar

from asyncpg.exceptions import OutdatedSchemaCacheError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from penstock.context import Settings
from penstock.deadlines import current_limits, limits_in_force, within_limits
from penstock.drivers.asyncpg import is_read_only
from penstock.drivers.driver import BeginOptions
from penstock.engine import Timeouts, TransactionTimeout
from penstock.express.compiled import Plan
from penstock.express.errors import LaneEnded
from penstock.express.lease import CommandTimeout, Lease, rows_of, take_back
from penstock.express.protocol import fetch, prepared_of
from penstock.express.translation import (
    is_lost,
    is_outdated,
    is_shutdown,
    translate_error,
    was_interrupted,
)
from penstock.pool import PenstockPool
from penstock.pool.lease import STATEMENT_KEY, OpenLease
from penstock.pool.record import Record
from penstock.telemetry.leases import IDLE_IN_TRANSACTION_KEY
from penstock.telemetry.statement_watch import StatementWatch

__all__ = ["SNAPSHOT", "ConnectionLost", "Connections", "Fetch", "Run", "Then", "repeated"]

T = TypeVar("T")

Use = Callable[[Any, Any, str, Any], Coroutine[Any, Any, Any]]
"""What is done: given asyncpg's connection, the plan, the SQL and its values."""
Fetch = Callable[[Plan, str, Sequence[Any]], Awaitable[Any]]
"""Runs a further statement in the same transaction, and returns its answer."""
Then = Callable[[Fetch, Any], Awaitable[Any]]
"""Makes what is wanted of an answer by further statements; given what runs them and the answer."""


class Run(Protocol):
    """Does something on a connection that was acquired before."""

    async def __call__(
        self,
        use: Use,
        plan: Any,
        text: str,
        arguments: Any,
        *,
        apart: Settings | None = None,
        then: Then | None = None,
    ) -> Any:
        """Do it.

        Args:
            use: What is done.
            plan: As ``use`` takes it, like the next two.
            text: The SQL.
            arguments: Its values.
            apart: Settings that hold for it alone, where nothing of it is to be left in the open
                transaction; None where it is a part of that.
            then: What makes the answer's results by further statements; None where it needs none.
        """
        ...


SNAPSHOT = "REPEATABLE READ"
"""The isolation level at which a transaction's statements see the database at one moment."""

_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before what has met the end of a connection is tried again: at once, and then after what
a server needs to tell all of its connections that it shuts down."""

_ENDED = (
    "This snapshot or stream ended when its async with block was left or its request was over, and "
    "its connection may be another's by now. What runs later (a background task, a task of your "
    "own) opens its own. {}"
)


class _NotMade:
    """Stands for results that could not be made of an answer.

    Args:
        error: What was raised: none of the driver's, whatever its class.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


class ConnectionLost(Exception):  # noqa: N818 - it says what happened
    """A connection ended before it had answered.

    Args:
        error: What a session would raise.
        waited: Seconds for which the connection was waited for.
        pool: Whose connection it was.
    """

    def __init__(self, error: BaseException, waited: float, pool: PenstockPool) -> None:
        super().__init__(str(error))
        self.error = error
        self.waited = waited
        self.pool = pool


async def repeated(lost: ConnectionLost, attempt: Callable[..., Awaitable[T]]) -> T:
    """Do something again on another connection, as the first one ended without an answer.

    Once, and again as long as the server says that it shuts down: then on a connection that is
    opened after that. All the waits for a connection together are bounded by ``pool_timeout``.

    Args:
        lost: What became of it.
        attempt: Does it, given ``asked_at``, when it is to have asked for a connection.

    Raises:
        sqlalchemy.exc.DBAPIError: As a session would raise it.
    """
    waited = 0.0
    for pause in _PAUSES:
        if pause:  # one connection may be ended alone, two are no chance
            if not is_shutdown(lost.error):
                break
            lost.pool.retire_open()
        await asyncio.sleep(pause)
        waited = max(waited, lost.waited) + pause
        try:
            return await attempt(asked_at=monotonic() - waited)
        except ConnectionLost as again:
            lost = again
    raise lost.error from lost


@dataclass(frozen=True)
class _Work:
    """What :meth:`Connections.use` is to do, where that takes more than it does by itself."""

    use: Use
    plan: Any
    sql: str
    arguments: Sequence[Any]
    writes: bool
    settings: Settings = field(default=(), repr=False)
    asked_at: float | None = None
    then: Then | None = None

    def on(self, driver: Any) -> Coroutine[Any, Any, Any]:
        return self.use(driver, self.plan, self.sql, self.arguments)

    def may_be_sent_again(self, driver: Any, error: BaseException) -> bool:
        # Not a copy, some of whose rows were taken already.
        writes = self.writes and self.then is None  # else it was rolled back
        return isinstance(self.plan, Plan) and is_outdated(driver, error, writes=writes)


class Connections:
    """The pool's connections, as asyncpg has them.

    Args:
        engine: Whose pool it is; SQLAlchemy's asyncpg dialect below.
        is_confinable: Returns whether a connection may be kept read-only to reading for its
            session: not where a pooler hands the server's sessions around.
        command_timeout: Seconds that a statement may take; the driver's own limit is the same.
        snapshot: The isolation level of a read of several statements; None for the server's own.

    Attributes:
        watch: Who is told of slow statements and counts those of a request; None for nobody.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        is_confinable: Callable[[], bool],
        command_timeout: float,
        snapshot: str | None = SNAPSHOT,
    ) -> None:
        self.is_confinable = is_confinable
        self._snapshot = snapshot
        self.watch: StatementWatch | None = None
        self._command_limit = CommandTimeout(command_timeout)
        self._timeouts = Timeouts("asyncpg", command_timeout)
        self._running = self._command_limit.running
        self._engine = engine
        self._sync = engine.sync_engine
        self._logger = engine.sync_engine.logger

    async def use(
        self,
        use: Use,
        plan: Any,
        sql: str,
        arguments: Sequence[Any],
        writes: bool,
        *,
        settings: Settings = (),
        asked_at: float | None = None,
        then: Then | None = None,
    ) -> Any:
        """Check out a connection for one statement, and what its results take.

        Args:
            use: Sends it and returns the answer.
            plan: Passed on to that.
            sql: The statement, for the log and an error's text.
            arguments: Its values, as above.
            writes: Whether the server is to let it write.
            settings: Of the server, for this statement alone.
            asked_at: As for ``PenstockPool.checkout``.
            then: What makes the results by further statements, in the same transaction, which
                for a read is one snapshot; None where the answer is all.

        Raises:
            ConnectionLost: The connection ended before it had answered.
            sqlalchemy.exc.DBAPIError: As a session would raise it.
        """
        pool: PenstockPool = self._sync.pool  # type: ignore[assignment]  # as Database has looked
        command_limit, watch = self._command_limit, self.watch
        if watch is not None:
            watch.count(sql)
        if (
            settings
            or then is not None
            or (current_limits.get() is not None and limits_in_force() is not None)
            or command_limit.leaves_it_to_the_driver
            or pool.has_checkout_listeners()
            or not (writes or self.is_confinable())
        ):
            work = _Work(use, plan, sql, arguments, writes, settings, asked_at, then)
            return await self._use_otherwise(pool, work)
        lent = pool.checkout(records_checkout=False, asked_at=asked_at)
        record: Record = lent if lent.__class__ is Record else await lent  # type: ignore[misc]  # the one or the other
        adapter: Any = record.dbapi_connection
        driver = adapter._connection  # noqa: SLF001 - asyncpg's; its property costs more
        if plan.effects:
            adapter.effects |= plan.effects
        running, limited = self._running, driver._config  # noqa: SLF001 - where its limit is
        try:
            # Written out, for each read pays for a call: CommandTimeout watches in the driver's
            # place.
            if not running:
                command_limit.watch()
            running.add(record)
            driver._config = command_limit.unlimited or command_limit.without_limit(limited)  # noqa: SLF001 - as above
            if (
                record.reads_only is writes
                or self._logger.isEnabledFor(INFO)
                or not (writes or is_read_only(driver))
            ):
                self._make_ready(record, sql, writes)
            answer = await use(driver, plan, sql, arguments)
        except BaseException as error:  # noqa: BLE001 - raised in other words
            running.discard(record)
            driver._config = limited  # noqa: SLF001 - as above
            self._time(record, sql)
            work = _Work(use, plan, sql, arguments, writes, asked_at=asked_at)
            return await self._recovered(record, adapter, work, error)
        running.discard(record)
        driver._config = limited  # noqa: SLF001 - as above
        if watch is not None and monotonic() - record.slot.checked_out_at > watch.slow_after:
            self._time(record, sql, answer)
        pool.release(record)
        return answer

    def _time(self, record: Record, sql: str, answer: Any = None) -> None:
        # From the checkout, whose moment is known, so that no statement need be timed by itself.
        watch, seconds = self.watch, monotonic() - record.slot.checked_out_at
        if watch is not None and seconds > watch.slow_after:
            watch.slow(sql, seconds, rows_of(answer))

    async def _recovered(
        self, record: Record, adapter: Any, work: "_Work", cause: BaseException
    ) -> Any:
        """Return the answer to a second try, or raise what a session would."""
        driver = adapter._connection  # noqa: SLF001 - asyncpg's
        waited = record.slot.waited
        adapter.limit = None  # of a lease before
        error = self._command_limit.translate_timeout(record, cause)
        if work.may_be_sent_again(driver, error):
            return await self._use_anew(Lease(record), work)
        if isinstance(error, OutdatedSchemaCacheError):
            await driver.reload_schema_state()  # for the holder after this
        was_taken = record.dbapi_connection is None
        take_back(record, driver, error)
        told = self._told(adapter, error, work, waited)
        if was_taken and isinstance(told, ConnectionLost):
            told = told.error  # by the pool, which has no other one for who had this
        raise told from told.__cause__

    async def _use_otherwise(self, pool: PenstockPool, work: "_Work") -> Any:
        lease = await Lease.of(pool, records_checkout=False, asked_at=work.asked_at)
        waited = lease.record.slot.waited
        try:
            self._make_ready(lease.record, work.sql, work.writes)
            answer = await self._run_alone(lease, work)
        except BaseException as error:  # noqa: BLE001 - as above
            self._time_alone(lease.record, work)
            if work.may_be_sent_again(lease.driver, error):
                return await self._use_anew(lease, work)
            told = self._told_of(lease, error, work, waited)
            await self._take_back(lease, error)
            raise told from told.__cause__
        self._time_alone(lease.record, work, answer)
        await lease.release()
        return _made(answer)

    def _time_alone(self, record: Record, work: _Work, answer: Any = None) -> None:
        if work.then is None:  # else each of its statements was timed
            self._time(record, work.sql, answer)

    async def _run_alone(self, lease: Lease, work: "_Work") -> Any:
        """Run a statement as a transaction of its own, with its settings, that reads if it may."""
        lease.adapter.effects |= work.plan.effects
        if work.then is not None or not (work.writes or self.is_confinable()):
            return await self._run_in_transaction(lease, work)
        if work.settings or limits_in_force() is not None:
            if not await _is_prepared(lease, work):
                return await self._run_in_transaction(lease, work)
            await lease.adapter.limit_next(BeginOptions(settings=work.settings))
            lease.adapter.send_settings(work.settings)
        return await work.on(lease.driver)

    async def _run_in_transaction(self, lease: Lease, work: "_Work") -> Any:
        """Run what takes several messages, between a BEGIN with its settings and a COMMIT."""
        adapter = lease.adapter
        isolation = None if work.then is None or work.writes else self._snapshot
        adapter.begin = BeginOptions(not work.writes, isolation, settings=work.settings)
        await adapter.begin_pipelined()
        try:
            answer = await self._done(lease, work)
        except Exception as error:
            limit = adapter.limit
            if not was_interrupted(error) and not is_lost(lease.driver, error):
                with suppress(Exception):  # the connection is recovered then
                    await greenlet_spawn(adapter.rollback)
            adapter.limit = limit  # for the error's text
            raise
        if isinstance(answer, _NotMade):
            await greenlet_spawn(adapter.rollback)
        else:
            lease.is_committing = True
            await greenlet_spawn(adapter.commit)
        return answer

    async def _done(self, lease: Lease, work: "_Work") -> Any:
        """Run a statement and what its results take, in the transaction that is open."""
        if work.then is None:
            return await work.on(lease.driver)
        answer = await self._timed(work.sql, work.on(lease.driver))
        failures: dict[BaseException, Exception] = {}
        try:
            results = await work.then(partial(self._follow, lease, failures), answer)
        except Exception as error:  # noqa: BLE001 - raised once the transaction is over
            if error in failures:
                raise failures[error] from None
            return _NotMade(error)
        if failures and work.writes:  # a listener has passed over it, but nothing can be committed
            raise next(iter(failures.values()))
        return results

    async def _follow(
        self,
        lease: Lease,
        failures: dict[BaseException, Exception],
        plan: Plan,
        sql: str,
        arguments: Sequence[Any],
    ) -> Any:
        if self.watch is not None:
            self.watch.count(sql)
        self._logger.info(sql)
        lease.adapter.note(sql)
        try:
            return await self._timed(sql, fetch(lease.driver, plan, sql, arguments))
        except Exception as error:  # noqa: BLE001 - raised in other words
            error.statement_sent = sql, arguments  # type: ignore[attr-defined]  # for its text
            told = self._translated(lease.adapter, error, sql, arguments)
            failures[told] = error
            raise told from told.__cause__

    async def _timed(self, sql: str, answering: Coroutine[Any, Any, Any]) -> Any:
        began, answer = monotonic(), None
        try:
            answer = await answering
        finally:
            seconds = monotonic() - began
            if self.watch is not None and seconds > self.watch.slow_after:
                self.watch.slow(sql, seconds, rows_of(answer))
        return answer

    async def _use_anew(self, lease: Lease, work: "_Work") -> Any:
        # asyncpg knows a table or a type as it was before.
        waited = lease.record.slot.waited
        try:
            await lease.driver.reload_schema_state()
            answer = await self._run_alone(lease, work)
        except BaseException as error:  # noqa: BLE001 - as above
            told = self._told_of(lease, error, work, waited)
            await self._take_back(lease, error)
            raise told from told.__cause__
        await lease.release()
        return _made(answer)

    @staticmethod
    async def _take_back(lease: Lease, error: BaseException) -> None:
        driver = lease.driver
        is_open = driver.is_in_transaction() or lease.adapter.has_begun
        await lease.take_back(error, amid_transaction=is_open and not driver.is_closed())

    async def use_within(
        self,
        lease: Lease,
        use: Use,
        plan: Plan,
        sql: str,
        arguments: Any,
        *,
        settings: Settings,
        then: Then | None = None,
    ) -> Any:
        """Read on a connection that the caller holds, as a part of the transaction open there.

        Args:
            lease: The connection.
            use: As for :meth:`use`, like what follows.
            plan: As above.
            sql: As above.
            arguments: As above.
            settings: As above.
            then: As above; what it sees is up to the transaction.

        Raises:
            sqlalchemy.exc.DBAPIError: As a session would raise it; the transaction is as before.
        """
        if self.watch is not None:
            self.watch.count(sql)
        self._logger.info(sql)
        work = _Work(use, plan, sql, arguments, writes=False, then=then)
        try:
            try:
                answer = await self._read_apart(lease, work, settings)
            except Exception as error:
                if not is_outdated(lease.driver, error, writes=False, rolls_back_after=True):
                    raise
                await lease.driver.reload_schema_state()
                answer = await self._read_apart(lease, work, settings)
        except BaseException as error:  # noqa: BLE001 - raised in other words
            told = self._translated(lease.adapter, error, sql, arguments)
            raise told from told.__cause__
        return _made(answer)

    async def _read_apart(self, lease: Lease, work: _Work, settings: Settings) -> Any:
        info = lease.record.info
        info[IDLE_IN_TRANSACTION_KEY] = inf
        try:
            reading = lease.adapter.read_apart(
                work.sql, settings, lambda _: self._done(lease, work)
            )
            return await (reading if work.then else self._timed(work.sql, reading))
        finally:
            info[IDLE_IN_TRANSACTION_KEY] = monotonic()

    @asynccontextmanager
    async def transaction(self, sql: str, options: BeginOptions) -> AsyncIterator[Run]:
        """Acquire a connection for a read-only transaction, and give what runs statements in it.

        Args:
            sql: What the transaction is for, for the log and the report of a leak.
            options: How it begins.

        Raises:
            sqlalchemy.exc.DBAPIError: As a session would raise it.
        """
        lease = await self._within_limits(self._begin(sql, options))
        opened = OpenLease(partial(_abandon, lease))
        is_ending = False

        def run(
            use: Use,
            plan: Any,
            text: str,
            arguments: Any,
            *,
            apart: Settings | None = None,
            then: Then | None = None,
        ) -> Coroutine[Any, Any, Any]:
            opened.use()
            if apart is not None:
                return self._run_apart(lease, use, plan, text, arguments, settings=apart, then=then)
            running = self._run(lease, use, plan, text, arguments)
            return running if then is None else _then(then, partial(run, fetch), running)

        try:
            yield run
            if not opened.leave():
                return
            is_ending = lease.is_over = True  # from here on nobody else may begin anything
            await greenlet_spawn(lease.adapter.rollback)
        except BaseException as error:
            if not is_ending and not opened.leave():
                raise  # its request has ended it
            await lease.take_back(error, amid_transaction=True)
            told = self._translated(lease.adapter, error, sql, ())
            raise told from told.__cause__
        await lease.release()

    async def _run(
        self,
        lease: Lease,
        use: Use,
        plan: Any,
        text: str,
        arguments: Any,
    ) -> Any:
        if lease.is_over:
            raise LaneEnded(_ENDED.format(text))
        watch, info = self.watch, lease.record.info
        if watch is not None and use is fetch:  # for a stream takes many turns
            watch.count(text)
        info[IDLE_IN_TRANSACTION_KEY] = inf
        lease.adapter.note(text)
        try:
            answering = self._within_limits(use(lease.driver, plan, text, arguments))
            return await self._timed(text, answering)
        except BaseException as error:  # noqa: BLE001 - raised in other words
            told = self._translated(lease.adapter, error, text, arguments)
            raise told from told.__cause__
        finally:
            info[IDLE_IN_TRANSACTION_KEY] = monotonic()

    async def _run_apart(
        self,
        lease: Lease,
        use: Use,
        plan: Any,
        text: str,
        arguments: Any,
        *,
        settings: Settings,
        then: Then | None,
    ) -> Any:
        if lease.is_over:
            raise LaneEnded(_ENDED.format(text))
        return await self.use_within(
            lease, use, plan, text, arguments, settings=settings, then=then
        )

    def _within_limits(self, work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        return work if limits_in_force() is None else within_limits(work)

    async def _begin(self, sql: str, options: BeginOptions) -> Lease:
        try:
            return await self._begin_once(sql, options)
        except ConnectionLost as error:
            lost = error
        # Nothing of the transaction had reached the server.
        return await repeated(lost, partial(self._begin_once, sql, options))

    async def _begin_once(
        self, sql: str, options: BeginOptions, *, asked_at: float | None = None
    ) -> Lease:
        lease = await Lease.of(self._sync.pool, asked_at=asked_at)  # type: ignore[arg-type]  # as above
        waited = lease.record.slot.waited
        try:
            lease.record.info[STATEMENT_KEY] = sql
            self._logger.info(sql)
            lease.adapter.begin = options
            await lease.adapter.open_transaction()
            lease.record.info[IDLE_IN_TRANSACTION_KEY] = monotonic()
        except BaseException as error:
            await lease.take_back(error, amid_transaction=True)
            told = self._translated(lease.adapter, error, sql, ())
            if is_lost(lease.driver, error):
                raise ConnectionLost(told, waited, self._sync.pool) from error  # type: ignore[arg-type]  # as above
            raise told from told.__cause__
        return lease

    def _make_ready(self, record: Record, sql: str, writes: bool) -> None:
        adapter: Any = record.dbapi_connection
        is_as_wanted = record.reads_only is not writes and (
            writes or is_read_only(adapter._connection)  # noqa: SLF001 - asyncpg's
        )
        if not is_as_wanted and (writes or self.is_confinable()):
            record.set_read_only(to_reading=not writes)
        self._logger.info(sql)

    def _told_of(
        self, lease: Lease, error: BaseException, work: "_Work", waited: float
    ) -> BaseException:
        if not work.writes or work.then is None or lease.is_committing:
            return self._told(lease.adapter, error, work, waited)
        # Nothing is saved, whatever has become of the connection: there was no COMMIT.
        told = self._told(lease.adapter, error, replace(work, writes=False), waited)
        told = told.error if isinstance(told, ConnectionLost) else told
        if isinstance(told, TimeoutError):
            told.outcome_unknown = False  # type: ignore[attr-defined]  # for the lane
        return told

    def _told(
        self, adapter: Any, error: BaseException, work: "_Work", waited: float
    ) -> BaseException:
        if work.writes and isinstance(error, asyncio.CancelledError):
            error.was_sent = True  # type: ignore[attr-defined]  # for whoever has set a limit
        told = self._translated(adapter, error, work.sql, work.arguments)
        if isinstance(told, TransactionTimeout):
            return told  # which says that nothing is saved, and would come again
        if is_lost(adapter._connection, error):  # noqa: SLF001 - asyncpg's
            return ConnectionLost(told, waited, self._sync.pool)  # type: ignore[arg-type]  # as above
        return told

    def _translated(
        self, adapter: Any, error: BaseException, sql: str, arguments: Any
    ) -> BaseException:
        sql, arguments = getattr(error, "statement_sent", (sql, arguments))
        timeout = self._timeouts.error_for(
            error,
            adapter,
            sql,
            tuple(arguments),
            hide_parameters=self._sync.hide_parameters,
            connection_invalidated=adapter._connection.is_closed(),  # noqa: SLF001 - asyncpg's
        )
        if timeout is None:
            return translate_error(self._engine, adapter, error, sql, arguments)
        timeout.__cause__ = error
        return timeout


def _made(answer: Any) -> Any:
    if isinstance(answer, _NotMade):
        raise answer.error
    return answer


async def _then(then: Then, fetch: Fetch, answering: Coroutine[Any, Any, Any]) -> Any:
    return await then(fetch, await answering)


async def _abandon(lease: Lease) -> None:
    """Return the connection of a block that nobody will leave."""
    lease.is_over = True
    try:
        await greenlet_spawn(lease.adapter.rollback)
    except BaseException as error:
        await lease.take_back(error, amid_transaction=True)
        raise
    await lease.release()


async def _is_prepared(lease: Lease, work: _Work) -> bool:
    """Prepare a statement; return whether it can be run in one go, right behind its settings.

    What prepares a statement ends the transaction of what is in front of it.
    """
    if not isinstance(work.plan, Plan):
        return False  # as COPY, which asks for the columns first
    if prepared_of(lease.driver, work.sql) is not None:
        return True
    lease.adapter.send_settings(work.settings)  # a search_path, by which names are looked up
    await lease.driver._get_statement(work.sql, None)  # noqa: SLF001 - as messages.learn()
    return prepared_of(lease.driver, work.sql) is not None
