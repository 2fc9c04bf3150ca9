"""TechEmpower's tests as the tutorial would write them: a session, entities, ``get_db``."""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from benchmarks.peers.techempower.worlds import (
    Fortune,
    Queries,
    World,
    WorldOut,
    page_of,
    random_ids,
    random_number,
)
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(
    os.environ["DATABASE_URL"],
    pool_size=20,
    max_overflow=30,
    pool_pre_ping=True,
    pool_recycle=3600,
)
make_session = async_sessionmaker(engine, expire_on_commit=False, autoflush=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give a session; commit when the route succeeded, roll back when it raised."""
    async with make_session() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


Session = Annotated[AsyncSession, Depends(get_db)]
app = FastAPI()


@app.get("/json")
async def json() -> dict[str, str]:
    """Serialize an object."""
    return {"message": "Hello, World!"}


@app.get("/plaintext", response_class=PlainTextResponse)
async def plaintext() -> str:
    """Answer a text."""
    return "Hello, World!"


@app.get("/db", response_model=WorldOut)
async def db(session: Session) -> World:
    """Read one world."""
    return await read(session, *random_ids())


@app.get("/queries", response_model=list[WorldOut])
async def queries(session: Session, queries: Queries = 1) -> list[World]:
    """Read some worlds, one by one."""
    return [await read(session, world_id) for world_id in random_ids(queries)]


@app.get("/updates", response_model=list[WorldOut])
async def updates(session: Session, queries: Queries = 1) -> list[World]:
    """Read some worlds, one by one, and change them."""
    worlds = [await read(session, world_id) for world_id in random_ids(queries)]
    for world in worlds:
        world.randomNumber = random_number()
    return worlds


@app.get("/fortunes", response_class=HTMLResponse)
async def fortunes(session: Session) -> str:
    """Read all fortunes, add one and render them."""
    fortunes = await session.scalars(select(Fortune))
    return page_of((fortune.id, fortune.message) for fortune in fortunes)


async def read(session: AsyncSession, world_id: int) -> World:
    """Read one world."""
    return (await session.scalars(select(World).where(World.id == world_id))).one()
