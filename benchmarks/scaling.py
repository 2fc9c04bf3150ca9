"""What a second worker of a service adds, and what it costs the first one."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contest import RATE, Contest, Lengths, contest
from benchmarks.dataset import roomy_server, users_database
from benchmarks.http_load import CLIENTS
from benchmarks.http_read import READ
from benchmarks.progress import progress
from benchmarks.result import Result, Target
from benchmarks.service import Peer, on_cores

CORES_NEEDED = 4
ARRIVALS = 150.0
"""Per second and worker, where the cores cannot be told apart: far less than what is saturated."""
LONG = Lengths(generations=4, rounds=4, seconds=3.0, warm_up=1.0)
SHORT = Lengths(generations=1, rounds=1, seconds=0.2, warm_up=0.1)


@dataclass(frozen=True)
class Cores:
    """Who runs on which cores; empty for any.

    Args:
        workers: Each of the two.
        database: All of its processes.
        driver: The client that loads the workers.
    """

    workers: tuple[Collection[int], Collection[int]] = ((), ())
    database: Collection[int] = ()
    driver: Collection[int] = ()

    @property
    def are_apart(self) -> bool:
        """Whether nobody is slowed down by another's work."""
        return bool(self.driver)


def cores() -> Cores:
    """Return who is to run where: all apart where there are enough cores."""
    every = physical_cores()
    if len(every) < CORES_NEEDED:
        return Cores()
    first, second, driver, *database = every
    return Cores(({first}, {second}), set(database), {driver})


def physical_cores() -> list[int]:
    """Return one processor of each core that this process may run on; none where Linux is not."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    processors = sorted(os.sched_getaffinity(0), reverse=True)
    return sorted({threads_of(number): number for number in processors}.values())


def threads_of(processor: int) -> str:
    """Return the processors that are threads of one core with this one, which they slow down."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    return siblings.read_text() if siblings.exists() else str(processor)


def run(short: bool) -> Result:
    """Measure the express route with one worker and with two, in turn.

    Where everybody has cores of their own, both are saturated, and two workers have to answer
    nearly twice as much. Where there are fewer cores the throughput of two workers is not what they
    can do but what is left to them; then requests arrive at a fixed rate for each worker, and a
    request has to cost as little CPU as with one.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        Medians of CPU, waits and preemptions per request, of latency and of requests per second,
        for one and two workers.
    """
    lengths, placed = SHORT if short else LONG, cores()
    traffic = READ if placed.are_apart else replace(READ, rate=ARRIVALS)
    with (
        TemporaryDirectory() as directory,
        on_cores(placed.database),
        roomy_server() as server,
        users_database(server) as url,
        on_cores(placed.driver),
        progress("workers", lengths.turns(2)) as advance,
    ):
        peers = _peers(placed, Path(directory))
        read = contest(peers, {"read": traffic}, lengths, url, advance)["read"]
    return Result(
        "workers",
        {**_conditions(placed), "rounds": lengths.turns(1), "seconds": lengths.seconds},
        {
            RATE: read.medians(RATE, 0),
            f"{RATE}_range": read.ranges(RATE, 0),
            "server_us": read.medians("server_us", 1),
            "server_us_range": read.ranges("server_us", 1),
            "waits_per_request": read.medians("waits", 3),
            "preemptions_per_request": read.medians("preemptions", 3),
            "p50_ms": read.medians("p50_ms", 2),
            "p99_ms": read.medians("p99_ms", 2),
        },
        _targets(read, placed),
        charts=(RATE, "server_us"),
    )


def _peers(placed: Cores, directory: Path) -> Mapping[str, Peer]:
    # The two share their telemetry, as the workers of one supervisor do.
    return {
        name: Peer(
            "express",
            environment={"DATABASE_TELEMETRY_DIR": str(directory / name)},
            workers=placed.workers[:count],
        )
        for count, name in enumerate(("one", "two"), 1)
    }


def _conditions(placed: Cores) -> Mapping[str, Any]:
    known = {"cores_to_pin": len(physical_cores()), "needed_for_throughput": CORES_NEEDED}
    if placed.are_apart:
        return {**known, "throughput": "measured", "clients_per_worker": CLIENTS}
    return {
        **known,
        "throughput": "not measured: too few cores, so CPU per request at a fixed rate instead",
        "arrivals_per_second_and_worker": ARRIVALS,
    }


def _targets(read: Contest, placed: Cores) -> Mapping[str, Target]:
    if placed.are_apart:
        return {"two_times_one": read.target("two", "one", at_least=1.9)}
    return {"cpu_of_one_over_two": read.target("one", "two", "server_us", at_least=0.95)}
