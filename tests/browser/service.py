"""The application in a uvicorn with two workers, and requests to it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from tests.servers.process import free_port

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0


class Service:
    """A running service.

    Args:
        url: Where, without a slash at the end.
        group: Of its processes.
    """

    def __init__(self, url: str, group: int) -> None:
        self.url = url
        self._group = group
        # Without keep-alive the workers share the requests.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(base_url=url, limits=limits, timeout=30, trust_env=False)

    async def ask(self, path: str) -> httpx.Response:
        """Send one request."""
        return await self._client.get(path)

    async def load(self, path: str, requests: int, at_once: int = 8) -> list[int]:
        """Send many requests, so many at a time, and return their statuses."""
        room = asyncio.Semaphore(at_once)

        async def one() -> int:
            async with room:
                return (await self.ask(quote(path))).status_code

        return await asyncio.gather(*(one() for _ in range(requests)))

    async def state(self, name: str = "default") -> dict[str, Any]:
        """Return what the service says of one database."""
        databases: list[dict[str, Any]] = (await self.ask("/pool/state")).json()["databases"]
        return next(each for each in databases if each["name"] == name)

    async def workers(self) -> list[int]:
        """Return the ids of the workers' processes."""
        return [worker["pid"] for worker in (await self.state())["workers"]]

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Let none of its processes do anything for a block."""
        os.killpg(self._group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._group, signal.SIGCONT)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()


@asynccontextmanager
async def running_service(
    database_url: str, telemetry: Path, *options: str
) -> AsyncIterator[Service]:
    """Run the service for a block.

    Args:
        database_url: Of its database.
        telemetry: Directory for its workers' files.
        options: Of uvicorn, beside those that it always has.
    """
    port = free_port()
    environment = {"LIVE_DATABASE_URL": database_url, "LIVE_TELEMETRY_DIR": str(telemetry)}
    with _uvicorn(environment, "--port", str(port), *options) as process:
        service = Service(f"http://127.0.0.1:{port}", process.pid)
        try:
            await _until_both_answer(service, process)
            yield service
        finally:
            await service.close()


@contextmanager
def _uvicorn(environment: dict[str, str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "uvicorn", "tests.browser.application:create_app"]
    usual = ["--factory", "--workers", "2", "--no-access-log", "--log-level", "critical"]
    process = subprocess.Popen(
        [*command, *usual, *options],
        cwd=_ROOT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


async def _until_both_answer(service: Service, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            assert process.poll() is None, "the service ended"
            with suppress(httpx.TransportError):  # while it does not listen yet
                if len(await service.workers()) == 2:
                    return
            await asyncio.sleep(0.1)
