"""A transaction that cannot be rolled back, or that nobody ends, costs the pool no slot."""

import asyncio
import gc
import logging
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.eventually import eventually
from tests.integration.engine.engines import with_driver
from tests.servers.postgres import PostgresServer

from penstock import Database

COPY = text("COPY (SELECT generate_series(1, 100000)) TO STDOUT")


async def copying(connection: Any) -> None:
    """Have the driver during an answer that it does not read (psycopg); refused by asyncpg."""
    await connection.execute(COPY)


async def at_work_elsewhere(connection: Any) -> None:
    """Have somebody use the driver's own connection, still."""
    if hasattr(connection, "connection"):
        connection = await connection.connection()
    driver = (await connection.get_raw_connection()).driver_connection
    nap = asyncio.ensure_future(driver.execute("SELECT pg_sleep(1)"))
    await asyncio.sleep(0.1)
    assert not nap.done()
    nap.add_done_callback(lambda done: done.exception())  # it is looked at


async def by_a_session(database: Database, spoil: Any) -> None:
    async with database.write() as session:
        await session.execute(text("SELECT 1"))
        await spoil(session)
        raise ZeroDivisionError


async def by_a_reading_session(database: Database, spoil: Any) -> None:
    async with database.read() as session:
        await session.execute(text("SELECT 1"))
        await spoil(session)


async def by_the_engine(database: Database, spoil: Any) -> None:
    async with database.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await spoil(connection)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("spoil", [copying, at_work_elsewhere])
@pytest.mark.parametrize("way", [by_a_session, by_a_reading_session, by_the_engine])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_what_cannot_be_rolled_back_gives_its_slot_back(
    database_url: str, driver: str, way: Any, spoil: Any
) -> None:
    url = with_driver(database_url, driver)
    async with Database.from_url(
        url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=5
    ) as database:
        failures: list[Exception] = []  # as a log or an error tracker keeps them, with their frames
        for _ in range(2):
            try:
                await way(database, spoil)
            except Exception as error:  # noqa: BLE001 - whatever it is
                failures.append(error)
            async with database.read() as session:
                assert await session.scalar(text("SELECT 2")) == 2
        assert database.pool.snapshot().checked_out == 0


@pytest.mark.filterwarnings("ignore")  # what SQLAlchemy and the driver rightly say
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_nothing_is_left_of_a_connection_that_nobody_closed(
    database_url: str, driver: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    # A record of SQLAlchemy's complaint would hold the connection.
    caplog.set_level(logging.CRITICAL, "sqlalchemy.pool")

    async def lose(engine: AsyncEngine) -> None:
        connection = await engine.connect().__aenter__()
        await connection.execute(text("SELECT pg_advisory_xact_lock(5)"))

    def open_transactions() -> Any:
        [(count,)] = postgres.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        )
        return count

    url = with_driver(database_url, driver)
    async with Database.from_url(
        url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=5
    ) as database:
        for _ in range(2):
            await lose(database.engine)
            gc.collect()
            await eventually(lambda: database.pool.snapshot().checked_out == 0)
            with suppress(AssertionError):
                await eventually(lambda: open_transactions() == 0, seconds=5)
            assert open_transactions() == 0
