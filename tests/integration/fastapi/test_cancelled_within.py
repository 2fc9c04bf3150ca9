"""A statement that is cancelled under rollback_after() costs its unit of work and no more."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from tests.integration.fastapi.notes import Note

from penstock import Database
from penstock.errors import DeadlineExceeded, PoolInAnotherLoop
from penstock.testing import rollback_after

Work = Callable[[Database], Coroutine[Any, Any, None]]
COUNT = select(func.count()).select_from(Note)
SLOW = text("SELECT pg_sleep(30)")
SLOW_ROWS = text("SELECT i, CASE WHEN i > 300 THEN pg_sleep(30) END FROM generate_series(1, 400) i")


async def write(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(text="lost"))
        await session.flush()
        await session.execute(SLOW)


async def write_first(database: Database) -> None:
    async with database.write() as session:
        await session.execute(SLOW)


async def write_nested(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(text="lost"))
        async with session.begin_nested():
            await session.execute(SLOW)


async def write_within(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(text="lost"))
        await session.flush()
        await database.reader.all(SLOW)


async def read(database: Database) -> None:
    async with database.read() as session:
        await session.execute(SLOW)


async def stream(database: Database) -> None:
    async with database.read() as session:
        async for _ in await session.stream(SLOW_ROWS.execution_options(yield_per=10)):
            pass


async def read_express(database: Database) -> None:
    await database.reader.all(SLOW)


async def stream_express(database: Database) -> None:
    async for _ in database.reader.stream(SLOW_ROWS):
        pass


async def write_express(database: Database) -> None:
    await database.writer.execute(insert(Note).values(text=func.pg_sleep(30).concat("lost")))


async def copy(database: Database) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield {"text": "lost"}
        await asyncio.sleep(30)

    await database.writer.copy_in(Note, rows())


async def wait_for_ever(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(text="lost"))
        await session.flush()
        await asyncio.sleep(30)


WAYS = [
    *(write, write_first, write_nested, write_within, read, stream),
    *(read_express, stream_express, write_express, copy, wait_for_ever),
]


async def check(database: Database, work: Work) -> None:
    """Write, cancel, and find what was written and no more; then write again."""
    async with database, rollback_after(database):
        async with database.write() as session:
            session.add(Note(text="kept"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await work(database)
        assert await database.reader.scalar(COUNT) == 1
        async with database.write() as session:
            session.add(Note(text="next"))
        async with database.read() as session:
            assert await session.scalar(COUNT) == 2
    assert database.pool.snapshot().checked_out == 0


@pytest.mark.parametrize("work", WAYS)
async def test_what_was_written_before_is_kept(database: Database, work: Work) -> None:
    await check(database, work)


@pytest.mark.parametrize("work", [write, write_first, read, read_express])
async def test_by_psycopg(tables: str, work: Work) -> None:
    url = tables.replace("asyncpg", "psycopg")
    await check(Database.from_url(url, environment="testing"), work)


async def test_a_deadline(database: Database) -> None:
    async with database, rollback_after(database):
        async with database.write() as session:
            session.add(Note(text="kept"))
        with pytest.raises(DeadlineExceeded):
            await database.reader.with_timeout(0.05).all(SLOW)
        assert await database.reader.scalar(COUNT) == 1


@pytest.mark.parametrize("work", [write, read, read_express, write_express])
async def test_another_event_loop_is_refused(database: Database, work: Work) -> None:
    async with database, rollback_after(database):
        with pytest.raises(PoolInAnotherLoop, match="penstock_test_client"):
            await asyncio.to_thread(lambda: asyncio.run(work(database)))


async def test_a_connection_that_is_lost_is_told(database: Database) -> None:
    async with database, rollback_after(database):
        with pytest.raises(DBAPIError):
            await database.writer.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        for work in (write, read, read_express, write_express):
            with pytest.raises(PendingRollbackError, match=r"rollback_after\(\) was lost"):
                await work(database)
