"""Statements straight on asyncpg's connections, which the pool lends without a greenlet."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from asyncpg.exceptions import OutdatedSchemaCacheError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.context import Settings
from penstock.drivers.driver import BeginOptions
from penstock.express import messages
from penstock.express.connections import ConnectionLost, Connections, Run, repeated
from penstock.express.counting import count
from penstock.express.errors import UNKNOWN, CommitOutcomeUnknown, ExpressError
from penstock.express.failures import not_converted, not_read
from penstock.express.lanes import Batches, Call, Copy, OpenLane, Pick, ReadingLane
from penstock.express.loan import Loan
from penstock.express.plan import Plan
from penstock.express.query import Query
from penstock.express.results import PICKS_OF_ONE, Finished
from penstock.express.shape import Shape
from penstock.express.turns import in_turns
from penstock.pool import LoanReclaimed
from penstock.telemetry.statement_watch import StatementWatch

__all__ = ["DriverLane"]


class DriverLane:
    """The express lane itself.

    Args:
        engine: On asyncpg, with a :class:`PenstockPool`.
        is_confinable: As for :class:`Connections`, as is the last.
        command_timeout: As above.

    Attributes:
        connections: What it borrows from; whoever traces statements puts its own around it.
    """

    def __init__(
        self, engine: AsyncEngine, is_confinable: Callable[[], bool], command_timeout: float
    ) -> None:
        self.connections = Connections(engine, is_confinable, command_timeout)
        self._dialect = engine.dialect

    @property
    def watch(self) -> StatementWatch | None:
        """Who is told of slow statements and counts those of a request; None for nobody."""
        return self.connections.watch

    @watch.setter
    def watch(self, watch: StatementWatch | None) -> None:
        self.connections.watch = watch

    async def read(self, call: Call, pick: Pick) -> Any:
        """As the protocol says; repeated where the connection ended without an answer."""
        plan, sql, arguments = _bound(call, self._dialect)
        use, fetch, settings = self.connections.use, messages.fetch, call.settings
        if not plan.reads:
            raise not_read(sql)
        try:
            answer = await use(fetch, plan, sql, arguments, False, settings=settings)
        except ConnectionLost as lost:
            again = partial(use, fetch, plan, sql, arguments, False, settings=settings)
            answer = await repeated(lost, again)
        return pick(_of(call, messages.results(plan, answer, call.statement)))

    async def read_within(self, connection: AsyncConnection, call: Call, pick: Pick) -> Any:
        """As the protocol says."""
        plan, sql, arguments = _bound(call, self._dialect)
        if not plan.reads:
            raise not_read(sql)
        below: Any = connection.sync_connection
        record = below.connection._connection_record  # noqa: SLF001 - SQLAlchemy's, of our pool
        if record is None or record.dbapi_connection is None:
            raise LoanReclaimed("The connection of the request's session was taken away meanwhile.")
        answer = await self.connections.use_within(
            Loan(record), messages.fetch, plan, sql, arguments, settings=call.settings
        )
        return pick(_of(call, messages.results(plan, answer, call.statement)))

    async def write(self, call: Call, pick: Pick) -> Any:
        """As the protocol says; what may fail after the write is done before its COMMIT."""
        plan, sql, arguments = _bound(call, self._dialect)

        def finish(answer: Any) -> Any:
            return pick(_of(call, messages.results(plan, answer, call.statement)))

        if not _may_fail(call.query, plan, pick):
            answer = await self._write(messages.fetch, plan, sql, arguments, call.settings)
            return finish(answer)
        finished: Finished = await self._write(
            messages.fetch, plan, sql, arguments, call.settings, finish=finish
        )
        if finished.error is not None:
            raise finished.error
        return finished.result

    async def execute(self, call: Call) -> int:
        """As the protocol says."""
        plan, sql, arguments = _bound(call, self._dialect)
        return count(await self._write(messages.execute, plan, sql, arguments, call.settings))

    async def execute_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]], settings: Settings = ()
    ) -> None:
        """As the protocol says, in as many messages as there are rows, but few round trips."""
        texts: dict[str, None] = {}
        arguments = []
        async for values in in_turns(rows):
            plan, sql, row = _bound(Call(query, values), self._dialect)
            texts[sql] = None
            arguments.append(row)
        if len(texts) > 1:
            raise ExpressError(
                "The rows make different statements (other columns, or lists of other lengths): "
                "give every row the same names, or call execute() for each."
            )
        if texts:
            sql = next(iter(texts))
            await self._write(messages.execute_many, plan, sql, arguments, settings)

    async def copy(self, copy: Copy, settings: Settings = ()) -> int:
        """As the protocol says, by COPY."""
        into = partial(messages.copy, self._dialect)
        return count(await self._write(into, copy, f"COPY {copy.table} FROM STDIN", (), settings))

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        """As the protocol says, by a cursor of the server's in a transaction of its own."""
        async with self.reading(call) as lane, lane.stream(call, batch) as batches:
            yield batches

    @asynccontextmanager
    async def reading(self, call: Call) -> AsyncIterator[OpenLane]:
        """As the protocol says."""
        _, sql, _ = _bound(call, self._dialect)
        options = BeginOptions(True, settings=call.settings)
        async with self.connections.transaction(sql, options) as run:
            yield _OpenLane(run, self._dialect)

    @asynccontextmanager
    async def snapshot(self, settings: Settings = ()) -> AsyncIterator[OpenLane]:
        """As the protocol says, in a transaction at REPEATABLE READ."""
        options = BeginOptions(True, "REPEATABLE READ", settings=settings)
        async with self.connections.transaction("(a snapshot)", options) as run:
            yield _OpenLane(run, self._dialect)

    async def _write(
        self,
        use: Any,
        plan: Any,
        sql: str,
        arguments: Any,
        settings: Settings = (),
        *,
        finish: Callable[[Any], Any] | None = None,
    ) -> Any:
        try:
            return await self.connections.use(
                use, plan, sql, arguments, True, settings=settings, finish=finish
            )
        except ConnectionLost as lost:
            why = "before its connection ended"
            raise CommitOutcomeUnknown(UNKNOWN.format(why)) from lost.error
        except TimeoutError as error:
            if not getattr(error, "outcome_unknown", True):
                raise
            limit = getattr(error, "limit", "the time of the network")
            raise CommitOutcomeUnknown(UNKNOWN.format(f"within {limit}")) from error
        except OutdatedSchemaCacheError as error:
            raise CommitOutcomeUnknown(UNKNOWN.format("that can be read")) from error


class _OpenLane:
    """Statements on the one connection of a read-only transaction.

    Args:
        run: Does something on that connection.
        dialect: Whose SQL it takes.
    """

    def __init__(self, run: Run, dialect: Any) -> None:
        self._run = run
        self._dialect = dialect
        self._turn = asyncio.Lock()
        """A connection answers one statement at a time."""

    async def read(self, call: Call, pick: Pick) -> Any:
        plan, sql, arguments = _bound(call, self._dialect)
        if not plan.reads:
            raise not_read(sql)
        async with self._turn:
            answer = await self._run(messages.fetch, plan, sql, arguments)
        return pick(_of(call, messages.results(plan, answer, call.statement)))

    async def read_apart(self, call: Call, pick: Pick) -> Any:
        plan, sql, arguments = _bound(call, self._dialect)
        if not plan.reads:
            raise not_read(sql)
        async with self._turn:
            answer = await self._run(messages.fetch, plan, sql, arguments, apart=call.settings)
        return pick(_of(call, messages.results(plan, answer, call.statement)))

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        plan, sql, arguments = _bound(call, self._dialect)
        if not plan.reads:
            raise not_read(sql)
        async with self._turn:
            shape: Shape = await self._run(messages.learn, plan, sql, ())
            if shape.is_collected:
                raise ExpressError(
                    "A joinedload() of a collection takes several rows for one instance, so that "
                    "it cannot be streamed: select the two classes as tuples, or use all()."
                )
            cursor = await self._run(messages.open_cursor, plan, sql, arguments)
        yield self._batches(
            lambda records: _of(call, shape.results(records, call.statement)), cursor, sql, batch
        )

    async def _batches(
        self, results: Callable[[Any], list[Any]], cursor: Any, sql: str, batch: int
    ) -> AsyncGenerator[list[Any], None]:
        while True:
            async with self._turn:
                records = await self._run(messages.fetch_more, cursor, sql, (batch,))
            if not records:
                return
            yield results(records)

    @asynccontextmanager
    async def snapshot(self, settings: Settings = ()) -> AsyncIterator[ReadingLane]:  # noqa: ARG002 - they are in force
        yield self


def _may_fail(query: Query[Any], plan: Plan, pick: Pick) -> bool:
    """Return whether what a write returns may turn out not to be a result."""
    if plan.may_fail:
        return True
    return pick in PICKS_OF_ONE and not query.is_of_one_row


def _of(call: Call, results: list[Any]) -> list[Any]:
    if call.adhoc is None:
        return results
    return call.query.own_columns.found_by(call.adhoc[0], results)


def _bound(call: Call, dialect: Any) -> tuple[Plan, str, Sequence[Any]]:
    query, values = call.query, call.values
    if query.is_open or len(values) != query.count:
        values = query.spread(values)
    plan = query.plan(dialect, values)
    try:
        sql, arguments = (
            plan.bind(values) if call.adhoc is None else plan.bind_adhoc(values, call.adhoc[1])
        )
    except SQLAlchemyError:
        query.check(values)
        raise
    except Exception as error:
        query.check(values)
        raise not_converted(error, plan.compiled.string, values) from error
    return plan, sql, arguments
