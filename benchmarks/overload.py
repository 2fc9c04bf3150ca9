"""What is still answered when half as much again is asked for as can be served."""

import asyncio
import gc
import math
import time
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.pools import POOLS, engine_on, fill, turns
from benchmarks.progress import progress
from benchmarks.result import Figures, Result, Target, medians
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.servers.postgres import postgres_server

CONNECTIONS = 10
# Held for so long that a few hundred a second are all there is: the load costs little CPU.
QUERY = "SELECT pg_sleep(0.02)"
PATIENCE = 0.5
OVERLOAD, RECOVERY = 1.5, 0.5
HEALTHY_LATENCY = 0.1
HEALTHY_FOR = 1.0
SETTINGS: dict[str, dict[str, Any]] = {
    "penstock": {"codel_target": 0.005, "codel_interval": 0.1},
    "stock": {},
}


@dataclass(frozen=True)
class Lengths:
    """How often and how long, in seconds, each phase runs."""

    rounds: int
    capacity: float
    overload: float
    recovery: float


LONG = Lengths(3, 3.0, 10.0, 5.0)
SHORT = Lengths(1, 0.3, 0.6, 0.4)


@dataclass
class Request:
    """One arrival: when it was due, when it was over, and whether with an answer."""

    due: float
    over: float = math.inf
    outcome: str = "unfinished"

    @property
    def latency(self) -> float:
        """Seconds from when it was due; infinite without an answer."""
        return self.over - self.due if self.outcome == "answered" else math.inf


@dataclass(frozen=True)
class Turn:
    """One pool's turn.

    Args:
        capacity: Leases per second of a closed loop.
        overload_end: When the offered load fell below the capacity.
        requests: Those of the overload and those of the recovery.
        cpu_share: Share of one core that this process used during the overload.
        left_errors: Errors that nobody awaited, such as those of connections cut off in a query.
    """

    capacity: float
    overload_end: float
    requests: list[Request]
    cpu_share: float
    left_errors: int

    def figures(self, seconds: float) -> dict[str, float]:
        """Return what the turn showed, the overload having lasted ``seconds``."""
        during = [r for r in self.requests if r.due < self.overload_end]
        answered = sorted(r.latency for r in during if r.outcome == "answered")
        in_time = sum(r.outcome == "answered" and r.over < self.overload_end for r in during)
        return {
            "capacity_per_second": self.capacity,
            "offered_per_second": len(during) / seconds,
            "goodput_share": in_time / seconds / self.capacity,
            "p99_ms": 1000 * answered[math.ceil(0.99 * len(answered)) - 1]
            if answered
            else math.inf,
            "seconds_until_healthy": self.seconds_until_healthy(),
            "refused": sum(r.outcome == "refused" for r in during),
            "gave_up": sum(r.outcome == "gave up" for r in during),
            "failed": sum(r.outcome == "failed" for r in during),
            "left_errors": self.left_errors,
            "cpu_share": self.cpu_share,
        }

    def seconds_until_healthy(self) -> float:
        """Return when the first second without a slow or unanswered request began."""
        after = [r for r in self.requests if r.due >= self.overload_end]
        last_due = max((r.due for r in after), default=self.overload_end)
        healthy_since = self.overload_end
        for request in after:
            if request.due > healthy_since + HEALTHY_FOR:
                break
            if request.latency > HEALTHY_LATENCY:
                healthy_since = request.due
        return healthy_since - self.overload_end if last_due > healthy_since else math.inf


def run(short: bool) -> Result:
    """Offer more than the capacity, then half of it, to both pools in turn.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        By pool the medians of: the capacity; how much of it was answered in time; the latency of
        the answers; when the first healthy second after the overload began; what became of the
        others.
    """
    lengths = SHORT if short else LONG
    with postgres_server() as server, server.database() as url:
        measured = asyncio.run(_measure(url, lengths))
    figures = medians(measured)
    conditions = {
        "connections": CONNECTIONS,
        "offered_share": OVERLOAD,
        "patience_seconds": PATIENCE,
        "rounds": lengths.rounds,
        "seconds": lengths.overload,
    }
    return Result("overload", conditions, figures, _targets(figures))


def _targets(figures: Figures) -> dict[str, Target]:
    ours = {name: by["penstock"] for name, by in figures.items()}
    return {
        "goodput_share": Target(ours["goodput_share"], at_least=0.95),
        "p99_ms": Target(ours["p99_ms"], at_most=100.0),
        "seconds_until_healthy": Target(ours["seconds_until_healthy"], at_most=1.0),
    }


async def _measure(url: str, lengths: Lengths) -> dict[str, list[dict[str, float]]]:
    measured: dict[str, list[dict[str, float]]] = {pool: [] for pool in POOLS}
    order = turns(lengths.rounds)
    settings = {
        "pool_size": CONNECTIONS,
        "max_overflow": 0,
        "pool_timeout": PATIENCE,
        "isolation_level": "AUTOCOMMIT",
    }
    with progress("overload", len(order)) as advance:
        for number, pool in enumerate(order):
            async with engine_on(url, pool, **settings, **SETTINGS[pool]) as engine:
                await fill(engine, CONNECTIONS)
                capacity = await _capacity(engine, lengths.capacity)
                # Both pools of a round see the same arrivals, relative to what each can serve.
                random = Random(number // len(POOLS))  # noqa: S311 - load, no secret
                turn = await _overload(engine, capacity, lengths, random)
            measured[pool].append(turn.figures(lengths.overload))
            advance()
    return measured


async def _capacity(engine: AsyncEngine, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    leases = 0

    async def work() -> None:
        nonlocal leases
        while loop.time() < begun + seconds:
            async with engine.connect() as connection:
                await connection.exec_driver_sql(QUERY)
            leases += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())
    return leases / (loop.time() - begun)


async def _overload(engine: AsyncEngine, capacity: float, lengths: Lengths, random: Random) -> Turn:
    loop = asyncio.get_running_loop()
    left_errors: list[object] = []
    loop.set_exception_handler(lambda _, context: left_errors.append(context))
    requests: list[Request] = []
    async with asyncio.TaskGroup() as group:

        async def offer(rate: float, begun: float, seconds: float) -> float:
            cpu, due = time.process_time(), begun
            while (due := due + random.expovariate(rate)) < begun + seconds:
                await asyncio.sleep(due - loop.time())
                requests.append(Request(due))
                group.create_task(_request(engine, requests[-1]))
            return (time.process_time() - cpu) / seconds

        begun = loop.time()
        end = begun + lengths.overload
        cpu_share = await offer(OVERLOAD * capacity, begun, lengths.overload)
        await offer(RECOVERY * capacity, end, lengths.recovery)
    gc.collect()  # an error that nobody awaited is told when it is collected
    return Turn(capacity, end, requests, cpu_share, len(left_errors))


async def _request(engine: AsyncEngine, request: Request) -> None:
    try:
        async with asyncio.timeout_at(request.due + PATIENCE), engine.connect() as connection:
            await connection.exec_driver_sql(QUERY)
    except exc.TimeoutError:
        request.outcome = "refused"
    except TimeoutError:
        request.outcome = "gave up"
    except exc.SQLAlchemyError:
        request.outcome = "failed"
    else:
        request.outcome = "answered"
    request.over = asyncio.get_running_loop().time()
