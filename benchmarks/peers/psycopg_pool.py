"""The same service on ``AsyncConnectionPool``, opened and used as psycopg's documentation shows."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.peers.users import UserIn, UserOut
from fastapi import FastAPI, HTTPException
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

READ = """
    SELECT id, email, username, is_active, created_at FROM users WHERE id = %s AND is_active
"""
WRITE = """
    INSERT INTO users (email, username) VALUES (%s, %s)
    RETURNING id, email, username, is_active, created_at
"""

pool = AsyncConnectionPool(
    os.environ["DATABASE_URL"].replace("+asyncpg", ""), min_size=20, max_size=50, open=False
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the pool and close it at the end."""
    async with pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/users/{user_id}")
async def get_user(user_id: int) -> UserOut:
    """Read one user, in the transaction that a lease of this pool is."""
    async with (
        pool.connection() as connection,
        connection.cursor(row_factory=class_row(UserOut)) as cursor,
    ):
        user = await (await cursor.execute(READ, (user_id,))).fetchone()
    if user is None:
        raise HTTPException(404)
    return user


@app.post("/users", status_code=201)
async def create_user(data: UserIn) -> UserOut:
    """Write one user; the end of the lease commits."""
    async with (
        pool.connection() as connection,
        connection.cursor(row_factory=class_row(UserOut)) as cursor,
    ):
        await cursor.execute(WRITE, (data.email, data.username))
        return await anext(cursor)
