"""A tenant's context costs no round trip, whatever it is for, whatever came before."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from tests.integration.express.test_round_trips import (
    Note,
    add,
    add_returning,
    line_of,
    one_connection,
    spent,
)
from tests.servers.postgres import PostgresServer

from penstock import Database

SEVEN = {"app.tenant": "7", "statement_timeout": "60s"}
Operation = Callable[[Database, Any], Awaitable[None]]


async def express_read(database: Database, settings: Any) -> None:
    reader = database.reader.with_context(settings=settings)
    assert await reader.scalar(line_of, note_id=1) == "first"


async def express_star(database: Database, settings: Any) -> None:
    reader = database.reader.with_context(settings=settings)
    assert (await reader.one(text("SELECT * FROM notes WHERE id = 1"))).line == "first"


async def express_write(database: Database, settings: Any) -> None:
    assert await database.writer.with_context(settings=settings).execute(add, line="x") == 1


async def express_write_returning(database: Database, settings: Any) -> None:
    writer = database.writer.with_context(settings=settings)
    assert (await writer.one(add_returning, line="x")).line == "x"


async def express_write_many(database: Database, settings: Any) -> None:
    rows = [{"line": str(number)} for number in range(10)]
    await database.writer.with_context(settings=settings).execute_many(add, rows)


async def snapshot(database: Database, settings: Any) -> None:
    async with database.reader.with_context(settings=settings).snapshot() as moment:
        assert await moment.scalar(line_of, note_id=1) == "first"


async def stream(database: Database, settings: Any) -> None:
    reader = database.reader.with_context(settings=settings)
    async with reader.stream(line_of, note_id=1) as rows:
        assert [row.line async for row in rows] == ["first"]


async def session_read(database: Database, settings: Any) -> None:
    async with database.read(settings=settings) as session:
        assert await session.scalar(select(Note.line).where(Note.id == 1)) == "first"


async def session_write(database: Database, settings: Any) -> None:
    async with database.write(settings=settings) as session:
        session.add(Note(line="by a session"))


async def session_with_a_savepoint(database: Database, settings: Any) -> None:
    async with database.write(settings=settings) as session:
        session.add(Note(line="by a session"))
        await session.flush()
        async with session.begin_nested():
            session.add(Note(line="by a savepoint"))


OPERATIONS: list[Operation] = [
    express_read,
    express_star,
    express_write,
    express_write_returning,
    express_write_many,
    snapshot,
    stream,
    session_read,
    session_write,
    session_with_a_savepoint,
]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_it_costs_as_many_round_trips_as_without(
    postgres: PostgresServer, database_url: str, operation: Operation
) -> None:
    async def without(database: Database) -> None:
        await operation(database, None)

    async def within(database: Database) -> None:
        await operation(database, SEVEN)

    async with one_connection(postgres.host, postgres.port, database_url) as (database, proxy):
        for run in (without, within):  # each statement is prepared once
            await run(database)
        counted = {
            (before.__name__, run.__name__): await _spent_after(before, database, proxy, run)
            for before in (without, within)
            for run in (without, within)
        }

    assert len(set(counted.values())) == 1, counted


async def _spent_after(
    before: Callable[[Database], Awaitable[None]], database: Database, proxy: Any, run: Any
) -> int:
    await before(database)
    return await spent(database, proxy, run)
