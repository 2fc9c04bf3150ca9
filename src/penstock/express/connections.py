"""The pool's connections, checked out for one statement each, or for a read-only transaction."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from logging import INFO
from time import monotonic
from typing import Any, NoReturn

from asyncpg.exceptions import OutdatedSchemaCacheError
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.context import Settings
from penstock.deadlines import current_limits
from penstock.drivers.asyncpg import is_read_only, lift_command_timeout, set_configuration
from penstock.drivers.driver import BeginOptions
from penstock.drivers.session_state import refuse_session_state
from penstock.engine import ReadOnlyConnections, TransactionTimeout, leave_standby
from penstock.express.errors import ErrorTranslator, is_lost
from penstock.express.execution import (
    SCHEMA_CHANGES,
    Execution,
    Lease,
    Observer,
    release_failed,
    results_of,
)
from penstock.express.lane import SNAPSHOT
from penstock.express.pace import LATEST
from penstock.express.read_transaction import ReadTransaction, read_transaction
from penstock.express.work import ConnectionLost, Then, Use, Work
from penstock.pool import ConnectFailed, PenstockPool
from penstock.pool.record import Record
from penstock.telemetry.statement_watch import request_statements

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


class Connections:
    """The pool's connections, as asyncpg has them.

    Args:
        engine: Whose pool it is; SQLAlchemy's asyncpg dialect below.
        read_only: Whether a connection may be kept read-only for its session.
        command_timeout: Seconds that a statement may take; the driver's own limit is the same.
        snapshot: The isolation level of a read of several statements; None for the configured one.

    Attributes:
        observer: Counts, times and traces what runs on them.
        execution: Runs statements on one that is checked out.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        read_only: ReadOnlyConnections,
        command_timeout: float,
        snapshot: str | None = SNAPSHOT,
    ) -> None:
        self.observer = Observer(engine)
        self._read_only = read_only
        self._command_timeout = CommandTimeout(command_timeout)
        self._running = self._command_timeout.running
        self._errors = ErrorTranslator(engine, command_timeout)
        self.execution = Execution(self.observer, self._errors, read_only, snapshot)
        self._engine = engine.sync_engine
        self._logger = engine.sync_engine.logger

    @property
    def _pool(self) -> PenstockPool:
        return self._engine.pool  # type: ignore[return-value]  # as Database has looked

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
        """Check out a connection for one statement, and for what its results take.

        Args:
            use: Sends the statement and returns the answer.
            plan: Passed on to ``use``.
            sql: The statement, for the log and an error's text.
            arguments: Its values.
            writes: Whether the server is to let it write.
            settings: Of the server, for this statement alone.
            asked_at: As for ``PenstockPool.checkout``.
            then: What makes the results by further statements, in the same transaction, which
                for a read is one snapshot; None where the answer is all.

        Returns:
            The answer, or the results that were made of it.

        Raises:
            ConnectionLost: The connection ended before the server had answered.
            sqlalchemy.exc.DBAPIError: As a session would raise it.
        """
        if plan.effects and self._read_only.shares_server:
            refuse_session_state(plan.effects, sql)
        pool: PenstockPool = self._engine.pool  # type: ignore[assignment]  # as Database has looked
        command_timeout, observer = self._command_timeout, self.observer
        watch = observer.watch
        if watch is not None and (counts := request_statements.get()) is not None:
            watch.count(sql, counts)
        use = observer.traced(use) if observer.spans else use
        if (
            settings
            or then is not None
            or current_limits.get()
            or command_timeout.leaves_it_to_the_driver
            or pool.has_checkout_listeners()
            or not (writes or self._read_only.are_possible)
        ):
            work = Work(use, plan, sql, arguments, writes, settings, asked_at, then)
            return await self._use_lease(pool, work)
        checkout = pool.checkout(records_checkout=False, asked_at=asked_at)
        record: Record = checkout if checkout.__class__ is Record else await checkout  # type: ignore[misc]  # the one or the other
        adapter: Any = record.dbapi_connection
        driver = adapter.driver_connection
        if plan.effects:
            adapter.effects |= plan.effects
        running = self._running
        limited, command_timeout.unlimited = lift_command_timeout(driver, command_timeout.unlimited)
        try:
            # Written out, for each read pays for a call: CommandTimeout watches in the driver's
            # place.
            if not running:
                command_timeout.watch()
            running.add(record)
            if (
                record.reads_only is writes
                or self._logger.isEnabledFor(INFO)
                or not (writes or is_read_only(driver))
            ):
                self._make_ready(record, sql, writes)
            answer = await use(driver, plan, sql, arguments)
        except BaseException as error:  # noqa: BLE001 - translated
            running.discard(record)
            set_configuration(driver, limited)
            observer.time_lease(record, sql)
            work = Work(use, plan, sql, arguments, writes, asked_at=asked_at)
            return await self._recovered(record, adapter, work, error)
        running.discard(record)
        set_configuration(driver, limited)
        seconds = monotonic() - record.slot.checked_out_at
        if not writes:
            # Written out as well: Pace.note().
            pace = plan.pace
            pace.alone += (seconds - pace.alone) * LATEST
        if watch is not None and seconds > watch.slow_after:
            observer.report_slow(sql, seconds, answer)
        pool.release(record)
        return answer

    async def _recovered(
        self, record: Record, adapter: Any, work: Work, cause: BaseException
    ) -> Any:
        """Return the answer to a second try, or raise what a session would."""
        driver = adapter.driver_connection
        waited = record.slot.waited
        adapter.limit = None  # of a lease before
        error = self._command_timeout.translate_timeout(record, cause)
        if work.may_be_sent_again(driver, error):
            return await self._use_anew(Lease(record), work)
        if isinstance(error, OutdatedSchemaCacheError):
            await driver.reload_schema_state()  # for the next lease
        was_taken = record.dbapi_connection is None
        release_failed(record, driver, error)
        translated = self._translated(adapter, error, work, waited)
        if was_taken and isinstance(translated, ConnectionLost):
            translated = translated.error  # the pool took it, and has no other for this caller
        raise translated from translated.__cause__

    async def _use_lease(self, pool: PenstockPool, work: Work) -> Any:
        lease = await Lease.of(pool, records_checkout=False, asked_at=work.asked_at)
        waited = lease.record.slot.waited
        try:
            self._make_ready(lease.record, work.sql, work.writes)
            answer = await self.execution.run_alone(lease, work)
        except BaseException as error:  # noqa: BLE001 - translated
            self._time(lease.record, work)
            if work.may_be_sent_again(lease.driver, error):
                return await self._use_anew(lease, work)
            return await self._failed(lease, error, work, waited)
        self._time(lease.record, work, answer)
        await lease.release()
        return results_of(answer)

    def _time(self, record: Record, work: Work, answer: Any = None) -> None:
        if work.then is None:  # else each of its statements was timed
            seconds = monotonic() - record.slot.checked_out_at
            if not work.writes and answer is not None:
                work.plan.pace.note(seconds)
            self.observer.report_slow(work.sql, seconds, answer)

    async def use_together(self, work: Work) -> None:
        """Check out a connection for several reads that are sent as one.

        Args:
            work: Sends them.

        Raises:
            Exception: The driver's or the pool's error, as it is: each read meets its own, alone.
        """
        lease = await Lease.of(self._pool, records_checkout=False)
        try:
            self._make_ready(lease.record, work.sql, writes=False)
            await self.execution.run_alone(lease, work)
        except BaseException as error:
            is_open = lease.driver.is_in_transaction() or lease.adapter.has_begun
            await lease.release_failed(
                error, in_transaction=is_open and not lease.driver.is_closed()
            )
            raise
        await lease.release()

    async def _use_anew(self, lease: Lease, work: Work) -> Any:
        # asyncpg knows a table or a type as it was before.
        waited, left = lease.record.slot.waited, SCHEMA_CHANGES
        while True:
            left -= 1
            try:
                await lease.driver.reload_schema_state()
                answer = await self.execution.run_alone(lease, work)
            except BaseException as error:  # noqa: BLE001 - translated
                if left and work.may_be_sent_again(lease.driver, error):
                    continue
                return await self._failed(lease, error, work, waited)
            await lease.release()
            return results_of(answer)

    async def _failed(
        self, lease: Lease, error: BaseException, work: Work, waited: float
    ) -> NoReturn:
        driver = lease.driver
        translated = self._translated_of(lease, error, work, waited)
        is_open = driver.is_in_transaction() or lease.adapter.has_begun
        await lease.release_failed(error, in_transaction=is_open and not driver.is_closed())
        raise translated from translated.__cause__

    def transaction(
        self, sql: str, options: BeginOptions
    ) -> AbstractAsyncContextManager[ReadTransaction]:
        """Check out a connection for a read-only transaction, and give what runs statements in it.

        Args:
            sql: What the transaction is for, for the log and the report of a leak.
            options: How it begins.

        Raises:
            sqlalchemy.exc.DBAPIError: As a session would raise it.
        """
        return read_transaction(self._pool, self.execution, sql, options)

    def _make_ready(self, record: Record, sql: str, writes: bool) -> None:
        adapter: Any = record.dbapi_connection
        is_as_wanted = record.reads_only is not writes and (
            writes or is_read_only(adapter.driver_connection)
        )
        if not is_as_wanted and (writes or self._read_only.are_possible):
            record.set_read_only(to_reading=not writes)
        self._logger.info(sql)

    def _translated_of(
        self, lease: Lease, error: BaseException, work: Work, waited: float
    ) -> BaseException:
        if not work.writes or work.then is None or lease.is_committing:
            return self._translated(lease.adapter, error, work, waited)
        # Nothing is saved, whatever has become of the connection: there was no COMMIT.
        translated = self._translated(lease.adapter, error, replace(work, writes=False), waited)
        if isinstance(translated, ConnectionLost):
            translated = translated.error
        if isinstance(translated, TimeoutError):
            translated.outcome_unknown = False  # type: ignore[attr-defined]  # for the lane
        return translated

    def _translated(
        self, adapter: Any, error: BaseException, work: Work, waited: float
    ) -> BaseException:
        if work.writes and isinstance(error, asyncio.CancelledError):
            error.was_sent = True  # type: ignore[attr-defined]  # for what has set a limit
        if work.writes:
            leave_standby(self._engine, adapter, error)
        translated = self._errors.translate(adapter, error, work.sql, work.arguments)
        if isinstance(translated, TransactionTimeout):
            return translated  # which says that nothing is saved, and would come again
        if work.writes and isinstance(translated, ConnectFailed):
            return translated  # which says that nothing was sent
        if is_lost(adapter.driver_connection, error):
            return ConnectionLost(translated, waited, self._pool)
        return translated
