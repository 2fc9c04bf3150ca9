"""SQLite: in a file with a pool, in memory with the one connection that is the database."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from tests.integration.engine.engines import engine_on, scalar

from penstock import Database
from penstock.engine import pool_snapshot
from penstock.pool import ConnectFailed, FailureReason, PenstockPool, PoolSnapshot
from penstock.testing import rollback_after

MEMORY = "sqlite+aiosqlite:///:memory:"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"


async def test_a_file_has_a_pool(url: str) -> None:
    async with engine_on(url, pool_size=3) as engine:
        assert type(engine.pool) is PenstockPool
        assert pool_snapshot(engine).size == 3


@pytest.mark.parametrize("environment", ["testing", "production", "serverless"])
async def test_memory_keeps_its_one_connection(environment: str) -> None:
    async with engine_on(MEMORY, environment=environment, pool_recycle=1) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE kept (id int)"))
        assert await scalar(engine, "SELECT count(*) FROM kept") == 0
        assert pool_snapshot(engine) == PoolSnapshot(
            size=1, limit=1, checked_in=1, checked_out=0, overflow=0, opened_total=1
        )


async def test_in_memory_nobodys_rollback_undoes_what_another_has_written() -> None:
    async with engine_on(MEMORY) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE kept (id int)"))

        async def write(number: int) -> None:
            async with engine.connect() as connection:
                await connection.execute(text("INSERT INTO kept VALUES (1)"))
                await asyncio.sleep(0.001)
                await (connection.commit() if number % 2 else connection.rollback())

        await asyncio.gather(*(write(number) for number in range(20)))
        assert await scalar(engine, "SELECT count(*) FROM kept") == 10


async def save(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        async with connection.begin_nested():
            await connection.execute(text("INSERT INTO kept VALUES (1)"))
        await connection.rollback()


async def save_by_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT * FROM kept"))
        async with session.begin_nested(), session.begin_nested():
            await session.execute(text("INSERT INTO kept VALUES (1)"))


async def save_after_a_write(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO kept VALUES (1)"))
        async with connection.begin_nested():
            await connection.execute(text("INSERT INTO kept VALUES (2)"))


@pytest.mark.parametrize("saves", [save, save_by_session, save_after_a_write])
@pytest.mark.parametrize("where", ["file", "memory"])
async def test_what_a_savepoint_has_saved_is_undone_with_its_transaction(
    url: str, where: str, saves: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    async with engine_on(url if where == "file" else MEMORY) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE kept (id int)"))
        await saves(engine)
        assert await scalar(engine, "SELECT count(*) FROM kept") == 0
        async with engine.begin() as connection, connection.begin_nested():
            await connection.execute(text("INSERT INTO kept VALUES (1)"))
        assert await scalar(engine, "SELECT count(*) FROM kept") == 1


async def test_work_on_sqlite_is_undone(url: str) -> None:
    async with Database.from_url(url, environment="testing") as database:
        await database.writer.execute(text("CREATE TABLE kept (id int)"))
        async with rollback_after(database):
            await database.writer.execute(text("INSERT INTO kept VALUES (1)"))
            assert await database.reader.scalar(text("SELECT count(*) FROM kept")) == 1
        assert await database.reader.scalar(text("SELECT count(*) FROM kept")) == 0


async def test_every_connection_begins_with_the_pragmas(url: str) -> None:
    async with (
        engine_on(url, command_timeout=7) as engine,
        engine.connect() as one,
        engine.connect() as other,
    ):
        for connection in (one, other):
            found = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar()
                for name in ("foreign_keys", "journal_mode", "busy_timeout")
            ]
            assert found == [1, "wal", 7000]


async def test_a_broken_reference_is_refused(url: str) -> None:
    async with engine_on(url) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE parent (id integer PRIMARY KEY)"))
            await connection.execute(text("CREATE TABLE child (id int REFERENCES parent)"))
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO child VALUES (1)"))


async def test_many_first_connections_at_once_do_not_lock_each_other_out(url: str) -> None:
    async with engine_on(url, pool_size=10) as engine:
        answers = await asyncio.gather(*(scalar(engine, "SELECT 1") for _ in range(10)))
    assert answers == [1] * 10


async def test_writers_wait_for_each_other(url: str) -> None:
    async with engine_on(url, pool_size=5) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE written (id integer)"))

        async def write(number: int) -> None:
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO written VALUES (:id)"), {"id": number})

        await asyncio.gather(*(write(number) for number in range(20)))
        assert await scalar(engine, "SELECT count(*) FROM written") == 20


async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no such folder" / "test.db"
    async with engine_on(f"sqlite+aiosqlite:///{path}") as engine:
        with pytest.raises(ConnectFailed, match="unable to open database file") as raised:
            await scalar(engine, "SELECT 1")
        assert f"the file {path}" in str(raised.value)
        assert raised.value.reason is FailureReason.UNKNOWN_DATABASE
        assert pool_snapshot(engine).checked_out == 0
    # aiosqlite does not wait for the thread of a connection that it could not open.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join()


async def test_a_read_only_file_can_be_read(url: str, tmp_path: Path) -> None:
    async with engine_on(url) as engine:
        await scalar(engine, "SELECT 1")
    read_only = f"sqlite+aiosqlite:///file:{tmp_path / 'test.db'}?mode=ro&uri=true"
    async with engine_on(read_only) as engine:
        assert await scalar(engine, "SELECT count(*) FROM sqlite_master") == 0


async def test_a_shared_memory_database_has_a_pool() -> None:
    url = "sqlite+aiosqlite:///file:shared?mode=memory&cache=shared&uri=true"
    async with engine_on(url) as engine, engine.connect() as one, engine.connect() as other:
        await one.execute(text("CREATE TABLE seen (id int)"))
        await one.commit()
        assert (await other.execute(text("SELECT count(*) FROM seen"))).scalar() == 0
