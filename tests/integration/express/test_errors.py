"""What is told of a value that does not fit, and of what the server refuses: as by a session."""

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from asyncpg.exceptions import PostgresError
from sqlalchemy import (
    Column,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.types import TypeDecorator
from tests.integration.express.people import (
    User,
    add,
    names,
    people,
    row_of,
    visit,
)

from penstock import Database, query
from penstock.errors import ParameterError


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection, with ada and bob."""
    async with people(database_url) as database:
        yield database


async def test_the_servers_error_in_a_copy_is_sqlalchemys(database: Database) -> None:
    for _ in range(2):
        with pytest.raises(IntegrityError) as refused:
            await database.writer.copy_in(User, [{"name": "eve"}, {"name": "ada"}])
        assert getattr(refused.value.orig, "sqlstate", None) == "23505"
        assert database.pool.snapshot().checked_out == 0
    assert await database.reader.all(names) == [("ada",), ("bob",)]


async def test_a_value_that_does_not_fit_is_told_as_sqlalchemy_would(database: Database) -> None:
    rows = [{"name": "eve", "visits": 2**40}]
    works: list[Callable[[], Awaitable[Any]]] = [
        lambda: database.reader.one(row_of, user_id="not a number"),
        lambda: database.writer.execute(insert(User), rows[0]),
        lambda: database.writer.execute_many(insert(User), rows),
        lambda: database.writer.copy_in(User, rows),
    ]
    for work in works:
        with pytest.raises(DBAPIError):
            await work()


class Colour(TypeDecorator[str]):
    """Red alone."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str:
        return {"red": "r"}[str(value)]


async def test_a_value_that_its_type_refuses_is_told_as_a_session_tells_it(
    database: Database,
) -> None:
    paints = Table("paints", MetaData(), Column("colour", Colour()))
    async with database.engine.begin() as connection:
        await connection.run_sync(paints.create)
    of_colour = select(paints).where(paints.c.colour == bindparam("colour"))
    rows = [{"colour": "4711-secret"}]

    async def write_by_session() -> None:
        async with database.write() as session:
            await session.execute(insert(paints), rows)

    for work in (
        write_by_session,
        lambda: database.reader.all(query(of_colour), colour="4711-secret"),
        lambda: database.reader.all(of_colour, colour="4711-secret"),
        lambda: database.writer.execute(insert(paints), rows[0]),
        lambda: database.writer.execute_many(insert(paints), rows),
        lambda: database.writer.copy_in(paints, rows),
    ):
        with pytest.raises(StatementError) as refused:
            await work()
        assert isinstance(refused.value.orig, KeyError)
        assert isinstance(refused.value.__cause__, KeyError)
        assert "[SQL parameters hidden" in str(refused.value)
    with pytest.raises(ParameterError):
        await database.reader.all(query(of_colour), color="red")
    assert await database.reader.scalar(select(func.count()).select_from(paints)) == 0


@pytest.mark.parametrize("wrong", ["many", 2**40, Decimal("NaN")])
async def test_a_value_that_does_not_fit_leaves_nothing_of_a_copy(
    database: Database, wrong: object
) -> None:
    rows = [{"name": "eve", "visits": 1}, {"name": "fay", "visits": wrong}]
    for _ in range(2):
        with pytest.raises(DBAPIError, match="invalid input in row 2"):
            await database.writer.copy_in(User, rows)
        assert await database.writer.execute(visit, user_id=1) == 1
    assert await database.reader.all(names) == [("ada",), ("bob",)]


@pytest.mark.parametrize(
    "error", [ValueError, TimeoutError, ConnectionResetError, FileNotFoundError, PostgresError]
)
async def test_what_fails_where_the_rows_come_from_is_told_as_it_is(
    database: Database, error: type[Exception]
) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield {"name": "eve"}
        raise error("the caller's own")

    with pytest.raises(error, match=r"^the caller's own$"):
        await database.writer.copy_in(User, rows())
    assert await database.reader.all(names) == [("ada",), ("bob",)]
    assert database.pool.snapshot().opened_total == 1


async def test_the_servers_errors_are_sqlalchemys(database: Database) -> None:
    with pytest.raises(IntegrityError) as refused:
        await database.writer.one(add, name="ada")
    assert getattr(refused.value.orig, "sqlstate", None) == "23505"
    with pytest.raises(ProgrammingError) as unknown:
        await database.reader.all(text("SELECT * FROM nowhere"))
    assert getattr(unknown.value.orig, "sqlstate", None) == "42P01"
    assert "nowhere" in str(unknown.value.statement)


async def test_the_servers_errors_in_a_snapshot_are_sqlalchemys(database: Database) -> None:
    async with database.reader.snapshot() as moment:
        with pytest.raises(ProgrammingError) as unknown:
            await moment.all(text("SELECT * FROM nowhere"))
        assert "nowhere" in str(unknown.value.statement)


async def test_the_servers_errors_amid_a_stream_are_sqlalchemys(database: Database) -> None:
    failing = text("SELECT 1 / (3 - number) FROM generate_series(1, 5) AS number")
    async with database.reader.stream(failing).yield_per(1) as rows:
        with pytest.raises(DBAPIError, match="division by zero"):
            async for _ in rows:
                pass
