"""One peer as a process: ``python -m benchmarks.peer_app``.

It is uvicorn with one worker, on a port that the system chooses and standard output tells.
"""

import importlib
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from penstock.fastapi.install import tuned_collector

USAGE = "/usage"


def main() -> None:
    """Serve the application of the module that ``PEER`` names, until standard input closes.

    With ``TUNE_GC=all`` the collector gets Penstock's setting, whoever it is.
    """
    config = uvicorn.Config(
        _make_app(), loop="uvloop", http="httptools", log_level="warning", access_log=False
    )
    with socket.create_server(("127.0.0.1", 0), backlog=config.backlog) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        threading.Thread(target=_end_with_input, daemon=True).start()
        uvicorn.Server(config).run(sockets=[listener])


def _end_with_input() -> None:
    # Which closes with whoever has started this, however that ends.
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _make_app() -> FastAPI:
    app: FastAPI = importlib.import_module(os.environ["PEER"]).app
    app.add_api_route(USAGE, _usage, include_in_schema=False)
    if os.environ.get("TUNE_GC") == "all":
        _tune_after_start(app)
    return app


async def _usage() -> tuple[float, int, int]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw, used.ru_nivcsw


def _tune_after_start(app: FastAPI) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        async with inner(application) as state:
            with tuned_collector():
                yield state

    app.router.lifespan_context = lifespan


if __name__ == "__main__":
    main()
