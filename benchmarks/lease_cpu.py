"""What a lease of an idle connection costs through SQLAlchemy."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.pools import engine_on, fill
from benchmarks.workers import Turn, Worker, measure_in_turns
from sqlalchemy.pool import Pool
from sqlalchemy.util import greenlet_spawn

from penstock.pool import Holder, current_holder
from penstock.telemetry import Telemetry

# A request's way from the server to its query has about as many frames below it.
FRAMES_BELOW = 20


@dataclass(frozen=True)
class Subject:
    """Whose leases are measured.

    Args:
        pool: Name of the pool.
        settings: What is not at its default.
        connections: How many are idle.
        rest: Seconds for which every connection is left alone before each lease of all of them;
            0 to hand out without a break.
        is_counted: Whether telemetry counts the leases, as those of a request.
    """

    pool: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    connections: int = 5
    rest: float = 0.0
    is_counted: bool = False


def measure_loans(
    database_url: str,
    subjects: Mapping[str, Subject],
    rounds: int,
    leases: int,
    advance: Callable[[], None],
) -> dict[str, list[float]]:
    """Measure all subjects in turn, each pool in a process of its own.

    Args:
        database_url: Where they connect to.
        subjects: Whom to measure, by name.
        rounds: How often each has its turn.
        leases: Leases in one turn.
        advance: Called after each round.

    Returns:
        Microseconds of CPU per lease in each round, by name.
    """
    workers = []
    for pool in {subject.pool: None for subject in subjects.values()}:
        theirs = {name: subject for name, subject in subjects.items() if subject.pool == pool}
        workers.append(Worker(tuple(theirs), _open, (database_url, theirs, leases)))
    return measure_in_turns(workers, rounds, advance)


@asynccontextmanager
async def _open(
    database_url: str, subjects: dict[str, Subject], leases: int
) -> AsyncIterator[Mapping[str, Turn]]:
    async with AsyncExitStack() as stack:
        turns: dict[str, Turn] = {}
        for name, subject in subjects.items():
            opening = engine_on(database_url, subject.pool, **subject.settings)
            engine = await stack.enter_async_context(opening)
            await fill(engine, subject.connections)
            if subject.is_counted:
                stack.enter_context(_counted(engine.sync_engine.pool))
            turns[name] = partial(_loan_us, engine.sync_engine.pool, subject, leases, FRAMES_BELOW)
        yield turns


@contextmanager
def _counted(pool: Any) -> Iterator[None]:
    with TemporaryDirectory() as directory:
        telemetry = Telemetry("leases", Path(directory))
        telemetry.start(lambda: pool)
        yield
        telemetry.stop()


async def _loan_us(pool: Pool, subject: Subject, leases: int, frames_below: int) -> float:
    if frames_below:
        return await _loan_us(pool, subject, leases, frames_below - 1)
    batch = subject.connections if subject.rest else leases
    seconds = 0.0

    def checkout() -> None:
        nonlocal seconds
        for _ in range(leases // batch):
            time.sleep(subject.rest)
            begun = time.thread_time()
            for _ in range(batch):
                pool.connect().close()
            seconds += time.thread_time() - begun

    gc.collect()
    if subject.is_counted:
        current_holder.set(Holder(partial("{} {}".format, "GET", "/users/{user_id}")))
    await greenlet_spawn(checkout)
    begun = time.thread_time()
    await asyncio.sleep(0)  # what a lease leaves to the event loop's next turn is its cost too
    return (seconds + time.thread_time() - begun) / leases * 1e6
