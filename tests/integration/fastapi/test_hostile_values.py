"""Values that the database refuses, whichever way they are written: an answer, never a 500."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import fastapi
import pytest
import websockets
from fastapi import FastAPI, Request, WebSocket
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select, text
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.servers.web import client_of, serving

from penstock import Database
from penstock.fastapi import CurrentDatabase, Writer, WriteSession, install

METADATA = MetaData()
THINGS = Table("things", METADATA, Column("id", Integer, primary_key=True), Column("text", Text))
HOSTILE: dict[str, dict[str, Any]] = {
    "a NUL": {"id": 1, "text": "a\0b"},
    "a lone surrogate": {"id": 1, "text": "a\ud800b"},
    "too large a number": {"id": 2**40, "text": "a"},
    "much too large a number": {"id": 10**30, "text": "a"},
}
GOOD = {"id": 2, "text": "good"}
ROWS = {
    "alone": lambda row: [row],
    "first of two": lambda row: [row, GOOD],
    "last of two": lambda row: [GOOD, row],
}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database.from_url(database_url, environment="testing", pool_size=2)
    async with database:
        async with database.engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        yield database


@pytest.fixture
def app(database: Database) -> FastAPI:
    app = FastAPI()
    install(app, database)

    @app.post("/copy_in")
    async def copy_in(request: Request, writer: Writer) -> int:
        return await writer.copy_in(THINGS, await request.json())

    @app.post("/execute_many")
    async def execute_many(request: Request, writer: Writer) -> None:
        await writer.execute_many(insert(THINGS), await request.json())

    @app.post("/all")
    async def all_(request: Request, writer: Writer) -> int:
        rows = await request.json()
        return len(await writer.all(insert(THINGS).returning(THINGS.c.id), rows))

    @app.post("/execute")
    async def execute(request: Request, writer: Writer) -> None:
        for row in await request.json():
            await writer.execute(insert(THINGS), row)

    @app.post("/session")
    async def session(request: Request, session: WriteSession) -> None:
        await session.execute(insert(THINGS), await request.json())

    return app


@pytest.mark.parametrize("way", ["copy_in", "execute_many", "all", "execute", "session"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("value", HOSTILE)
async def test_it_is_the_fault_of_the_value(
    app: FastAPI, database: Database, way: str, rows: str, value: str
) -> None:
    async with client_of(app) as client:
        # With its escapes: a lone surrogate has no UTF-8.
        answer = await client.post(f"/{way}", content=json.dumps(ROWS[rows](HOSTILE[value])))
    left = await database.reader.scalar(select(func.count()).select_from(THINGS))

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_value")
    assert left == (1 if (way, rows) == ("execute", "last of two") else 0)
    assert database.pool.snapshot().checked_out == 0


class CopiedScope:
    """A middleware that passes a copy of the scope on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(dict(scope), receive, send)


@pytest.mark.parametrize("is_copied", [False, True])
@pytest.mark.parametrize("is_mounted", [False, True])
async def test_an_error_on_an_accepted_websocket_ends_it(
    app: FastAPI, caplog: pytest.LogCaptureFixture, is_copied: bool, is_mounted: bool
) -> None:
    if is_copied:
        app.add_middleware(CopiedScope)
    outer = FastAPI()
    outer.mount("/sub", app)

    @app.websocket("/accepted")
    async def accepted(socket: WebSocket, database: CurrentDatabase) -> None:
        await socket.accept()
        await database.reader.scalar(text("SELECT 1 / :zero"), zero=0)

    @app.websocket("/not_yet")
    async def not_yet(socket: WebSocket, database: CurrentDatabase) -> None:
        await database.reader.scalar(text("SELECT 1 / :zero"), zero=0)

    async with serving(outer if is_mounted else app) as base_url:
        url = base_url.replace("http", "ws") + ("/sub" if is_mounted else "")
        async with websockets.connect(f"{url}/accepted") as socket:
            with pytest.raises(websockets.ConnectionClosedError):
                await socket.recv()
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"{url}/not_yet")

    # The oldest Starlette sends no handler's answer to a WebSocket, and its server ends it.
    is_oldest = fastapi.__version__.startswith("0.115.")
    assert refused.value.response.status_code == (500 if is_oldest else 422)
    assert "Expected ASGI message" not in caplog.text


@pytest.mark.parametrize("way", ["close", "block"])
async def test_a_session_that_a_route_closes_is_told_to_the_log(
    app: FastAPI, database: Database, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/closed")
    async def closed(session: WriteSession) -> None:
        await session.execute(insert(THINGS), GOOD)
        if way == "close":
            await session.close()
        else:
            async with session:
                """As with a session of one's own."""

    @app.post("/read")
    async def read(session: WriteSession) -> None:
        await session.execute(select(THINGS))
        await session.commit()
        await session.close()

    caplog.set_level(logging.WARNING)
    async with client_of(app) as client:
        assert (await client.post("/read")).status_code == 200
        assert not caplog.records
        assert (await client.post("/closed")).status_code == 200

    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert "WriteSession" in warning
    assert await database.reader.scalar(select(func.count()).select_from(THINGS)) == 0
