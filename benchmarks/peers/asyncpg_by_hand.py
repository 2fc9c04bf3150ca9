"""The same service written by hand on ``asyncpg.create_pool``, with its documented defaults."""

from benchmarks.peers.asyncpg_pools import pool_of_app
from benchmarks.peers.users import UserIn, UserOut
from fastapi import FastAPI, HTTPException

READ = """
    SELECT id, email, username, is_active, created_at FROM users WHERE id = $1 AND is_active
"""
WRITE = """
    INSERT INTO users (email, username) VALUES ($1, $2)
    RETURNING id, email, username, is_active, created_at
"""


app = FastAPI(lifespan=pool_of_app())


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
