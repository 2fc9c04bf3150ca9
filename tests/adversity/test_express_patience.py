"""``command_timeout`` is kept without a timer for each statement, by a look now and then."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Integer, bindparam, func, literal, select, text
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer

from penstock import Database, query
from penstock.errors import CommitOutcomeUnknown
from penstock.express import connections

SLEEPING = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active'"
)

slept = query(
    select(literal(1, Integer)).select_from(func.pg_sleep(bindparam("seconds")).table_valued("x"))
)


@pytest.fixture
async def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(connections, "SHORTEST_WATCHED", 0.0)
    monkeypatch.setattr(connections, "CHECK_INTERVAL", 0.02)
    async with Database.from_url(
        database_url, environment="testing", pool_size=2, max_overflow=0, command_timeout=0.3
    ) as database:
        yield database


async def test_a_read_that_takes_too_long_is_cancelled_and_its_connection_kept(
    database: Database, postgres: PostgresServer
) -> None:
    with pytest.raises(TimeoutError, match=r"command_timeout=0\.3 s"):
        await database.reader.scalar(slept, seconds=60)

    await eventually(lambda: database.pool.snapshot().checked_in == 1)
    assert database.pool.snapshot().opened_total == 1
    others = SLEEPING + " AND pid <> pg_backend_pid()"
    assert postgres.execute(others) == [(0,)]


async def test_a_write_that_takes_too_long_has_an_unknown_outcome(database: Database) -> None:
    with pytest.raises(CommitOutcomeUnknown, match=r"within command_timeout=0\.3 s"):
        await database.writer.scalar(slept, seconds=60)


async def test_only_what_takes_too_long_is_cancelled(database: Database) -> None:
    async def short_ones() -> int:
        return sum([await database.reader.scalar(slept, seconds=0.02) or 0 for _ in range(30)])

    late = asyncio.ensure_future(database.reader.scalar(slept, seconds=60))

    assert await short_ones() == 30
    with pytest.raises(TimeoutError):
        await late


async def test_a_cancellation_of_ones_own_stays_one(database: Database) -> None:
    task = asyncio.ensure_future(database.reader.scalar(slept, seconds=60))
    await eventually(lambda: database.pool.snapshot().checked_out == 1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_session_on_the_same_connection_keeps_the_drivers_limit(database: Database) -> None:
    assert await database.reader.scalar(slept, seconds=0) == 1
    async with database.read() as session:
        with pytest.raises(TimeoutError):
            await session.execute(text("SELECT pg_sleep(60)"))


def test_an_event_loop_after_another_has_the_limit_as_well(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SHORTEST_WATCHED", 0.0)
    database = Database.from_url(database_url, environment="testing", command_timeout=0.3)

    async def read(seconds: float) -> int | None:
        try:
            async with asyncio.timeout(30):
                return await database.reader.scalar(slept, seconds=seconds)
        finally:
            await database.engine.dispose()

    assert asyncio.run(read(0)) == 1  # its loop ends before the first look
    with pytest.raises(TimeoutError, match="command_timeout"):
        asyncio.run(read(60))
