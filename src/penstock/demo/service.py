"""The users service as the demo runs it: workers behind one socket of the loopback interface.

``python -m penstock.demo.service`` is the process that runs the workers. It is given the descriptor
of a listening socket and the number of workers. It ends when its standard input closes, which
happens when the demo stops it and when the demo is gone.
"""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from penstock.base_error import SettingsError
from penstock.demo.child import Child

_HOST = "127.0.0.1"
_USUAL_PORT = 8000
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_GRACEFUL_SECONDS = 5
_ANSWER_SECONDS = 2.0


def listen(port: int | None) -> socket.socket:
    """Return a listening socket of the loopback interface.

    Args:
        port: Which port; None for 8000, or any free one where that is taken.

    Raises:
        SettingsError: The port that was asked for is taken or not allowed.
    """
    try:
        return socket.create_server((_HOST, port or _USUAL_PORT))
    except OSError as error:
        if port is not None:
            reason = os.strerror(error.errno or 0)
            raise SettingsError(f"--port {port}: {reason}; choose another") from error
        return socket.create_server((_HOST, 0))


class UsersService:
    """The supervisor of the workers, and questions to them.

    Args:
        listener: Where to serve.
        directory: Of its own, for its log; removed by ``stop``.
    """

    def __init__(self, listener: socket.socket, directory: Path) -> None:
        self._listener = listener
        self._address: tuple[str, int] = listener.getsockname()
        self._child = Child("The users service", directory / "service.log")

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        host, port = self._address
        return f"http://{host}:{port}"

    async def start(self, workers: int, environment: Mapping[str, str]) -> None:
        """Start the workers and wait until one of them reaches its database.

        Raises:
            ChildFailed: A worker did not start, or none was ready in time.
        """
        descriptor = self._listener.fileno()
        self._child.start(
            [sys.executable, "-m", "penstock.demo.service", str(descriptor), str(workers)],
            environment=environment,
            pass_fds=[descriptor],
        )
        # From here on a connection is refused once the workers are gone.
        self._listener.close()
        await self._child.until(self._is_ready, _START_SECONDS)

    async def stop(self) -> None:
        """Stop the workers, if they were started."""
        await self._child.stop(_STOP_SECONDS)

    async def end(self) -> None:
        """Wait until the service has ended by itself."""
        await self._child.end()

    async def ask(self, path: str) -> Any:
        """Return the JSON of an answer below 400; None for any other, or where there is none."""
        try:
            return await asyncio.to_thread(_get, self._address, path)
        except (OSError, http.client.HTTPException, ValueError):
            return None

    async def _is_ready(self) -> bool:
        return await self.ask("/health/ready") is not None


def _get(address: tuple[str, int], path: str) -> Any:
    connection = http.client.HTTPConnection(*address, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return json.load(response) if response.status < 400 else None
    finally:
        connection.close()


def main() -> None:
    """Serve until standard input closes, then remove the directory that this was started in."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(
        "penstock.demo.users:create_app",
        factory=True,
        workers=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )
    supervisor = Multiprocess(config, sockets=[listener])
    abandoned = threading.Event()
    threading.Thread(target=_end_with_input, args=[abandoned], daemon=True).start()
    supervisor.run()
    if abandoned.is_set():
        shutil.rmtree(Path.cwd(), ignore_errors=True)


def _end_with_input(abandoned: threading.Event) -> None:
    sys.stdin.buffer.read()
    abandoned.set()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
