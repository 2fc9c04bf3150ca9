"""A service whose processes are replaced while it serves, and a balancer in front of them."""

import asyncio
import itertools
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Self

import httpx
import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select, text
from tests.integration.fastapi.notes import Note
from tests.servers.process import free_port

from penstock import Database
from penstock.fastapi import ReadSession, WriteSession, install

GRACE = 60.0


def create_app(url: str, drain_delay: float) -> FastAPI:
    database = Database.from_url(url, environment="testing", application_name="rolling")
    app = FastAPI()
    install(app, database, drain_delay=drain_delay)

    @app.post("/notes/{word}", status_code=201)
    async def create(word: str, session: WriteSession) -> None:
        session.add(Note(text=word))

    @app.get("/count")
    async def count(session: ReadSession) -> int | None:
        return await session.scalar(select(func.count()).select_from(Note))

    @app.get("/slow")
    async def slow(session: ReadSession) -> None:
        await session.execute(text("SELECT pg_sleep(0.5)"))

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            async with database.read() as session:
                while True:
                    yield f"{await session.scalar(select(1))}\n"
                    await asyncio.sleep(0.02)

        return StreamingResponse(lines())

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        async for word in websocket.iter_text():
            await websocket.send_text(word)

    return app


def serve(url: str, port: int, drain_delay: float, graceful: int | None) -> None:
    """Serve, in a process of its own."""
    app = create_app(url, drain_delay)
    uvicorn.run(app, port=port, log_level="warning", timeout_graceful_shutdown=graceful)


# All that a worker imports is imported once.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class Worker:
    """One process of the service, on a port of its own.

    Args:
        url: Of its database.
        drain_delay: As ``install`` has it.
        graceful: Seconds that uvicorn waits for requests at its end; None for no limit.
    """

    def __init__(self, url: str, drain_delay: float, graceful: int | None = None) -> None:
        self.port = free_port()
        self.is_ready = False
        arguments = (url, self.port, drain_delay, graceful)
        self.process = _processes.Process(target=serve, args=arguments, daemon=True)
        self.process.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def look(self) -> None:
        """See whether it is ready, as a balancer does."""
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=5) as client:
                self.is_ready = (await client.get("/health/ready")).status_code == 200
                return
        self.is_ready = False

    async def until_ready(self) -> Self:
        """Wait until it is ready."""
        async with asyncio.timeout(GRACE):
            while not self.is_ready:
                assert self.process.is_alive()
                await asyncio.sleep(0.05)
                await self.look()
        return self

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()

    async def end(self) -> int | None:
        """Wait for its end; return how it exited."""
        await asyncio.to_thread(self.process.join, GRACE)
        return self.process.exitcode


class Balancer:
    """Passes TCP connections on to the workers that were ready when it looked last.

    Attributes:
        workers: Where it may pass them.
        refused: Connections that no worker has accepted; none is tried twice.
    """

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.refused = 0
        self._turns = itertools.count()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve for a block; yields the URL."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        looking = asyncio.create_task(self._look())
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            looking.cancel()
            server.close()

    async def _look(self) -> None:
        while True:
            await asyncio.gather(*(worker.look() for worker in self.workers))
            await asyncio.sleep(0.05)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ready = [worker for worker in self.workers if worker.is_ready]
        async with AsyncExitStack() as stack:
            stack.callback(writer.close)
            try:
                port = ready[next(self._turns) % len(ready)].port
                other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
            except (OSError, ZeroDivisionError):
                self.refused += 1
                return
            stack.callback(other_writer.close)
            ways = (_copy(reader, other_writer), _copy(other_reader, writer))
            await asyncio.wait(
                [asyncio.create_task(way) for way in ways], return_when=asyncio.FIRST_COMPLETED
            )


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
