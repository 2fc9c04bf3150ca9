"""What is done on one connection, set read-only or not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.pool.pools import MakeEngine, pool_of

from penstock.express.execution import Lease

DEFAULT = text("SHOW default_transaction_read_only")
INSERT = text("INSERT INTO notes VALUES ('written')")
COUNT = text("SELECT count(*) FROM notes")

Use = Callable[[AsyncEngine], Coroutine[Any, Any, None]]


async def with_notes(make_engine: MakeEngine) -> AsyncEngine:
    """Return a pool of one connection, and make an empty table."""
    engine = make_engine(pool_size=1, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE notes (line text)"))
    return engine


@asynccontextmanager
async def read_only(engine: AsyncEngine) -> AsyncIterator[Any]:
    """Give asyncpg's connection, kept read-only as the express lane does it for a single read."""
    lease = await Lease.of(pool_of(engine))
    try:
        if not lease.record.reads_only:
            lease.record.set_read_only(to_reading=True)
        yield lease.driver
    except BaseException as error:
        await lease.release_failed(error)
        raise
    await lease.release()


async def read(engine: AsyncEngine) -> None:
    async with read_only(engine) as driver:
        assert await driver.fetchval(DEFAULT.text) == "on"


async def write(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        assert await connection.scalar(DEFAULT) == "off"
        await connection.execute(INSERT)


async def write_in_autocommit(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        assert await connection.scalar(DEFAULT) == "off"
        await connection.execute(INSERT)


async def roll_back(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(INSERT)


async def acquire_to_read(engine: AsyncEngine) -> None:
    async with read_only(engine):
        pass


async def acquire(engine: AsyncEngine) -> None:
    async with engine.connect():
        pass


async def cancel_a_read(engine: AsyncEngine) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), read_only(engine) as driver:
            await driver.fetch("SELECT pg_sleep(30)")


async def fail_to_read(engine: AsyncEngine) -> None:
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with read_only(engine) as driver:
            await driver.execute(INSERT.text)


async def rows(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(COUNT))
