"""What the demo measured, for people and for programs, and where it tells of it."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from penstock.load import LoadResult, figures_table


class Terminal(Console):
    """Standard output, which may go away before the demo does."""

    def on_broken_pipe(self) -> None:
        """Let the error out, so that everything is put away; rich would end the process here."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


_LOOK_EVERY = 0.2


@dataclass(slots=True)
class PoolPeaks:
    """The highest numbers that ``/pool-stats`` showed, each of one worker at one moment.

    Args:
        samples: Answers that were looked at.
        size: Connections that a worker's pool keeps.
        limit: Connections that it may have open.
        checked_out: Most connections that were checked out at once.
        overflow: Most connections above ``size``.
        utilisation: Largest share of ``limit`` that was checked out, from 0.0 to 1.0.
    """

    samples: int = 0
    size: int = 0
    limit: int = 0
    checked_out: int = 0
    overflow: int = 0
    utilisation: float = 0.0

    def add(self, pool: dict[str, float]) -> None:
        """Count one reading."""
        self.samples += 1
        self.size = int(pool["size"])
        self.limit = int(pool["limit"])
        self.checked_out = max(self.checked_out, int(pool["checked_out"]))
        self.overflow = max(self.overflow, int(pool["overflow"]))
        self.utilisation = max(self.utilisation, pool["utilisation"])


@asynccontextmanager
async def watch_pool(ask: Callable[[str], Awaitable[Any]]) -> AsyncIterator[PoolPeaks]:
    """Look at ``/pool-stats`` again and again while the block runs.

    Args:
        ask: Returns the JSON under a path, or None where there was no good answer.
    """
    peaks = PoolPeaks()

    async def look() -> None:
        while True:
            if answer := await ask("/pool-stats"):
                peaks.add(answer["default"])
            await asyncio.sleep(_LOOK_EVERY)

    looking = asyncio.create_task(look())
    try:
        yield peaks
    finally:
        looking.cancel()
        await asyncio.wait([looking])


_DECIMALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFigures:
    """The outcome of a demo.

    Args:
        database: What the users were kept in.
        server_version: Its version.
        workers: Processes that served.
        users: Users at the start of the load run.
        clients: Requests under way at once.
        start_seconds: From nothing to the first answer of the service.
        load: The load run.
        pool: The workers' pools during it.
    """

    database: str
    server_version: str
    workers: int
    users: int
    clients: int
    start_seconds: float
    load: LoadResult
    pool: PoolPeaks

    @property
    def flawless(self) -> bool:
        """Whether every request succeeded."""
        return self.load.total.successes == self.load.total.requests

    def as_json(self) -> dict[str, Any]:
        """Return everything as values that JSON knows; durations in the unit of their name."""
        return {
            "database": {"kind": self.database, "server_version": self.server_version},
            "workers": self.workers,
            "users": self.users,
            "clients": self.clients,
            "start_seconds": round(self.start_seconds, _DECIMALS),
            "seconds": round(self.load.seconds, _DECIMALS),
            **self.load.total.as_json(),
            "kinds": {name: figures.as_json() for name, figures in self.load.kinds.items()},
            "pool": asdict(self.pool),
        }


def report(figures: DemoFigures) -> Iterator[Table | str]:
    """Yield what to print: a table of the load run, then a line about the pools."""
    load, pool = figures.load, figures.pool
    title = (
        f"{load.total.requests:,} requests in {load.seconds:.1f} s, {figures.clients} at once; "
        "latencies in ms"
    )
    yield figures_table(load, title)
    yield from (f"Errors: {error}, {count:,} times" for error, count in load.total.errors.items())
    yield (
        f"Pool of a worker: {pool.size} connections and up to {pool.limit - pool.size} more; "
        f"{pool.checked_out} checked out at once at most ({pool.utilisation:.0%} of {pool.limit}), "
        f"as seen in {pool.samples} looks at /pool-stats"
    )
