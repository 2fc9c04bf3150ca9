"""What a loan of an idle connection costs through SQLAlchemy, each pool in a process of its own.

Python's interpreter adapts SQLAlchemy's code to the class of the pool that it meets: two classes in
one process would slow each other down, as they never do in a service.
"""

import asyncio
import contextlib
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.pools import engine_on, fill
from sqlalchemy.pool import Pool
from sqlalchemy.util import greenlet_spawn

__all__ = ["Subject", "measure_loans"]

# A request's way from the server to its query has about as many frames below it.
FRAMES_BELOW = 20
ROUNDS_PER_PROCESS = 20


@dataclass(frozen=True)
class Subject:
    """Whose loans are measured.

    Args:
        pool: Name of the pool.
        settings: What is not at its default.
        connections: How many are idle.
        rest: Seconds for which every connection is left alone before each loan of all of them;
            0 to lend without a break.
    """

    pool: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    connections: int = 5
    rest: float = 0.0


def measure_loans(
    database_url: str,
    subjects: Mapping[str, Subject],
    rounds: int,
    loans: int,
    advance: Callable[[], None],
) -> dict[str, list[float]]:
    """Measure all subjects in turn.

    Args:
        database_url: Where they connect to.
        subjects: Whom to measure, by name.
        rounds: How often each has its turn. A process is a few percent faster or slower than the
            next for as long as it lives, so that some rounds later there are new ones.
        loans: Loans in one turn.
        advance: Called after each round.

    Returns:
        Microseconds of CPU per loan in each round, by name.
    """
    measured: dict[str, list[float]] = {name: [] for name in subjects}
    for first in range(0, rounds, ROUNDS_PER_PROCESS):
        with _workers(database_url, subjects, loans) as workers:
            for name in subjects:
                _turn(workers, name)  # the process starts, and warms up
            for number in range(first, min(rounds, first + ROUNDS_PER_PROCESS)):
                for name in list(subjects)[:: -1 if number % 2 else 1]:
                    measured[name].append(_turn(workers, name))
                advance()
    return measured


@contextmanager
def _workers(
    database_url: str, subjects: Mapping[str, Subject], loans: int
) -> Iterator[dict[str, Connection]]:
    """Run one process for each pool; yield by subject where its turns are asked for."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for pool in {subject.pool for subject in subjects.values()}:
        theirs = {name: subject for name, subject in subjects.items() if subject.pool == pool}
        ours, other = context.Pipe()
        process = context.Process(target=_work, args=(database_url, theirs, loans, other))
        process.start()
        other.close()
        processes.append(process)
        pipes |= dict.fromkeys(theirs, ours)
    try:
        yield pipes
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(30)


def _turn(workers: Mapping[str, Connection], name: str) -> float:
    workers[name].send(name)
    cost: float = workers[name].recv()
    return cost


def _work(database_url: str, subjects: dict[str, Subject], loans: int, pipe: Connection) -> None:
    asyncio.run(_take_turns(database_url, subjects, loans, pipe))


async def _take_turns(
    database_url: str, subjects: dict[str, Subject], loans: int, pipe: Connection
) -> None:
    async with AsyncExitStack() as stack:
        pools: dict[str, Pool] = {}
        for name, subject in subjects.items():
            opening = engine_on(database_url, subject.pool, **subject.settings)
            engine = await stack.enter_async_context(opening)
            await fill(engine, subject.connections)
            pools[name] = engine.sync_engine.pool
        gc.freeze()  # the modules: to look through them again before each turn takes long
        with contextlib.suppress(EOFError):
            while name := pipe.recv():
                await asyncio.sleep(0)  # whatever the event loop has put off is no loan's cost
                pipe.send(await _loan_us(pools[name], subjects[name], loans, FRAMES_BELOW))


async def _loan_us(pool: Pool, subject: Subject, loans: int, frames_below: int) -> float:
    if frames_below:
        return await _loan_us(pool, subject, loans, frames_below - 1)
    batch = subject.connections if subject.rest else loans
    seconds = 0.0

    def lend() -> None:
        nonlocal seconds
        for _ in range(loans // batch):
            time.sleep(subject.rest)
            begun = time.thread_time()
            for _ in range(batch):
                pool.connect().close()
            seconds += time.thread_time() - begun

    gc.collect()
    await greenlet_spawn(lend)
    begun = time.thread_time()
    await asyncio.sleep(0)  # what a loan leaves to the event loop's next turn is its cost too
    return (seconds + time.thread_time() - begun) / loans * 1e6
