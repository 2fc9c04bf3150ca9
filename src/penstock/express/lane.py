"""What a lane does, and the lane through SQLAlchemy's sessions: slower, with the same results."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic
from typing import Any, Protocol, TypeVar

from sqlalchemy import Table, insert
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from typing_extensions import override

from penstock.context import Settings
from penstock.drivers import sqlalchemy_internals as internals
from penstock.drivers.driver import BeginOptions
from penstock.express.errors import LaneEnded
from penstock.express.query import Call, Query

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


Sessions = Callable[[BeginOptions], AbstractAsyncContextManager[Any]]
"""Gives a session whose transaction begins as the options say, for the length of a block; it is
committed or rolled back at its end."""
SessionsWithin = Callable[[AsyncConnection, Settings], AbstractAsyncContextManager[Any]]
"""Gives a session in the open transaction of a connection, with server settings, for
the length of a block."""

_OPTIONS = {"render_nulls": True}
"""A None that is given is NULL, and not the column's default."""
ROWS_AT_ONCE = 1000
"""Rows of a bulk write that go into one statement's execution."""


class SqlalchemyLane(Lane):
    """Runs each statement in a new session: for other drivers, and for work that is rolled back.

    Args:
        read: Gives sessions that only read.
        write: Gives sessions that write.
        within: Gives sessions that only read, in a savepoint of a connection's transaction.
        dialect: Whose SQL they take.
        isolates: Whether the server's own isolation level has a transaction see one moment.
    """

    def __init__(
        self,
        read: Sessions,
        write: Sessions,
        within: SessionsWithin,
        *,
        dialect: Dialect,
        isolates: bool,
    ) -> None:
        self._read = read
        self._write = write
        self._within = within
        self._dialect = dialect
        self._isolates = isolates

    @override
    async def read(self, call: Call, extract: Extract) -> Any:
        async with self._reading(call) as session:
            return extract(await _results(session, call))

    @override
    async def read_within(self, connection: AsyncConnection, call: Call, extract: Extract) -> Any:
        async with self._within(connection, call.settings) as session:
            return extract(await _results(session, call))

    @override
    async def write(self, call: Call, extract: Extract) -> Any:
        if call.rows is not None and not call.rows:
            return extract([])  # of which a session makes a single row, without values
        async with self._write(BeginOptions(settings=call.settings)) as session:
            return extract(await _results(session, call))

    @override
    async def execute(self, call: Call) -> int:
        async with self._write(BeginOptions(settings=call.settings)) as session:
            result = await _execute(session, call, preserve_rowcount=True)
            if call.query.is_open and call.statement.is_insert:
                return 1  # of which a session says nothing
            return max(0, getattr(result, "rowcount", 0))

    @override
    async def execute_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]], settings: Settings = ()
    ) -> None:
        if not rows:
            return  # of which a session makes a single row, without values
        values = [query.spread(row) async for row in yielding(rows)]
        async with self._write(BeginOptions(settings=settings)) as session:
            await session.execute(query.statement, values, execution_options=_OPTIONS)

    async def copy(self, copy: Copy, settings: Settings = ()) -> int:
        """Write rows by INSERT."""
        count = 0
        async with self._write(BeginOptions(settings=settings)) as session:
            connection = await session.connection()
            async for batch in _batches(copy.rows()):
                count += len(batch)
                await connection.execute(insert(copy.table), batch)
        return count

    @override
    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        async with self.reading(call) as lane, lane.stream(call, batch) as batches:
            yield batches

    @override
    @asynccontextmanager
    async def reading(self, call: Call) -> AsyncIterator[OpenLane]:
        async with self._reading(call) as session:
            yield _OpenLane(session, self._within)

    @override
    @asynccontextmanager
    async def snapshot(self, settings: Settings = ()) -> AsyncIterator[OpenLane]:
        async with self._frozen(settings) as session:
            yield _OpenLane(session, self._within)

    @asynccontextmanager
    async def _reading(self, call: Call) -> AsyncIterator[AsyncSession]:
        """Give a session for a statement, and for further ones, which see what it has seen."""
        plan = call.query.plan(self._dialect, call.values)
        if plan.takes_statements and not self._isolates:
            async with self._frozen(call.settings) as session:
                yield session
        else:
            async with self._read(BeginOptions(settings=call.settings)) as session:
                yield session

    @asynccontextmanager
    async def _frozen(self, settings: Settings) -> AsyncIterator[AsyncSession]:
        isolation = None if self._isolates else SNAPSHOT
        options = BeginOptions(isolation=isolation, settings=settings)
        async with self._read(options) as session:
            await _freeze(session)
            yield session


class _OpenLane:
    """Statements in one session's transaction.

    Args:
        session: At the isolation level that is wanted.
        within: Gives sessions in a savepoint of a connection's transaction.
    """

    def __init__(self, session: AsyncSession, within: SessionsWithin) -> None:
        self._session = session
        self._within = within

    async def read_apart(self, call: Call, extract: Extract) -> Any:
        if getattr(self._session, "is_over", False):
            raise LaneEnded("This snapshot or stream ended when its async with block was left.")
        connection = await self._session.connection()
        async with self._within(connection, call.settings) as session:
            return extract(await _results(session, call))

    async def read(self, call: Call, extract: Extract) -> Any:
        return extract(await _results(self._session, call))

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        async with _stream(self._session, call, batch) as batches:
            yield batches

    @asynccontextmanager
    async def snapshot(self, settings: Settings = ()) -> AsyncIterator[ReadingLane]:  # noqa: ARG002 - they are in force
        yield self


async def _freeze(session: AsyncSession) -> None:
    if isinstance(session.bind, AsyncConnection):
        return  # within the one transaction of a test
    connection = await session.connection()
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql("BEGIN")


async def _execute(session: AsyncSession, call: Call, **options: Any) -> Any:
    if call.rows is not None:
        rows = [call.query.spread(row) async for row in yielding(call.rows)]
        return await session.execute(call.statement, rows, execution_options=_OPTIONS | options)
    values = dict(call.query.spread(call.values))
    if call.query.is_open and call.statement.is_update:
        # A session takes them by attribute for an INSERT, and by column for an UPDATE.
        keys = call.query.attributes.columns
        values = {keys.get(name, name): value for name, value in values.items()}
    elif call.query.writes and call.statement.is_insert and not call.query.is_open:
        options["dml_strategy"] = "orm"  # which counts the rows
    return await session.execute(call.statement, values, execution_options=_OPTIONS | options)


async def _results(session: AsyncSession, call: Call) -> list[Any]:
    result = await _execute(session, call)
    if internals.needs_unique(result):
        result = result.unique()
    is_single = internals.is_single_entity(result)
    results = list((result.scalars() if is_single else result).all())
    session.expunge_all()
    return results


@asynccontextmanager
async def _stream(session: AsyncSession, call: Call, batch: int) -> AsyncIterator[Batches]:
    call.query.check(call.values)
    options = {"yield_per": batch}
    result = await session.stream(call.statement, dict(call.values), execution_options=options)
    is_single = internals.is_single_entity(result)

    async def batches() -> AsyncGenerator[list[Any], None]:
        async for part in (result.scalars() if is_single else result).partitions(batch):
            for instance in session.identity_map.values():
                session.expunge(instance)  # one by one: the loader goes on using the map
            yield list(part)

    try:
        yield batches()
    finally:
        await result.close()


async def _batches(
    rows: AsyncIterator[dict[str, Any]],
) -> AsyncGenerator[list[dict[str, Any]], None]:
    batch: list[dict[str, Any]] = []
    async for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
