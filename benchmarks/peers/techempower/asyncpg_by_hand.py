"""TechEmpower's tests written by hand on ``asyncpg.create_pool``."""

from typing import Any

from benchmarks.peers.asyncpg_pools import pool_of_app
from benchmarks.peers.techempower.worlds import (
    Queries,
    WorldOut,
    page_of,
    random_ids,
    random_number,
)
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse

READ = 'SELECT id, randomnumber AS "randomNumber" FROM world WHERE id = $1'
UPDATE = "UPDATE world SET randomnumber = $2 WHERE id = $1"


app = FastAPI(lifespan=pool_of_app())


@app.get("/json")
async def json() -> dict[str, str]:
    """Serialize an object."""
    return {"message": "Hello, World!"}


@app.get("/plaintext", response_class=PlainTextResponse)
async def plaintext() -> str:
    """Answer a text."""
    return "Hello, World!"


@app.get("/db")
async def db() -> WorldOut:
    """Read one world."""
    return WorldOut(**await app.state.pool.fetchrow(READ, *random_ids()))


@app.get("/queries")
async def queries(queries: Queries = 1) -> list[WorldOut]:
    """Read some worlds, one by one."""
    async with app.state.pool.acquire() as connection:
        return await read(connection, queries)


@app.get("/updates")
async def updates(queries: Queries = 1) -> list[WorldOut]:
    """Read some worlds, one by one, and change them."""
    async with app.state.pool.acquire() as connection:
        worlds = await read(connection, queries)
        for world in worlds:
            world.randomNumber = random_number()
        await connection.executemany(UPDATE, [(each.id, each.randomNumber) for each in worlds])
    return worlds


@app.get("/fortunes", response_class=HTMLResponse)
async def fortunes() -> str:
    """Read all fortunes, add one and render them."""
    return page_of(await app.state.pool.fetch("SELECT id, message FROM fortune"))


async def read(connection: Any, queries: int) -> list[WorldOut]:
    """Read some worlds by one statement, prepared once."""
    statement = await connection.prepare(READ)
    return [WorldOut(**await statement.fetchrow(world_id)) for world_id in random_ids(queries)]
