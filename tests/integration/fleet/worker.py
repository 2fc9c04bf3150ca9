"""A worker process: requests under load, and what becomes of them, until it is told to end."""

import asyncio
import json
import signal
import sys
from contextlib import redirect_stderr
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import bindparam, text

from penstock import Database, query

TASKS = 6
REPORT_INTERVAL = 0.5
SLEEP = query(text("SELECT pg_sleep(:seconds)").bindparams(bindparam("seconds")))


class Worker:
    """The requests of one process.

    Args:
        database: Open.
        seconds: For which the server holds each connection.
    """

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._seconds = seconds
        self.done = 0
        self.longest = 0.0
        self.errors: list[str] = []

    async def serve(self, number: int) -> None:
        """Make requests, by the express lane and by sessions in turn."""
        while True:
            began = monotonic()
            try:
                await (self._read() if number % 2 else self._write())
                self.done += 1
            except Exception as error:  # noqa: BLE001 - whatever reaches a request
                self.errors.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.1)
            self.longest = max(self.longest, monotonic() - began)

    async def _read(self) -> None:
        await self._database.reader.one(SLEEP, seconds=self._seconds)

    async def _write(self) -> None:
        async with self._database.write() as session:
            await session.execute(text(f"SELECT pg_sleep({self._seconds})"))

    def report(self) -> None:
        """Write a line of how it goes."""
        fleet = self._database.fleet
        numbers = {
            "at": monotonic(),
            "done": self.done,
            "errors": self.errors,
            "longest": self.longest,
            "share": None if fleet is None else str(fleet.snapshot()),
        }
        sys.stdout.write(f"{json.dumps(numbers)}\n")
        sys.stdout.flush()


async def main(url: str, seconds: float, settings: dict[str, Any]) -> None:
    """Serve until SIGTERM, then close the database."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Database.from_url(
        url, environment="production", telemetry=False, slow_query="off", **settings
    ) as database:
        worker = Worker(database, seconds)
        tasks = [asyncio.create_task(worker.serve(number)) for number in range(TASKS)]
        while not ended.is_set():
            worker.report()
            await asyncio.wait([asyncio.create_task(ended.wait())], timeout=REPORT_INTERVAL)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        worker.report()


def run(url: str, output: Path, seconds: float, settings: dict[str, Any]) -> None:
    """Be a worker that reports to a file."""
    with output.open("a", buffering=1) as sys.stdout, redirect_stderr(sys.stdout):
        asyncio.run(main(url, seconds, settings))
