"""What one read costs its client: checking out, one round trip for one row, and giving back."""

import gc
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvloop
from benchmarks.dataset import roomy_server, users_database
from benchmarks.progress import progress
from benchmarks.readers import READERS, Read
from benchmarks.result import Figures, Ratio, Result, median
from benchmarks.workers import Turn, Worker, measure_in_turns


@dataclass(frozen=True)
class Lengths:
    """Rounds, and reads in each."""

    rounds: int
    reads: int


LONG = Lengths(rounds=100, reads=1000)
SHORT = Lengths(rounds=2, reads=200)


def run(short: bool) -> Result:
    """Measure each way to read in a process of its own, in turn, on uvloop.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Microseconds of the client's CPU per read, one after the other; medians of the rounds and
        their ratios with the spread.
    """
    lengths = SHORT if short else LONG
    with (
        roomy_server() as server,
        users_database(server) as url,
        progress("lane_cpu", lengths.rounds) as advance,
    ):
        workers = [
            Worker((name,), _open, (name, url, lengths.reads), uvloop.new_event_loop)
            for name in READERS
        ]
        measured = measure_in_turns(workers, lengths.rounds, advance)
    bare = Ratio.of(measured["reader"], measured["bare_connection"])
    pooled = Ratio.of(measured["reader"], measured["asyncpg_pool"])
    return Result(
        "lane_cpu",
        {"rounds": lengths.rounds, "reads_per_round": lengths.reads},
        _figures(measured),
        {
            "reader_over_bare_connection": bare.target(at_most=1.35),
            "reader_over_asyncpg_pool": pooled.target(at_most=0.55),
        },
        charts=("read_us",),
    )


def _figures(measured: Mapping[str, Sequence[float]]) -> Figures:
    figures: dict[str, dict[str, Any]] = {
        "read_us": {name: median(each, 2) for name, each in measured.items()},
        "read_us_range": {
            name: [round(min(each), 2), round(max(each), 2)] for name, each in measured.items()
        },
    }
    for base in ("bare_connection", "asyncpg_pool", "asyncpg_pool_without_reset"):
        ratios = {name: Ratio.of(each, measured[base]) for name, each in measured.items()}
        figures[f"times_{base}"] = {name: ratio.median for name, ratio in ratios.items()}
        figures[f"times_{base}_range"] = {n: list(ratio.spread) for n, ratio in ratios.items()}
    return figures


@asynccontextmanager
async def _open(name: str, url: str, reads: int) -> AsyncIterator[Mapping[str, Turn]]:
    async with READERS[name](url) as read:
        yield {name: partial(_read_us, read, reads)}


async def _read_us(read: Read, reads: int) -> float:
    gc.collect()
    begun = time.process_time()
    for user_id in range(1, reads + 1):
        await read(user_id)
    return (time.process_time() - begun) / reads * 1e6
