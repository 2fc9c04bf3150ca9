"""Clients that leave, middleware that gives up, tasks that outlive their request."""

import asyncio
import contextlib
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from sqlalchemy import text
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from tests.eventually import eventually
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.errors import SessionClosed
from penstock.fastapi import ReadSession, WriteSession, install


class GivesUp(BaseHTTPMiddleware):
    """The timeout middleware that everybody writes: a 504, while the route goes on."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        try:
            return await asyncio.wait_for(call_next(request), 0.2)
        except TimeoutError:
            return Response("too slow", status_code=504)


@pytest.mark.parametrize("middleware", ["before install", "after install"])
async def test_a_route_that_middleware_gave_up_on_does_not_commit(
    database: Database, onlooker: Onlooker, middleware: str
) -> None:
    app = FastAPI()
    if middleware == "before install":
        app.add_middleware(GivesUp)
    install(app, database)
    if middleware == "after install":
        app.add_middleware(GivesUp)
    ends: list[BaseException] = []

    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="too late"))
        await session.flush()
        try:
            await session.execute(text("SELECT pg_sleep(0.6)"))
            await session.execute(text("SELECT 1"))
        except BaseException as error:
            ends.append(error)
            raise

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == 504
        await eventually(lambda: bool(ends))
        await eventually(lambda: database.pool.snapshot().checked_out == 0)

    assert isinstance(ends[0], SessionClosed | asyncio.CancelledError)
    assert await onlooker.texts() == []
    assert await onlooker.backends("idle in transaction") == 0


async def test_an_explicit_commit_after_the_504_is_refused(
    database: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, database)
    app.add_middleware(GivesUp)
    refused: list[bool] = []

    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="too late"))
        await session.flush()
        await _sleep_through_cancellation(0.6)
        with pytest.raises(SessionClosed):
            await session.commit()
        refused.append(True)

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == 504
        await eventually(lambda: bool(refused))

    assert await onlooker.texts() == []


async def _sleep_through_cancellation(seconds: float) -> None:
    sleeping = asyncio.ensure_future(asyncio.sleep(seconds))
    while not sleeping.done():
        try:
            await asyncio.shield(sleeping)
        except asyncio.CancelledError:
            continue


async def test_a_client_that_leaves_loses_its_answer_and_nothing_else(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="kept"))
        await session.flush()
        await session.execute(text("SELECT pg_sleep(0.5)"))

    async with client_of(app) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/notes", timeout=0.2)
        await eventually(lambda: database.pool.snapshot().checked_out == 0)

    assert await onlooker.texts() == ["kept"]
    assert await onlooker.backends("idle in transaction") == 0


async def test_a_request_that_is_cancelled_rolls_back_and_returns_its_connection(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    started = asyncio.Event()

    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="cancelled"))
        await session.flush()
        started.set()
        await session.execute(text("SELECT pg_sleep(30)"))

    async with (
        database,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        request = asyncio.create_task(client.post("/notes"))
        await started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await eventually(lambda: database.pool.snapshot().checked_out == 0)

    assert await onlooker.texts() == []


async def test_a_statement_still_running_when_the_response_leaves_withdraws_it(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    strays: list[asyncio.Task[Any]] = []

    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="half"))
        await session.flush()
        strays.append(asyncio.create_task(session.execute(text("SELECT pg_sleep(0.3)"))))
        await asyncio.sleep(0.1)

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == 500
        await asyncio.gather(*strays, return_exceptions=True)
        await eventually(lambda: database.pool.snapshot().checked_out == 0)

    assert await onlooker.texts() == []


async def test_a_server_that_dies_during_a_statement_is_a_503(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="lost"))
        await session.flush()
        await onlooker.terminate_others()
        await session.execute(text("SELECT 1"))

    @app.get("/")
    async def again(session: WriteSession) -> Any:
        return await session.scalar(text("SELECT 1"))

    async with client_of(app) as client:
        answer = await client.post("/notes")
        assert answer.status_code == 503
        assert answer.json()["code"] == "database_connection_lost"
        assert (await client.get("/")).json() == 1

    assert await onlooker.texts() == []
    assert database.pool.snapshot().checked_out == 0


async def test_a_statement_that_timed_out_in_the_route_is_not_answered_by_success(
    app: FastAPI, onlooker: Onlooker, database: Database
) -> None:
    @app.post("/notes")
    async def create(session: WriteSession) -> str:
        session.add(Note(text="gone with its connection"))
        await session.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await session.execute(text("SELECT pg_sleep(5)"))
        return "as if nothing had happened"

    async with client_of(app) as client:
        answer = await client.post("/notes")

    assert answer.status_code == 500
    assert await onlooker.texts() == []
    assert database.pool.snapshot().checked_out == 0


async def test_two_reads_at_once_on_one_session_leave_nothing_behind(
    app: FastAPI, onlooker: Onlooker, database: Database
) -> None:
    @app.get("/")
    async def read(session: ReadSession) -> list[str]:
        answers = await asyncio.gather(
            session.execute(text("SELECT pg_sleep(0.1)")),
            session.execute(text("SELECT pg_sleep(0.1)")),
            return_exceptions=True,
        )
        return [type(answer).__name__ for answer in answers]

    async with client_of(app) as client:
        await client.get("/")
        assert (await client.get("/health/ready")).status_code == 200

    assert database.pool.snapshot().checked_out == 0
    assert await onlooker.backends("idle in transaction") == 0
