"""Databases in scripts and workers, on each kind of server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from tests.told import advised, numbers

from penstock import Database
from penstock.errors import BudgetExceeded, ConnectFailed, SessionClosed, SettingsError

items = Table(
    "items",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(50), unique=True),
)

KINDS = ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"]


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with a table, of each kind."""
    match request.param:
        case "asyncpg" | "psycopg" as driver:
            url = request.getfixturevalue("database_url").replace("asyncpg", driver)
        case "asyncmy" | "aiomysql" as driver:
            url = request.getfixturevalue("mariadb_url").replace("asyncmy", driver)
        case _:
            url = f"sqlite+aiosqlite:///{tmp_path}/items.db"
    async with Database.from_url(url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(items.metadata.create_all)
        yield database


def test_a_url_in_the_place_of_settings_is_told_where_it_belongs() -> None:
    with pytest.raises(SettingsError) as refused:
        Database("postgresql://user:secret@localhost/app")  # type: ignore[arg-type]  # the point

    assert "Database.from_url(" in str(refused.value)
    assert "secret" not in str(refused.value)


async def write_and_fail(database: Database) -> None:
    async with database.write() as session:
        await session.execute(insert(items).values(name="lost"))
        raise RuntimeError("a bug")


async def count(database: Database) -> int:
    async with database.read() as session:
        return (await session.execute(select(func.count()).select_from(items))).scalar_one()


async def test_a_write_is_kept_and_a_failed_one_is_not(database: Database) -> None:
    async with database.write() as session:
        await session.execute(insert(items).values(name="kept"))
    with pytest.raises(RuntimeError):
        await write_and_fail(database)

    assert await count(database) == 1
    assert database.pool.snapshot().checked_out == 0


async def test_a_constraint_is_an_integrity_error(database: Database) -> None:
    async with database.write() as session:
        await session.execute(insert(items).values(name="taken"))
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            await session.execute(insert(items).values(name="taken"))

    assert await count(database) == 1


async def test_the_server_refuses_a_write_in_a_read(database: Database) -> None:
    async with database.read() as session:
        with pytest.raises(DBAPIError):
            await session.execute(text("INSERT INTO items (name) VALUES ('sneaked')"))

    assert await count(database) == 0


async def test_a_connection_that_read_writes_again(database: Database) -> None:
    assert await count(database) == 0
    async with database.write() as session:
        await session.execute(insert(items).values(name="kept"))
        before = database.pool.snapshot()

    assert before.checked_out <= 1
    assert await count(database) == 1


async def test_a_read_sees_what_its_unit_wrote_before_the_commit(database: Database) -> None:
    unit = database.unit()
    await unit.writer.execute(insert(items).values(name="one"))
    seen = await unit.reader.scalar(select(func.count()).select_from(items))
    await unit.writer.execute(insert(items).values(name="two"))
    await unit.commit()
    await unit.end("the test is over")

    assert seen == 1
    assert await count(database) == 2


async def test_a_session_that_outlived_its_block_says_so(database: Database) -> None:
    async with database.write() as session:
        pass

    with pytest.raises(SessionClosed) as closed:
        await session.execute(text("SELECT 1"))
    assert isinstance(closed.value, InvalidRequestError)
    with pytest.raises(SessionClosed):
        session.add(object())


async def test_a_ping_answers(database: Database) -> None:
    await database.ping(timeout=10)


async def test_closing_closes_every_connection_and_opening_again_works(
    database: Database,
) -> None:
    await database.close()
    assert database.pool.snapshot().checked_in == 0

    await database.open()
    assert await count(database) == 0


async def test_a_database_that_cannot_be_reached_says_where_and_keeps_its_secret() -> None:
    database = Database.from_url("postgresql://ada:hunter2@127.0.0.1:1/none")

    with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1") as failure:
        async with database:
            """Never reached."""

    assert "hunter2" not in str(failure.value)


async def test_a_budget_that_cannot_be_kept_is_refused_with_the_way_out(
    database_url: str,
) -> None:
    database = Database.from_url(
        database_url, workers=50, pool_size=20, max_overflow=10, budget="refuse"
    )

    with pytest.raises(BudgetExceeded) as refused:
        await database.open()
    assert numbers(str(refused.value))[1:5] == ["50", "20", "10", "1500"]
    assert advised(str(refused.value)).keys() >= {"pool_size", "max_overflow", "max_connections"}
    await database.close()


async def test_serverless_has_no_budget_to_keep(database_url: str) -> None:
    database = Database.from_url(
        database_url, environment="serverless", workers=500, budget="refuse"
    )

    async with database:
        assert await database.reader.scalar(text("SELECT 1")) == 1


async def test_a_close_that_is_cancelled_still_leaves_a_database_that_opens(
    database_url: str,
) -> None:
    database = Database.from_url(database_url, environment="testing")
    async with database.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        closing = asyncio.create_task(database.close(timeout=30))
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    await database.ping()
    await database.close()
