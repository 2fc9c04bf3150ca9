"""The service's processes, and what a user sees of them."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_LOOK_EVERY = 5.0

Findings = dict[str, dict[str, dict[str, str]]]
"""What was ever found, as it was said first: by the database's name, by the finding's id."""


class Workers:
    """Workers of one service, each behind a port of its own, so that a test decides who works.

    Args:
        client: Reaches all of them.
        urls: Of each, without a slash at the end.
    """

    def __init__(self, client: httpx.AsyncClient, urls: Sequence[str]) -> None:
        self._client = client
        self.urls = urls

    async def ask(self, path: str, *, worker: int = 0, method: str = "GET") -> int:
        """Send one request to one worker, and return the status of its answer."""
        return (await self._client.request(method, self.urls[worker] + path)).status_code

    async def state(self) -> dict[str, dict[str, Any]]:
        """Return what the service says of each database, by its name."""
        answer = await self._client.get(f"{self.urls[0]}/pool/state")
        return {each["name"]: each for each in answer.json()["databases"]}

    async def look(self, found: Findings) -> None:
        """Add what the service finds now to what was found before."""
        for name, database in (await self.state()).items():
            seen = found.setdefault(name, {})
            for finding in database["findings"]:
                seen.setdefault(finding["id"], finding)


@asynccontextmanager
async def running_workers(
    databases: Mapping[str, Mapping[str, Any]], directory: Path, count: int = 1
) -> AsyncIterator[Workers]:
    """Run the service for a block.

    Args:
        databases: The settings of each, ``url`` among them, by name.
        directory: Of its own; for what the workers count and log.
        count: How many workers.
    """
    telemetry = {"telemetry_dir": str(directory / "telemetry")}
    settings = {name: {**each, **telemetry} for name, each in databases.items()}
    # Given up before the service, which keeps an unused connection for 5 s, closes it.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2)
    async with (
        httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client,
        AsyncExitStack() as stack,
    ):
        logs = [directory / f"worker-{number}.log" for number in range(count)]
        urls = [await stack.enter_async_context(_process(settings, log)) for log in logs]
        yield Workers(client, urls)


async def watched(services: Sequence[Workers], *acts: Coroutine[Any, Any, None]) -> Findings:
    """Look at services again and again while something is done to them.

    Args:
        services: Whose findings are wanted.
        acts: Done at the same time.

    Returns:
        Everything that was ever found.
    """
    found: Findings = {}

    async def look() -> None:
        await asyncio.gather(*(service.look(found) for service in services))

    async def look_on() -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            await look()

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look_on())
        async with asyncio.TaskGroup() as acting:
            for act in acts:
                acting.create_task(act)
        looking.cancel()
    await look()
    return found


@asynccontextmanager
async def _process(settings: Mapping[str, Any], log: Path) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        descriptor = listener.fileno()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.diagnosis.service", str(descriptor)),
            cwd=_ROOT,
            pass_fds=[descriptor],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        await _until_ready(process, url, log)
        yield url
    finally:
        process.stdin.close()
        await _end(process)


async def _until_ready(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    async with (
        asyncio.timeout(_START_SECONDS),
        httpx.AsyncClient(timeout=_START_SECONDS, trust_env=False) as client,
    ):
        while True:
            assert process.returncode is None, await asyncio.to_thread(log.read_text)
            try:
                if (await client.get(f"{url}/health/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                """It has ended, and the log says why."""
            await asyncio.sleep(0.05)


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
