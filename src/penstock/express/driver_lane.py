"""Statements straight on asyncpg's connections, which the pool lends without a greenlet."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.express.connections import ConnectionLost, Connections
from penstock.express.errors import CommitOutcomeUnknown, ExpressError
from penstock.express.lanes import Batches, Call, Copy, ReadingLane
from penstock.express.plan import Plan
from penstock.express.query import Query
from penstock.express.shape import Shape

__all__ = ["DriverLane"]


class DriverLane:
    """The express lane itself.

    Args:
        engine: On asyncpg, with a :class:`PenstockPool`.
        is_confinable: As for :class:`Connections`.
    """

    def __init__(self, engine: AsyncEngine, is_confinable: Callable[[], bool]) -> None:
        self._connections = Connections(engine, is_confinable)
        self._dialect = engine.dialect

    async def read(self, call: Call) -> list[Any]:
        """As the protocol says; repeated once where the connection ended without an answer."""
        plan, sql, arguments = _bound(call, self._dialect)
        connections = self._connections
        fetch = _fetch
        if not (call.query.only_selects or connections.is_confinable()):
            fetch = _fetch_read_only
        try:
            records = await connections.use(fetch, plan, sql, arguments, False)
        except ConnectionLost:
            try:
                records = await connections.use(fetch, plan, sql, arguments, False)
            except ConnectionLost as again:
                raise again.error from again
        shape = plan.shape
        if records and len(records[0]) != shape.width:  # type: ignore[union-attr]  # learnt
            shape = await self._learn_anew(plan, sql)
        return shape.results(records)  # type: ignore[union-attr]  # learnt

    async def write(self, call: Call) -> list[Any]:
        """As the protocol says."""
        plan, sql, arguments = _bound(call, self._dialect)
        records = await self._write(_fetch, plan, sql, arguments)
        shape = plan.shape
        if records and len(records[0]) != shape.width:  # type: ignore[union-attr]  # learnt
            shape = await self._learn_anew(plan, sql)
        return shape.results(records)  # type: ignore[union-attr]  # learnt

    async def execute(self, call: Call) -> int:
        """As the protocol says."""
        plan, sql, arguments = _bound(call, self._dialect)
        status: str = await self._write(_execute, plan, sql, arguments)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def execute_many(self, query: Query[Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """As the protocol says, in as many messages as there are rows, but few round trips."""
        texts: dict[str, None] = {}
        arguments = []
        for values in rows:
            plan, sql, row = _bound(Call(query, values), self._dialect)
            texts[sql] = None
            arguments.append(row)
        if len(texts) > 1:
            raise ExpressError(
                "The rows make different statements (other columns, or lists of other lengths): "
                "give every row the same names, or call execute() for each."
            )
        if texts:
            await self._write(_execute_many, plan, next(iter(texts)), arguments)

    async def copy(self, copy: Copy) -> int:
        """As the protocol says, by COPY."""
        status: str = await self._write(_copy, copy, f"COPY {copy.table} FROM STDIN", self._dialect)
        return int(status.rpartition(" ")[2])

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        """As the protocol says, by a cursor of the server's in a transaction of its own."""
        _, sql, _ = _bound(call, self._dialect)
        async with (
            self._connections.transaction(sql) as driver,
            _SnapshotLane(driver, self._dialect).stream(call, batch) as batches,
        ):
            yield batches

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[ReadingLane]:
        """As the protocol says, in a transaction at REPEATABLE READ."""
        async with self._connections.transaction("(a snapshot)", "repeatable_read") as driver:
            yield _SnapshotLane(driver, self._dialect)

    async def _write(self, use: Any, plan: Any, sql: str, arguments: Any) -> Any:
        try:
            return await self._connections.use(use, plan, sql, arguments, True)
        except ConnectionLost as lost:
            raise CommitOutcomeUnknown(_UNKNOWN.format("its connection ended")) from lost.error
        except TimeoutError as error:
            raise CommitOutcomeUnknown(_UNKNOWN.format("it took too long")) from error

    async def _learn_anew(self, plan: Plan, sql: str) -> Shape:
        # The table has changed under a statement that names no columns.
        shape: Shape = await self._connections.use(_learn, plan, sql, (), False)
        return shape


_UNKNOWN = (
    "The write was sent, and no answer came ({}): it may or may not have been saved. Look for it "
    "before repeating it."
)


class _SnapshotLane:
    """Statements on the one connection of a read-only transaction.

    Args:
        driver: asyncpg's connection.
        dialect: Whose SQL it takes.
    """

    def __init__(self, driver: Any, dialect: Any) -> None:
        self._driver = driver
        self._dialect = dialect
        self._turn = asyncio.Lock()
        """A connection answers one statement at a time."""

    async def read(self, call: Call) -> list[Any]:
        plan, sql, arguments = _bound(call, self._dialect)
        async with self._turn:
            records = await _fetch(self._driver, plan, sql, arguments)
            if records and len(records[0]) != plan.shape.width:  # type: ignore[union-attr]  # learnt
                await _learn(self._driver, plan, sql, ())
        return plan.shape.results(records)  # type: ignore[union-attr]  # learnt

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        plan, sql, arguments = _bound(call, self._dialect)
        async with self._turn:
            shape = await _learn(self._driver, plan, sql, ())
            if shape.is_collected:
                raise ExpressError(
                    "A joinedload() of a collection takes several rows for one instance, so that "
                    "it cannot be streamed: select the two classes as tuples, or use all()."
                )
            cursor = await self._driver.cursor(sql, *arguments)

        async def batches() -> Batches:
            while True:
                async with self._turn:
                    records = await cursor.fetch(batch)
                if not records:
                    return
                yield shape.results(records)

        yield batches()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[ReadingLane]:
        yield self


def _fetch(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Coroutine[Any, Any, Any]:
    if plan.shape is None:
        return _learn_and_fetch(driver, plan, sql, arguments)
    return driver.fetch(sql, *arguments)  # type: ignore[no-any-return]  # untyped


async def _learn_and_fetch(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    await _learn(driver, plan, sql, ())
    return await driver.fetch(sql, *arguments)


async def _fetch_read_only(driver: Any, plan: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    async with driver.transaction(readonly=True):
        return await _fetch(driver, plan, sql, arguments)


async def _execute(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    return await driver.execute(sql, *arguments)


async def _execute_many(driver: Any, _: Plan, sql: str, arguments: Sequence[Any]) -> Any:
    return await driver.executemany(sql, arguments)


async def _copy(driver: Any, copy: Copy, _: str, dialect: Any) -> Any:
    table = copy.table
    return await driver.copy_records_to_table(
        table.name,
        schema_name=table.schema,
        columns=[table.c[key].name for key in copy.columns],
        records=copy.records(dialect),
    )


async def _learn(driver: Any, plan: Plan, sql: str, _: Sequence[Any]) -> Any:
    # It is in asyncpg's cache afterwards, from where the statement itself takes it.
    prepared = await driver._get_statement(sql, None)  # noqa: SLF001 - prepare() would not cache it
    return plan.learn(prepared._get_attributes() or ())  # noqa: SLF001 - as above


def _bound(call: Call, dialect: Any) -> tuple[Plan, str, Sequence[Any]]:
    query, values = call.query, call.values
    plan = query.plan(dialect, values)
    if len(values) != query.count:
        query.check(values)
    try:
        sql, arguments = (
            plan.bind(values) if call.adhoc is None else plan.bind_adhoc(values, call.adhoc[1])
        )
    except (KeyError, InvalidRequestError):
        query.check(values)
        raise
    return plan, sql, arguments
