"""One peer as a process: uvicorn with one worker, on a port of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["serving"]

SECONDS_TO_START = 30.0


@contextmanager
def serving(module: str, database_url: str) -> Iterator[str]:
    """Serve ``module:app`` on ``database_url`` for the length of a block.

    Yields:
        The base URL.

    Raises:
        RuntimeError: It did not answer in time; its own output says why.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port)]
    command += ["--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
    environment = os.environ | {"DATABASE_URL": database_url, "ENVIRONMENT": "production"}
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - our own modules
    try:
        _wait_for(f"http://127.0.0.1:{port}/openapi.json", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310 - loopback
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{url} did not answer")
