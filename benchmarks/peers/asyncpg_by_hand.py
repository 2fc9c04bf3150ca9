"""The same service written by hand on ``asyncpg.create_pool``, with its documented defaults."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from benchmarks.peers.users import UserIn, UserOut
from fastapi import FastAPI, HTTPException

DATABASE_URL = os.environ["DATABASE_URL"].replace("+asyncpg", "")
READ = """
    SELECT id, email, username, is_active, created_at FROM users WHERE id = $1 AND is_active
"""
WRITE = """
    INSERT INTO users (email, username) VALUES ($1, $2)
    RETURNING id, email, username, is_active, created_at
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool and close it at the end."""
    async with asyncpg.create_pool(DATABASE_URL, min_size=20, max_size=50) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/users/{user_id}")
async def get_user(user_id: int) -> UserOut:
    """Read one user."""
    row = await app.state.pool.fetchrow(READ, user_id)
    if row is None:
        raise HTTPException(404)
    return UserOut(**row)


@app.post("/users", status_code=201)
async def create_user(data: UserIn) -> UserOut:
    """Write one user."""
    return UserOut(**await app.state.pool.fetchrow(WRITE, data.email, data.username))
