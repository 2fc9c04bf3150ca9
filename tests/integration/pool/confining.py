"""What is done on one connection, confined to reading or not, for the tests of confinement."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.pool.pools import MakeEngine

from penstock.engine import confined_engine

__all__ = [
    "DEFAULT",
    "INSERT",
    "Use",
    "borrow",
    "borrow_to_read",
    "cancel_a_read",
    "cancel_a_repeatable_read",
    "fail_to_read",
    "read",
    "read_repeatably",
    "roll_back",
    "rows",
    "with_notes",
    "write",
    "write_in_autocommit",
]

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


async def read(engine: AsyncEngine) -> None:
    async with confined_engine(engine).connect() as connection:
        assert await connection.scalar(DEFAULT) == "on"


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


async def borrow_to_read(engine: AsyncEngine) -> None:
    async with confined_engine(engine).connect():
        pass


async def borrow(engine: AsyncEngine) -> None:
    async with engine.connect():
        pass


async def read_repeatably(engine: AsyncEngine) -> None:
    async with confined_engine(engine).connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        assert await connection.scalar(DEFAULT) == "on"


async def cancel_a_read(engine: AsyncEngine) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), confined_engine(engine).connect() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))


async def cancel_a_repeatable_read(engine: AsyncEngine) -> None:
    async def sleep() -> None:
        async with confined_engine(engine).connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            await connection.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sleep(), 0.05)


async def fail_to_read(engine: AsyncEngine) -> None:
    with pytest.raises(DBAPIError, match="read-only transaction"):
        async with confined_engine(engine).connect() as connection:
            await connection.execute(INSERT)


async def rows(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(COUNT))
