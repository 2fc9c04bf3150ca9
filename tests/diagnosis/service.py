"""A service whose routes misbehave on demand: ``python -m tests.diagnosis.service``.

It is given the descriptor of a listening socket and, as the first line of its standard input, the
settings of its databases by name. It ends when its standard input closes.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from penstock import Database, query
from penstock.database import ReadOnlySession
from penstock.fastapi import install, read_session, write_session

GRACEFUL_SECONDS = 5
ONE = query(text("SELECT 1 AS one"))


def create_app(databases: dict[str, dict[str, Any]]) -> FastAPI:
    """Return the application, with the same routes for each database, below its name.

    Args:
        databases: Their settings, ``url`` among them, by name.
    """
    kept: list[AsyncSession] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for session in kept:
            await session.close()

    app = FastAPI(lifespan=lifespan)
    for name, settings in databases.items():
        database = Database.from_url(**settings, environment="testing")
        install(app, database, name=name)
        _add_good_routes(app, name, database)
        _add_bad_routes(app, name, database, kept)
    return app


def _add_good_routes(app: FastAPI, name: str, database: Database) -> None:
    @app.get(f"/{name}/express/{{times}}")
    async def express(times: int) -> None:
        for _ in range(times):
            await database.reader.one(ONE)

    @app.get(f"/{name}/session/{{times}}")
    async def session(
        times: int, session: Annotated[ReadOnlySession, Depends(read_session(name))]
    ) -> None:
        for _ in range(times):
            await session.execute(text("SELECT 1"))

    @app.post(f"/{name}/notes")
    async def note(session: Annotated[AsyncSession, Depends(write_session(name))]) -> None:
        await session.execute(text("INSERT INTO notes (text) VALUES ('noted')"))


def _add_bad_routes(app: FastAPI, name: str, database: Database, kept: list[AsyncSession]) -> None:
    @app.get(f"/{name}/hold/{{seconds}}")
    async def hold(
        seconds: float, session: Annotated[ReadOnlySession, Depends(read_session(name))]
    ) -> None:
        await session.execute(text("SELECT pg_sleep(:seconds)").bindparams(seconds=seconds))

    @app.get(f"/{name}/rest/{{seconds}}")
    async def rest(
        seconds: float, session: Annotated[AsyncSession, Depends(write_session(name))]
    ) -> None:
        await session.execute(text("SELECT 1"))
        await asyncio.sleep(seconds)

    @app.get(f"/{name}/keep")
    async def keep() -> None:
        session = AsyncSession(database.engine)
        await session.execute(text("SELECT 1"))
        kept.append(session)

    @app.get(f"/{name}/block/{{seconds}}")
    async def block(seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this is what is wrong with it


def main() -> None:
    """Serve until standard input closes."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    app = create_app(json.loads(sys.stdin.readline()))
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=60,  # far from where the client gives its connections up
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    threading.Thread(target=_end_with_input, daemon=True).start()
    uvicorn.Server(config).run(sockets=[listener])


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
