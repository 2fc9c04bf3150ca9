"""``penstock watch`` at a real service on a real database."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from sqlalchemy import text
from tests.servers.web import serving

from penstock import Database
from penstock.fastapi import ReadSession, install

SECRET = "Bearer hunter2"


def operators_only(request: Request) -> None:
    if request.headers.get("Authorization") != SECRET:
        raise HTTPException(401)


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A pool of up to three connections, whose telemetry is the test's own."""
    database = Database.from_url(
        database_url,
        environment="testing",
        pool_size=1,
        max_overflow=2,
        telemetry_dir=tmp_path,
        slow_query=0.01,
    )
    yield database
    await database.close()


def application(database: Database, **options: Any) -> FastAPI:
    app = FastAPI()
    install(app, database, **options)

    @app.get("/nap")
    async def nap(session: ReadSession) -> str:
        await session.execute(text("SELECT pg_sleep(0.05)"))
        return "rested"

    return app


@contextlib.asynccontextmanager
async def watching(url: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, ended at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock", "watch", url, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "120", "PYTHONUTF8": "1"},
        limit=1 << 24,
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def watch(url: str, *arguments: str) -> tuple[int | None, str, str]:
    async with watching(url, *arguments) as process:
        output, errors = await process.communicate()
        return process.returncode, output.decode(), errors.decode()


async def test_a_frame_shows_what_the_service_did_under_its_prefix(database: Database) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with database:
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/api", application(database))

    async with serving(outer) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(3):
            assert (await client.get("/api/nap")).text == '"rested"'
        async with asyncio.timeout(10):
            while "GET /nap" not in (await client.get("/api/pool/state")).text:
                """The numbers are written once a second."""
        status, told, errors = await watch(f"{url}/api/", "--once")

    assert (status, errors) == (0, "")
    assert " of 3 in use (" in told
    assert "SELECT pg_sleep(" in told
    assert f"pid {os.getpid()}" in told
    (route,) = (line.split() for line in told.splitlines() if line.startswith("GET /nap"))
    assert route[2] == "3"


async def test_documents_go_on_until_ctrl_c(database: Database) -> None:
    async with serving(application(database)) as url, watching(url, "--json") as process:
        assert process.stdout is not None
        first, *later = [json.loads(await process.stdout.readline()) for _ in range(4)]
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()

    assert (process.returncode, errors) == (130, b"")
    moments = [document["at"] for document in later]
    assert moments == sorted(moments)
    assert moments[-1] > moments[0]
    assert first["databases"][0]["name"] == "default"
    seconds = [at for document in later for at in document["databases"][0]["history"]["at"]]
    assert seconds == sorted(set(seconds))  # each is sent once


async def test_what_the_service_guards_wants_a_header(database: Database) -> None:
    async with serving(application(database, access=operators_only)) as url:
        refused = await watch(url, "--once")
        granted = await watch(url, "--once", "--header", f"Authorization: {SECRET}")

    assert (refused[0], refused[1]) == (1, "")
    assert "401 Unauthorized" in refused[2]
    assert "--header" in refused[2]
    assert (granted[0], granted[2]) == (0, "")
    assert " in use (" in granted[1]


async def test_a_service_without_the_routes_is_explained(database: Database) -> None:
    async with serving(application(database, routes=False)) as url:
        status, told, errors = await watch(url, "--once")

    assert (status, told) == (1, "")
    assert "404 Not Found" in errors
    assert "access=" in errors


async def test_a_service_that_stops_is_told_of_and_tried_again(database: Database) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serving(application(database)) as url:
            process = await stack.enter_async_context(watching(url, "--json"))
            assert process.stdout is not None
            assert process.stderr is not None
            for _ in range(2):
                await process.stdout.readline()
        told = [await process.stderr.readline() for _ in range(2)]

    assert told[0].endswith(b"Trying again in 1 s.\n")
    assert b"accepts no connections" in told[1]
    assert told[1].endswith(b"Trying again in 2 s.\n")
