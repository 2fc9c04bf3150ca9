"""Statements straight on asyncpg's connections, which the pool hands out without a greenlet."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from functools import partial
from typing import Any

from asyncpg.exceptions import OutdatedSchemaCacheError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.util import immutabledict
from typing_extensions import override

from penstock.context import Settings
from penstock.drivers import sqlalchemy_internals as internals
from penstock.drivers.driver import BeginOptions
from penstock.engine import ReadOnlyConnections
from penstock.express.batch import Batching
from penstock.express.compiled import Plan
from penstock.express.connections import Connections
from penstock.express.errors import (
    UNKNOWN,
    CommitOutcomeUnknown,
    ExpressError,
    not_converted,
    not_read,
)
from penstock.express.execution import Lease
from penstock.express.lane import (
    SNAPSHOT,
    Batches,
    Copy,
    Extract,
    Lane,
    OpenLane,
    ReadingLane,
    yielding,
)
from penstock.express.orm import UnboundSession
from penstock.express.query import AdHocQueries, Call, Query, as_query
from penstock.express.read_transaction import ReadTransaction
from penstock.express.rows import EXTRACTS_OF_ONE, Shape
from penstock.express.work import (
    ConnectionLost,
    Fetch,
    Then,
    Work,
    answered,
    count,
    execute,
    execute_many,
    fetch,
    fetch_many,
    fetch_more,
    learn,
    loads_related,
    open_cursor,
    read_alone,
    send_copy,
)
from penstock.pool import LeaseReclaimed


class ExecuteListeners:
    """Those that listen to a class of sessions: ``event.listen(Session, "do_orm_execute", ...)``.

    They are called for each statement before it runs, as a session calls them.

    Args:
        session_class: The class; listeners to those above it are among them.

    Attributes:
        dispatch: SQLAlchemy's, of all that listen to the class.
    """

    def __init__(self, session_class: type[Session]) -> None:
        self.dispatch: Any = session_class.__new__(session_class).dispatch
        self._session = UnboundSession(self.dispatch)
        self._listeners: Any = self.dispatch.do_orm_execute
        self._adhoc = AdHocQueries()

    def after_listeners(self, call: Call) -> Call:
        """Return a call as the listeners would have it.

        Args:
            call: Returned as it is where no listener changes it.

        Raises:
            ExpressError: A listener has done what takes a session.
        """
        if not self._listeners or call.has_run_listeners:
            return call
        given = call.values if call.rows is None else call.rows
        statement, values = self._ask(call.statement, given)
        after_listeners = copy(call)  # for a stream may be opened again
        if statement is not call.statement or values is not given:
            after_listeners = self._adhoc.call(statement, {} if call.rows is not None else values)
            after_listeners.settings, after_listeners.rows = (
                call.settings,
                None if call.rows is None else values,
            )
        after_listeners.has_run_listeners = True
        return after_listeners

    def many_after_listeners(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]]
    ) -> tuple[Query[Any], Sequence[Mapping[str, Any]]]:
        """Return a query and its rows as the listeners would have them.

        Args:
            query: For each of the rows.
            rows: Values by name.

        Raises:
            ExpressError: A listener returns a result, or needs a session.
        """
        if not self._listeners:
            return query, rows
        statement, rows = self._ask(query.statement, rows)
        return query if statement is query.statement else as_query(statement), rows

    def _ask(self, given: Any, values: Any) -> tuple[Any, Any]:
        state = self._state(given, values)
        begun = state.statement
        for number, listener in enumerate(self._listeners):
            internals.set_listener_number(state, number)
            if listener(state):
                raise ExpressError(
                    "A do_orm_execute listener returns a result itself, which the express "
                    "lane cannot give: run the statement in a session."
                )
        options = internals.updated_options(state)
        statement: Any = given if state.statement is begun else state.statement
        if options:
            statement = statement.execution_options(**options)
        return statement, state.parameters

    def _state(self, statement: Any, values: Any) -> ORMExecuteState:
        arguments: dict[str, Any] = {"clause": statement}
        options: Any = immutabledict()
        kind: Any = None
        if internals.runs_by_orm(statement):
            kind = internals.orm_state_class(statement)
            statement, options, _ = kind.orm_pre_session_exec(
                self._session, statement, None, options, arguments, True
            )
        return ORMExecuteState(
            self._session, statement, values, options, arguments, kind, self._listeners
        )


class DriverLane(Lane):
    """The express lane itself.

    Args:
        engine: On asyncpg, with a :class:`PenstockPool`.
        read_only: Whether a connection may be kept read-only for its session.
        command_timeout: Seconds that a statement may take.
        session_class: Whose listeners to ``do_orm_execute`` are called.
        isolates: Whether the configured isolation level has a transaction see one moment.
        batches: Whether reads of one statement may leave together.

    Attributes:
        observer: Counts, times and traces its statements.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        read_only: ReadOnlyConnections,
        command_timeout: float,
        *,
        session_class: type[Session] = Session,
        isolates: bool = False,
        batches: bool = True,
    ) -> None:
        self._snapshot = None if isolates else SNAPSHOT
        self._connections = Connections(engine, read_only, command_timeout, self._snapshot)
        self.observer = self._connections.observer
        self._dialect = engine.dialect
        self._listeners = ExecuteListeners(session_class)
        self._batching = Batching(self._connections.use_together, self.observer)
        self._batches = batches

    async def read(self, call: Call, extract: Extract) -> Any:
        """Run a statement that reads; again where the connection ended without an answer."""
        call, plan, sql, arguments, then = _prepared(call, self._listeners, self._dialect)
        use, settings = self._connections.use, call.settings
        send = partial(use, fetch, plan, sql, arguments, False, settings=settings, then=then)
        group = None
        may_batch = plan.is_fixed and plan.leaves_nothing
        if then is None and may_batch and self._batches and call.query.batch:
            group = self._batching.group(plan, sql, settings)
        answer = await (read_alone(send) if group is None else group.read(arguments, send))
        return extract(_results(call, plan, answer, then))

    @override
    async def read_within(self, connection: AsyncConnection, call: Call, extract: Extract) -> Any:
        call, plan, sql, arguments, then = _prepared(call, self._listeners, self._dialect)
        below: Any = connection.sync_connection
        record = internals.record_of(below.connection)
        if record is None or record.dbapi_connection is None:
            raise LeaseReclaimed(
                "The connection of the request's session was taken away meanwhile."
            )
        work = Work(fetch, plan, sql, arguments, writes=False, settings=call.settings, then=then)
        answer = await self._connections.execution.read_within(Lease(record), work)
        return extract(_results(call, plan, answer, then))

    async def write(self, call: Call, extract: Extract) -> Any:
        """Run a statement that writes; what may fail after the write is done before its COMMIT.

        Several rows are written in as many messages, but few round trips.
        """
        call, use = self._listeners.after_listeners(call), fetch
        if call.rows is None:
            plan, sql, arguments = _bound(call, self._dialect)
        elif call.rows:
            plan, sql, arguments = await _bound_rows(call, call.rows, self._dialect)
            use = fetch_many
        else:
            return extract([])
        then = loads_related(plan, call, self._listeners.dispatch)

        async def finish(further: Fetch, answer: Any) -> Any:
            found = answer if then is None else await then(further, answer)
            return extract(_results(call, plan, found, then))

        if then is not None or _may_fail(call, plan, extract):
            return await self._write(use, plan, sql, arguments, settings=call.settings, then=finish)
        answer = await self._write(use, plan, sql, arguments, settings=call.settings)
        return extract(_results(call, plan, answer, None))

    @override
    async def execute(self, call: Call) -> int:
        call = self._listeners.after_listeners(call)
        plan, sql, arguments = _bound(call, self._dialect)
        return count(await self._write(execute, plan, sql, arguments, settings=call.settings))

    async def execute_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]], settings: Settings = ()
    ) -> None:
        """Run a statement once for each row, in as many messages, but few round trips."""
        query, rows = self._listeners.many_after_listeners(query, rows)
        if rows:
            plan, sql, arguments = await _bound_rows(
                Call(query, query.statement, {}), rows, self._dialect
            )
            await self._write(execute_many, plan, sql, arguments, settings=settings)

    async def copy(self, copy: Copy, settings: Settings = ()) -> int:
        """Write rows by COPY."""
        into = partial(send_copy, self._dialect)
        return count(
            await self._write(into, copy, f"COPY {copy.table} FROM STDIN", (), settings=settings)
        )

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        """Give the results by a cursor of the server's, in a separate transaction."""
        call = self._listeners.after_listeners(call)
        async with self.reading(call) as lane, lane.stream(call, batch) as batches:
            yield batches

    @override
    @asynccontextmanager
    async def reading(self, call: Call) -> AsyncIterator[OpenLane]:
        call = self._listeners.after_listeners(call)
        plan, sql, _ = _bound(call, self._dialect)
        isolation = self._snapshot if plan.takes_statements else None
        options = BeginOptions(True, isolation, settings=call.settings)
        async with self._connections.transaction(sql, options) as transaction:
            yield _OpenLane(transaction, self._dialect, self._listeners)

    @asynccontextmanager
    async def snapshot(self, settings: Settings = ()) -> AsyncIterator[OpenLane]:
        """Read at one moment, in a transaction at REPEATABLE READ or the configured level."""
        options = BeginOptions(True, self._snapshot, settings=settings)
        async with self._connections.transaction("(a snapshot)", options) as transaction:
            yield _OpenLane(transaction, self._dialect, self._listeners)

    async def _write(
        self,
        use: Any,
        plan: Any,
        sql: str,
        arguments: Any,
        *,
        settings: Settings,
        then: Then | None = None,
    ) -> Any:
        try:
            return await self._connections.use(
                use, plan, sql, arguments, True, settings=settings, then=then
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
        transaction: That one.
        dialect: Whose SQL it takes.
        listeners: Asked of each statement.
    """

    def __init__(
        self, transaction: ReadTransaction, dialect: Any, listeners: ExecuteListeners
    ) -> None:
        self._run = transaction.run
        self._dialect = dialect
        self._listeners = listeners
        self._lock = asyncio.Lock()
        """A connection answers one statement at a time."""

    async def read(self, call: Call, extract: Extract) -> Any:
        return await self._read(call, extract, None)

    async def read_apart(self, call: Call, extract: Extract) -> Any:
        return await self._read(call, extract, call.settings)

    async def _read(self, call: Call, extract: Extract, apart: Settings | None) -> Any:
        call, plan, sql, arguments, then = _prepared(call, self._listeners, self._dialect)
        async with self._lock:
            answer = await self._run(fetch, plan, sql, arguments, apart=apart, then=then)
        return extract(_results(call, plan, answer, then))

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        call, plan, sql, arguments, then = _prepared(call, self._listeners, self._dialect)
        async with self._lock:
            shape: Shape = await self._run(learn, plan, sql, ())
            if shape.is_collected:
                raise ExpressError(
                    "A joinedload() of a collection and a subqueryload() take all rows at once, so "
                    "that they cannot be streamed: use selectinload(), or all()."
                )
            cursor = await self._run(open_cursor, plan, sql, arguments)
        then = then or _shaped(shape, call)
        yield self._batches(lambda results: _of(call, results), then, cursor, sql, batch)

    async def _batches(
        self, own: Callable[[Any], list[Any]], then: Then, cursor: Any, sql: str, batch: int
    ) -> AsyncGenerator[list[Any], None]:
        while True:
            async with self._lock:
                results = await self._run(fetch_more, cursor, sql, (batch,), then=then)
            if not results:
                return
            yield own(results)

    @asynccontextmanager
    async def snapshot(self, settings: Settings = ()) -> AsyncIterator[ReadingLane]:  # noqa: ARG002 - they are in force
        yield self


def _may_fail(call: Call, plan: Plan, extract: Extract) -> bool:
    """Return whether what a write returns may turn out not to be a result."""
    if plan.may_fail:
        return True
    is_of_one_row = call.rows is None and call.query.is_of_one_row
    return extract in EXTRACTS_OF_ONE and not is_of_one_row


def _shaped(shape: Shape, call: Call) -> Then:
    async def shaped(_: Fetch, records: Any) -> list[Any]:
        return shape.results(records, call.statement)

    return shaped


def _results(call: Call, plan: Plan, answer: Any, then: Then | None) -> list[Any]:
    """Return the results of an answer, of which further statements may have made them."""
    if then is None:
        shape, records = answered(plan, answer)
        answer = shape.results(records, call.statement)
    return _of(call, answer)


def _of(call: Call, results: list[Any]) -> list[Any]:
    if call.extracted is None:
        return results
    return call.query.column_rebinder.rebind(call.statement, results)


def _prepared(
    call: Call, listeners: ExecuteListeners, dialect: Any
) -> tuple[Call, Plan, str, Sequence[Any], Then | None]:
    """Return what it takes to run a call that reads: what loads its results comes last.

    Raises:
        QueryRefused: It is nothing that reads.
    """
    call = listeners.after_listeners(call)
    plan, sql, arguments = _bound(call, dialect)
    if not plan.reads:
        raise not_read(sql)
    then = loads_related(plan, call, listeners.dispatch) if plan.takes_statements else None
    return call, plan, sql, arguments, then


async def _bound_rows(
    call: Call, rows: Sequence[Mapping[str, Any]], dialect: Any
) -> tuple[Plan, str, Sequence[Any]]:
    texts: dict[str, None] = {}
    arguments = []
    async for values in yielding(rows):
        plan, sql, row = _bound(Call(call.query, call.statement, values, call.extracted), dialect)
        texts[sql] = None
        arguments.append(row)
    if len(texts) > 1:
        raise ExpressError(
            "The rows make different statements (other columns, or lists of other lengths): "
            "give every row the same names, or call execute() for each."
        )
    return plan, sql, arguments


def _bound(call: Call, dialect: Any) -> tuple[Plan, str, Sequence[Any]]:
    query, values = call.query, call.values
    if query.is_open or len(values) != query.count:
        values = query.spread(values)
    plan = query.plans.get(dialect) or query.plan(dialect, values)
    try:
        sql, arguments = (
            plan.bind(values) if call.extracted is None else plan.bind_adhoc(values, call.extracted)
        )
    except SQLAlchemyError:
        query.check(values)
        raise
    except Exception as error:
        query.check(values)
        raise not_converted(error, plan.compiled.string, values) from error
    return plan, sql, arguments
