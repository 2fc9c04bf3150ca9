"""The two ways to run a statement: on the driver's connection, or through SQLAlchemy."""

import asyncio
from collections import OrderedDict
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from copy import copy
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from sqlalchemy import Table
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.util import immutabledict

from penstock.context import Settings
from penstock.drivers import sqlalchemy_internals as internals
from penstock.express.compiled import schemas_of
from penstock.express.errors import ExpressError
from penstock.express.orm import UnboundSession
from penstock.express.query import Query, as_query, query, refuse_options

_T = TypeVar("_T")
SNAPSHOT = "REPEATABLE READ"
"""The lowest isolation level at which a transaction's statements see the database at one moment."""
YIELD_INTERVAL = 0.002
"""Seconds of work between two yields to the event loop, each of some microseconds: other tasks wait
no longer than for a statement."""


class EventLoopYield:
    """Yields to the event loop as often as is due.

    Args:
        clock: Says the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._yielded_at = clock()

    def is_due(self) -> bool:
        """Return whether the work has gone on for long enough; cheap enough for each step."""
        return self._clock() - self._yielded_at >= YIELD_INTERVAL

    async def now(self) -> None:
        """Let other tasks run."""
        await asyncio.sleep(0)
        self._yielded_at = self._clock()


async def yielding(items: Iterable[_T]) -> AsyncIterator[_T]:
    """Give items that are at hand, or made without a wait, and yield to the event loop."""
    loop_yield = EventLoopYield()
    for item in items:
        yield item
        if loop_yield.is_due():
            await loop_yield.now()


Batches = AsyncIterator[list[Any]]
"""Results, batch by batch."""
Extract = Callable[[list[Any]], Any]
"""Takes what is wanted from all results."""


class Call:
    """One use of a query.

    Args:
        query: What is to be run.
        values: Of its named parameters.
        adhoc: The statement for which the query stands, and its bound values; None where the query
            itself was asked for.

    Attributes:
        settings: Names and values of server settings that hold for this call alone; ``role`` is
            the role.
        rows: The values for each of several runs; None for one run, with ``values``.
        has_run_listeners: Whether the listeners to ``do_orm_execute`` were called.
    """

    __slots__ = ("adhoc", "has_run_listeners", "query", "rows", "settings", "values")

    def __init__(
        self,
        query: Query[Any],
        values: Mapping[str, Any],
        adhoc: tuple[Any, Sequence[BindParameter[Any]]] | None = None,
    ) -> None:
        self.query = query
        self.values = values
        self.adhoc = adhoc
        self.settings: Settings = ()
        self.rows: Sequence[Mapping[str, Any]] | None = None
        self.has_run_listeners = False

    @property
    def statement(self) -> Any:
        """What is to be run, as it was given."""
        return self.query.statement if self.adhoc is None else self.adhoc[0]


class Copy(Protocol):
    """Rows on their way into a table, in bulk."""

    table: Table
    columns: Sequence[str]
    """The keys of the columns that the rows have values for."""
    taken: int
    """The number of the record that is being sent; 0 while the next is being made."""

    def rows(self) -> AsyncIterator[dict[str, Any]]:
        """Return the values of each row by the keys of their columns."""
        ...

    def records(self, dialect: Dialect) -> AsyncIterator[tuple[Any, ...]]:
        """Return each row as the driver has its values, in the order of the columns."""
        ...


class ReadingLane(Protocol):
    """A way to run statements that only read."""

    async def read(self, call: Call, extract: Extract) -> Any:
        """Run a statement in a transaction by itself, and return what is wanted of its results.

        Args:
            call: The statement and its values.
            extract: Takes that from the results.
        """
        ...

    def stream(self, call: Call, batch: int) -> AbstractAsyncContextManager[Batches]:
        """Give the results as the server makes them.

        Args:
            call: The statement and its values.
            batch: How many rows are fetched at a time.
        """
        ...

    def snapshot(self, settings: Settings = ()) -> "AbstractAsyncContextManager[ReadingLane]":
        """Give a lane whose statements all see the database as it was at the first of them.

        Args:
            settings: Server settings of its transaction.
        """
        ...


class OpenLane(ReadingLane, Protocol):
    """A way to run statements that only read in one open transaction, on one connection."""

    async def read_apart(self, call: Call, extract: Extract) -> Any:
        """Read in that transaction, and leave nothing there, not even a failure.

        Args:
            call: The statement, its values, and settings that hold for it alone.
            extract: Takes what is wanted from the results.
        """
        ...


class Lane(ReadingLane, Protocol):
    """A way to run statements on one database."""

    def reading(self, call: Call) -> AbstractAsyncContextManager[OpenLane]:
        """Give a lane in a transaction that only reads.

        Args:
            call: What is run there first.
        """
        ...

    def snapshot(self, settings: Settings = ()) -> AbstractAsyncContextManager[OpenLane]:
        """Give a lane whose statements all see the database as it was at the first of them.

        Args:
            settings: Server settings of its transaction.
        """
        ...

    async def read_within(self, connection: AsyncConnection, call: Call, extract: Extract) -> Any:
        """Read on a connection that the caller holds, within the transaction that is open there.

        The statement sees what the transaction has written. It leaves nothing there, not even a
        failure.

        Args:
            connection: The caller's.
            call: The statement, its values, and settings that hold for it alone.
            extract: Takes what is wanted from the results.
        """
        ...

    async def write(self, call: Call, extract: Extract) -> Any:
        """Run a statement in a transaction by itself, and return what is wanted of its RETURNING.

        Args:
            call: The statement, its values or rows of values.
            extract: Takes that from the results.
        """
        ...

    async def execute(self, call: Call) -> int:
        """Run a statement in a transaction by itself, and return how many rows it wrote.

        Args:
            call: The statement and its values.
        """
        ...

    async def execute_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]], settings: Settings = ()
    ) -> None:
        """Run a statement once for each row, all of them as one transaction.

        Args:
            query: The statement.
            rows: The values for each.
            settings: Server settings of the transaction.
        """
        ...

    async def copy(self, copy: Copy, settings: Settings = ()) -> int:
        """Write rows in bulk, as one transaction, and return how many.

        Args:
            copy: The rows, and where they go.
            settings: Server settings of the transaction.
        """
        ...


SIZE = 500
"""Forms that are kept, as many as SQLAlchemy's own cache keeps."""


class AdHocQueries:
    """The forms of statements that were seen, the one that was not used for longest dropped first.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._queries: OrderedDict[Any, Query[Any]] = OrderedDict()

    def call(self, statement: Any, values: Mapping[str, Any]) -> Call:
        """Return a call of the query for a statement's form.

        Args:
            statement: What is to be run.
            values: Of its named parameters.

        Raises:
            QueryRefused: As :func:`query` says.
        """
        form = getattr(statement, "_generate_cache_key", lambda: None)()
        if form is None:
            return Call(query(statement), values)
        # Of which parameters a value has to be given is no part of the form, nor are other schemas.
        key = form.key, tuple([bind.required for bind in form.bindparams]), schemas_of(statement)
        known = self._queries.get(key)
        if known is not None:
            refuse_options(statement)  # which are no part of its form
        if known is None:
            known = self._queries[key] = query(statement)
            if len(self._queries) > self._size:
                self._queries.popitem(last=False)
        else:
            self._queries.move_to_end(key)
        return Call(known, values, (statement, form.bindparams))


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


BATCH = 500
"""Rows that a stream asks the server for at a time."""


class Stream(Generic[_T]):
    """A statement's results, while they come; an ``async with``, or an ``async for``.

    Args:
        lane: How the statement is run.
        call: The statement and its values.
        settings: Gives those of the statement's transaction.
    """

    def __init__(
        self,
        lane: ReadingLane,
        call: Call,
        settings: Callable[[], Awaitable[Settings]],
    ) -> None:
        self._lane = lane
        self._call = call
        self._batch = BATCH
        self._settings = settings
        self._opened: AbstractAsyncContextManager[Batches] | None = None

    def yield_per(self, count: int) -> Self:
        """Return the same stream, which asks the server for so many rows at a time.

        Args:
            count: Above 0; no more rows are kept in memory.

        Raises:
            ExpressError: It is below 1.
        """
        if count < 1:
            raise ExpressError(f"yield_per({count!r}): rows above 0 are accepted.")
        self._batch = count
        return self

    async def __aenter__(self) -> AsyncIterator[_T]:
        self._call.settings = await self._settings()
        self._opened = self._lane.stream(self._call, self._batch)
        return _flat(await self._opened.__aenter__())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.__aexit__(kind, error, traceback)

    async def __aiter__(self) -> AsyncGenerator[_T, None]:
        async with self as results:
            async for result in results:
                yield result


async def _flat(batches: Batches) -> AsyncGenerator[Any, None]:
    async for batch in batches:
        for result in batch:
            yield result
