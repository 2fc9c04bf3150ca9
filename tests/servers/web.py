"""A real uvicorn on a free port of loopback, for as long as a block lasts."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve ``app``; yields its base URL and fails when its lifespan does."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,
        lifespan="on",
        timeout_keep_alive=60,  # not the client's own limit, at which both would close at once
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(_serve(server, listener))
    try:
        async with asyncio.timeout(30):
            while not server.started:
                if running.done():
                    raise RuntimeError("the application did not start; see its log")
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    with listener:
        try:
            await server.serve(sockets=[listener])
        except SystemExit:  # how uvicorn reports a lifespan that failed to start
            return


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve ``app`` and yield an HTTP client for it."""
    async with (
        serving(app) as base_url,
        httpx.AsyncClient(base_url=base_url, timeout=30, trust_env=False) as client,
    ):
        yield client
