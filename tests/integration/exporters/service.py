"""The service that is scraped, and each way of troubling it.

``uvicorn --factory tests.integration.exporters.service:create_app`` runs one worker of it.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Header, HTTPException
from sqlalchemy import bindparam, func, select, text
from tests.integration.fastapi.notes import Model, Note

from penstock import Database, query
from penstock.fastapi import Reader, ReadSession, WriteSession, install

TOKEN = "a scraper's own"
NOTES = query(select(func.count(Note.id)).where(Note.id == bindparam("note_id")))


async def operator(authorization: str = Header(default="")) -> None:
    """Refuse everything but Prometheus."""
    if authorization != f"Bearer {TOKEN}":
        raise HTTPException(401)


def create_app() -> FastAPI:
    """Make the service; its variables say where the database is."""
    database = Database.from_environment()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with database.engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
            await connection.run_sync(Model.metadata.create_all)
        yield

    app = FastAPI(lifespan=lifespan)
    install(app, database, access=operator)
    add_work(app)
    add_trouble(app, database)
    return app


def add_work(app: FastAPI) -> None:
    """Add what the service is for."""

    @app.get("/notes/{note_id}")
    async def read(note_id: int, session: ReadSession) -> int | None:
        return await session.scalar(select(Note.id).where(Note.id == note_id))

    @app.get("/express/{note_id}")
    async def express(note_id: int, reader: Reader) -> int:
        (count,) = await reader.one(NOTES, note_id=note_id)
        return count

    @app.post("/notes/{word}")
    async def write(word: str, session: WriteSession) -> None:
        session.add(Note(text=word))

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()


def add_trouble(app: FastAPI, database: Database) -> None:
    """Add what a service had better not do."""

    @app.get("/hold")
    async def hold(seconds: float, session: ReadSession) -> None:
        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})

    @app.get("/rest")
    async def rest(seconds: float, session: WriteSession) -> None:
        await session.execute(text("SELECT 1"))
        await asyncio.sleep(seconds)

    @app.get("/block")
    async def block(seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - that is the trouble

    @app.get("/nested")
    async def nested(session: ReadSession) -> None:
        await session.execute(text("SELECT pg_sleep(0.2)"))
        async with database.read() as another:
            await another.execute(text("SELECT 1"))
