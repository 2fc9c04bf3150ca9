"""A connection of one's own, also for long."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from penstock import Database

PID = text("SELECT pg_backend_pid()")


def database_of_one(url: str, driver: str, **settings: Any) -> Database:
    return Database.from_url(
        url.replace("asyncpg", driver),
        environment="testing",
        pool_size=1,
        max_overflow=0,
        **settings,
    )


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_what_a_connection_has_set_ends_with_it(database_url: str, driver: str) -> None:
    async with database_of_one(database_url, driver) as database:
        async with database.connection() as connection:
            first = await connection.scalar(PID)
            await connection.execute(text("SET application_name = 'changed'"))
            await connection.commit()
            assert await connection.scalar(text("SHOW application_name")) == "changed"
        async with database.connection() as connection:
            assert await connection.scalar(text("SHOW application_name")) == "penstock"
            assert await connection.scalar(PID) == first


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_connection_that_keeps_its_state_is_closed_at_the_end(
    database_url: str, driver: str
) -> None:
    async with database_of_one(database_url, driver) as database:
        async with database.connection(keep_state=True) as connection:
            first = await connection.scalar(PID)
            await connection.execute(text("LISTEN news"))
            await connection.commit()
            assert database.pool.snapshot().checked_out == 1
        async with database.connection() as connection:
            assert await connection.scalar(PID) != first


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_connection_that_keeps_its_state_is_closed_when_its_holder_is_cancelled(
    database_url: str, driver: str
) -> None:
    pids = []

    async def hold(database: Database) -> None:
        async with database.connection(keep_state=True) as connection:
            pids.append(await connection.scalar(PID))
            await connection.execute(text("SELECT pg_sleep(60)"))

    async with database_of_one(database_url, driver) as database:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hold(database), 0.5)
        async with database.connection() as connection:
            assert await connection.scalar(PID) not in pids


async def test_a_connection_that_keeps_its_state_is_no_leak(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with database_of_one(database_url, "asyncpg", leak_after=0.5) as database:
        async with database.connection(keep_state=True):
            await asyncio.sleep(2.5)
        assert "checked out" not in caplog.text
        async with database.connection():
            await asyncio.sleep(2.5)
        assert "checked out" in caplog.text
