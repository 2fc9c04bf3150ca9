"""TechEmpower's tests by Penstock's express lane."""

from collections.abc import Sequence

from benchmarks.peers.techempower.worlds import (
    Fortune,
    Queries,
    World,
    WorldOut,
    page_of,
    random_ids,
    random_number,
)
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy import Row, bindparam, select, update

from penstock import Database, query
from penstock.fastapi import Reader, Writer, install

world_by_id = query(select(World.id, World.randomNumber).where(World.id == bindparam("world_id")))
all_fortunes = query(select(Fortune.id, Fortune.message))
new_number = query(
    update(World).where(World.id == bindparam("world_id")).values(randomNumber=bindparam("number"))
)

app = FastAPI()
install(app, Database.from_environment())


@app.get("/json")
async def json() -> dict[str, str]:
    """Serialize an object."""
    return {"message": "Hello, World!"}


@app.get("/plaintext", response_class=PlainTextResponse)
async def plaintext() -> str:
    """Answer a text."""
    return "Hello, World!"


@app.get("/db", response_model=WorldOut)
async def db(reader: Reader) -> Row[int, int]:
    """Read one world."""
    return await reader.one(world_by_id, world_id=random_ids()[0])


@app.get("/queries", response_model=list[WorldOut])
async def queries(reader: Reader, queries: Queries = 1) -> Sequence[Row[int, int]]:
    """Read some worlds, one by one."""
    return [await reader.one(world_by_id, world_id=each) for each in random_ids(queries)]


@app.get("/updates")
async def updates(reader: Reader, writer: Writer, queries: Queries = 1) -> list[WorldOut]:
    """Read some worlds, one by one, and change them."""
    rows = [await reader.one(world_by_id, world_id=each) for each in random_ids(queries)]
    worlds = [WorldOut(id=row.id, randomNumber=random_number()) for row in rows]
    changes = [{"world_id": each.id, "number": each.randomNumber} for each in worlds]
    await writer.execute_many(new_number, changes)
    return worlds


@app.get("/fortunes", response_class=HTMLResponse)
async def fortunes(reader: Reader) -> str:
    """Read all fortunes, add one and render them."""
    return page_of(await reader.all(all_fortunes))
