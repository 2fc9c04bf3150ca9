"""Ways to read one user, without any HTTP: bare, pooled by asyncpg, and by Penstock."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
from benchmarks.peers.asyncpg_pools import leave_as_it_is
from benchmarks.peers.users import User
from sqlalchemy import bindparam, select

from penstock import Database, query

Read = Callable[[int], Awaitable[Any]]
"""Reads the user with this id."""

SQL = "SELECT id, email, username, is_active, created_at FROM users WHERE id = $1 AND is_active"
ACTIVE = (User.id == bindparam("user_id"), User.is_active)
columns_by_id = query(
    select(User.id, User.email, User.username, User.is_active, User.created_at).where(*ACTIVE)
)
user_by_id = query(select(User).where(*ACTIVE))


@asynccontextmanager
async def _bare_connection(url: str) -> AsyncIterator[Read]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    statement = await connection.prepare(SQL)
    yield statement.fetchrow
    await connection.close()


@asynccontextmanager
async def _asyncpg_pool(url: str) -> AsyncIterator[Read]:
    async with asyncpg.create_pool(url.replace("+asyncpg", "")) as pool:
        yield lambda user_id: pool.fetchrow(SQL, user_id)


@asynccontextmanager
async def _asyncpg_pool_without_reset(url: str) -> AsyncIterator[Read]:
    address = url.replace("+asyncpg", "")
    async with asyncpg.create_pool(address, reset=leave_as_it_is) as pool:
        yield lambda user_id: pool.fetchrow(SQL, user_id)


@asynccontextmanager
async def _reader(url: str) -> AsyncIterator[Read]:
    async with Database.from_url(url, environment="production") as database:
        reader = database.reader
        yield lambda user_id: reader.one(columns_by_id, user_id=user_id)


@asynccontextmanager
async def _reader_orm(url: str) -> AsyncIterator[Read]:
    async with Database.from_url(url, environment="production") as database:
        reader = database.reader
        yield lambda user_id: reader.one(user_by_id, user_id=user_id)


READERS: dict[str, Callable[[str], AbstractAsyncContextManager[Read]]] = {
    "bare_connection": _bare_connection,
    "asyncpg_pool": _asyncpg_pool,
    "asyncpg_pool_without_reset": _asyncpg_pool_without_reset,
    "reader": _reader,
    "reader_orm": _reader_orm,
}
