"""Running statements on a connection that is checked out, in its transactions."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from sqlalchemy.util import greenlet_spawn

from penstock.deadlines import current_limits
from penstock.drivers.asyncpg import prepare, prepared_of
from penstock.drivers.driver import BeginOptions
from penstock.engine import ReadOnlyConnections
from penstock.express.compiled import Plan
from penstock.express.lease import Lease
from penstock.express.observer import Observer
from penstock.express.protocol import fetch
from penstock.express.translation import ErrorTranslator, is_lost, is_outdated, was_interrupted
from penstock.express.work import ResultsFailed, Work
from penstock.telemetry.statement_watch import IDLE_IN_TRANSACTION_KEY


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
