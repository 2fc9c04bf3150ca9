"""Turns in processes that do nothing else.

Python's interpreter adapts code to the classes that it meets: two subjects in one process would
slow each other down, as they never do in a service.
"""

import asyncio
import contextlib
import gc
import multiprocessing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

ROUNDS_PER_PROCESS = 20

Turn = Callable[[], Awaitable[float]]
"""Returns what one turn of a subject cost."""


@dataclass(frozen=True)
class Worker:
    """A process with one or more subjects; everything in it can be pickled.

    Args:
        names: Its subjects.
        open: Gives each subject's turn, by name, for the length of a block.
        arguments: Those of ``open``.
        make_loop: Makes its event loop; None for asyncio's.
    """

    names: Sequence[str]
    open: Callable[..., AbstractAsyncContextManager[Mapping[str, Turn]]]
    arguments: tuple[Any, ...]
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None


def measure_in_turns(
    workers: Sequence[Worker], rounds: int, advance: Callable[[], None]
) -> dict[str, list[float]]:
    """Give every subject its turns, all of them once a round and none of them always first.

    Args:
        workers: The processes.
        rounds: How often each has its turn. A process is a few percent faster or slower than the
            next for as long as it lives, so that some rounds later there are new ones.
        advance: Called after each round.

    Returns:
        What each turn cost, by subject.
    """
    names = [name for worker in workers for name in worker.names]
    measured: dict[str, list[float]] = {name: [] for name in names}
    for first in range(0, rounds, ROUNDS_PER_PROCESS):
        with _running(workers) as pipes:
            for name in names:
                _turn(pipes, name)  # the process starts, and warms up
            for number in range(first, min(rounds, first + ROUNDS_PER_PROCESS)):
                for name in names[:: -1 if number % 2 else 1]:
                    measured[name].append(_turn(pipes, name))
                advance()
    return measured


@contextmanager
def _running(workers: Sequence[Worker]) -> Iterator[dict[str, Connection]]:
    """Run one process for each worker; yield by subject where its turns are asked for."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for worker in workers:
        ours, other = context.Pipe()
        process = context.Process(target=_work, args=(worker, other))
        process.start()
        other.close()
        processes.append(process)
        pipes |= dict.fromkeys(worker.names, ours)
    try:
        yield pipes
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(30)


def _turn(pipes: Mapping[str, Connection], name: str) -> float:
    pipes[name].send(name)
    cost: float = pipes[name].recv()
    return cost


def _work(worker: Worker, pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=worker.make_loop) as runner:
        runner.run(_take_turns(worker, pipe))


async def _take_turns(worker: Worker, pipe: Connection) -> None:
    async with worker.open(*worker.arguments) as turns:
        gc.freeze()  # the modules: to look through them again before each turn takes long
        with contextlib.suppress(EOFError):
            while name := pipe.recv():
                await asyncio.sleep(0)  # whatever the event loop has put off is no turn's cost
                pipe.send(await turns[name]())
