"""Whether the planner's simulation says of a real pool on a real server what is measured there."""

import asyncio
import math
import os
import statistics
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from random import Random
from typing import Self

from benchmarks.pools import engine_on, fill
from benchmarks.progress import progress
from benchmarks.result import Figures, Result, Target
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.servers.postgres import postgres_server

from penstock import PenstockPool
from penstock.planner import (
    Buckets,
    Durations,
    Exponential,
    Lognormal,
    PoolModel,
    Recorded,
    Simulated,
    Workload,
    poisson,
    simulate,
)
from penstock.pool.events import CheckedIn, CheckedOut, PoolEvent
from penstock.telemetry.schema import BOUNDS, bucket_of

CAPACITY = 200
"""Requests per second that each pool can serve: they cost this process little CPU."""
SLEEP = "SELECT pg_sleep($1)"
KINDS = ("exponential", "lognormal")
P99_OVER_MEAN = 5.0
SEED = 7
CALIBRATION = 0.7
SPREAD = 16
"""Simulations whose spread is the standard error."""
STEADY, REPEATS = 0.97, 2
"""The utilisation above which a run is repeated with the hold that it measured, and how often."""
SHARE_OFF, WAIT_OFF, WAIT_OFF_SECONDS = 0.05, 0.15, 0.0005
RATE_POOL, RATE_OFF = 10, 0.10
P99_WAIT = 0.1
"""Seconds: the largest rate is sought with which 99 % of the requests wait no longer."""
AROUND = (0.92, 1.0, 1.08)


@dataclass(frozen=True)
class Lengths:
    """How long each part takes in seconds, and how many requests are simulated."""

    seconds: dict[float, float]
    """By the utilisation that is aimed at: the higher it is, the slower the queue changes."""
    pools: Sequence[int]
    calibration: float
    rate: float
    simulated: int


LONG = Lengths({0.5: 15.0, 0.75: 20.0, 0.9: 40.0}, (2, 5, 10, 20), 2.0, 40.0, 300_000)
SHORT = Lengths({0.6: 0.7}, (2, 5), 0.3, 0.5, 3_000)


@dataclass(slots=True)
class Request:
    """One request: seconds from the start of its run, and what the pool reported of it."""

    due: float
    asked: float = math.nan
    waited: float = math.nan
    held: float = math.nan


@dataclass(frozen=True)
class Run:
    """What was measured of one pool.

    Args:
        requests: In the order in which they asked.
        pool: Its connections.
    """

    requests: Sequence[Request]
    pool: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.requests) / self.requests[-1].asked

    @property
    def hold(self) -> float:
        """Mean hold in seconds."""
        return statistics.fmean(request.held for request in self.requests)

    def p99(self, what: Callable[[Request], float]) -> float:
        """Return what 99 % of the requests did not exceed."""
        return sorted(map(what, self.requests))[math.ceil(0.99 * len(self.requests)) - 1]

    def mean(self, what: Callable[[Request], float]) -> float:
        """Return a mean over all requests."""
        return statistics.fmean(map(what, self.requests))

    @property
    def utilisation(self) -> float:
        """Share of the connections that is in use, in the mean; above 1.0 the queue only grows."""
        return self.rate * self.hold / self.pool

    def predicted(self, rate: float, simulated: int, seed: int = SEED) -> Simulated:
        """Return the simulation of a rate and of what telemetry knows of the holds.

        Args:
            rate: Requests per second.
            simulated: How many requests.
            seed: The source of chance.
        """
        counts = [0] * (len(BOUNDS) + 1)
        for request in self.requests:
            counts[bucket_of(request.held)] += 1
        workload = Workload(poisson(rate), Buckets(BOUNDS, counts, self.hold), simulated)
        return simulate(workload, self._model(), seed=seed)

    def replayed(self) -> Simulated:
        """Return the simulation of the very arrivals and holds that were measured."""
        times = [0.0, *(request.asked for request in self.requests)]
        gaps = Recorded([later - earlier for earlier, later in pairwise(times)])
        holds = Recorded([request.held for request in self.requests])
        return simulate(Workload(gaps, holds, len(self.requests)), self._model())

    def _model(self) -> PoolModel:
        return PoolModel(self.pool, timeout=None)


def run(short: bool) -> Result:
    """Offer Poisson arrivals to real pools, and compare their waits with the simulation's.

    Args:
        short: Whether it is enough to see it work.

    Returns:
        By pool, utilisation and distribution: the measured waits with their standard errors, the
        waits that the simulation predicts from rate and holds as telemetry has them, and those of
        the recorded arrivals and holds; and the largest rate within a 99th percentile.
    """
    lengths = SHORT if short else LONG
    load = os.getloadavg()[0]
    with postgres_server() as server, server.database() as url:
        runs, rates = asyncio.run(_measure(url, lengths))
    compared = {name: Comparison.of(each, lengths.simulated) for name, each in runs.items()}
    columns = {name: each.figures() for name, each in compared.items()}
    figures = {
        what: {name: column[what] for name, column in columns.items()}
        for what in next(iter(columns.values()))
    }
    largest = _largest_rates(rates, lengths.simulated)
    conditions = {
        "capacity_per_second": CAPACITY,
        "seconds_by_utilisation": lengths.seconds,
        "load_average_before": round(load, 1),
        "load_average_after": round(os.getloadavg()[0], 1),
    }
    beside = {"largest rate within the p99": _rate_figures(rates, largest)}
    return Result(
        "planner_accuracy", conditions, figures, _targets(list(compared.values()), largest), beside
    )


@dataclass(frozen=True)
class Mean:
    """A mean that was measured, and what was expected.

    Args:
        measured: The mean.
        error: Its standard error: what chance does to a mean of so many requests, by the spread
            of simulations. Means of batches would say less: a long queue outlives a batch.
        predicted: Expected of what telemetry knows: the rate, the mean and the histogram of holds.
        replayed: Expected of the arrivals and holds that were recorded.
    """

    measured: float
    error: float
    predicted: float
    replayed: float

    def off_replayed(self) -> float:
        """Return how far the replay is off."""
        return abs(self.replayed - self.measured)

    def off_predicted(self) -> float:
        """Return how far the prediction is off beyond what chance does to the measurement."""
        return max(0.0, abs(self.predicted - self.measured) - 2 * self.error)

    def figures(self, name: str, scale: float) -> dict[str, float]:
        """Return it for the reader."""
        numbers = {
            name: self.measured,
            f"{name}_error": self.error,
            f"{name}_predicted": self.predicted,
            f"{name}_replayed": self.replayed,
        }
        return {what: round(scale * value, 3) for what, value in numbers.items()}


@dataclass(frozen=True)
class Comparison:
    """What was measured in one run, beside what the simulation says of it.

    Args:
        run: The run.
        probability: Share of the requests that waited.
        wait: Mean wait in seconds.
    """

    run: Run
    probability: Mean
    wait: Mean

    @classmethod
    def of(cls, run: Run, simulated: int) -> Self:
        """Simulate a run.

        Args:
            run: What was measured.
            simulated: Requests of the prediction.
        """
        predicted, replayed = run.predicted(run.rate, simulated), run.replayed()
        others = [run.predicted(run.rate, len(run.requests), seed) for seed in range(SPREAD)]

        def mean(measured: Callable[[Request], float], of: Callable[[Simulated], float]) -> Mean:
            spread = statistics.stdev(map(of, others))
            return Mean(run.mean(measured), spread, of(predicted), of(replayed))

        return cls(
            run,
            mean(lambda request: request.waited > 0, lambda found: found.wait_probability),
            mean(_waited, lambda found: found.wait.mean),
        )

    def figures(self) -> dict[str, float]:
        """Return it for the reader."""
        run = self.run
        return {
            "requests": len(run.requests),
            "utilisation": round(run.utilisation, 3),
            "hold_ms": round(1000 * run.hold, 2),
            "generator_late_p99_ms": round(1000 * run.p99(lambda each: each.asked - each.due), 2),
            **self.probability.figures("wait_share", 1.0),
            **self.wait.figures("wait_ms", 1000.0),
        }

    def is_near(self, off: float) -> bool:
        """Return whether the mean wait is off by no more than was promised."""
        return off <= max(WAIT_OFF * self.wait.measured, WAIT_OFF_SECONDS)


def _targets(compared: Sequence[Comparison], largest: Mapping[str, float]) -> dict[str, Target]:
    ways = {"replayed": Mean.off_replayed, "predicted": Mean.off_predicted}
    targets = {}
    for way, off in ways.items():
        shares = round(max(off(each.probability) for each in compared), 3)
        far = sum(not each.is_near(off(each.wait)) for each in compared)
        targets[f"wait_share_off_{way}"] = Target(shares, at_most=SHARE_OFF)
        targets[f"mean_waits_missed_{way}"] = Target(far, at_most=0)
    rate_off = abs(largest["predicted"] / largest["measured"] - 1)
    return targets | {"largest_rate_off": Target(round(rate_off, 3), at_most=RATE_OFF)}


# The largest rate.


def _largest_rate(run: Run, simulated: int) -> float:
    """Return the largest rate at which 99 % wait no longer than ``P99_WAIT``, by the simulation."""
    low, high = 0.0, run.pool / run.hold
    for _ in range(12):
        middle = (low + high) / 2
        if run.predicted(middle, simulated).wait.p99 > P99_WAIT:
            high = middle
        else:
            low = middle
    return low


def _largest_rates(runs: Sequence[Run], simulated: int) -> dict[str, float]:
    # The 99th percentile grows about exponentially with the rate, as far as the runs are apart.
    logarithms = [math.log(max(run.p99(_waited), 1e-4)) for run in runs]
    line = statistics.linear_regression(logarithms, [run.rate for run in runs])
    measured = line.slope * math.log(P99_WAIT) + line.intercept
    whole = Run([each for run in runs for each in run.requests], runs[0].pool)
    return {"measured": measured, "predicted": _largest_rate(whole, simulated // 3)}


def _rate_figures(runs: Sequence[Run], largest: Mapping[str, float]) -> Figures:
    waits = {f"{run.rate:.1f} per second": round(1000 * run.p99(_waited), 2) for run in runs}
    rates = {way: round(rate, 1) for way, rate in largest.items()}
    return {"p99_wait_ms": waits, "rate_with_100_ms": rates}


def _waited(request: Request) -> float:
    return request.waited


# The measurement.

_current: ContextVar[Request] = ContextVar("_current")


def _record(event: PoolEvent) -> None:
    request = _current.get(None)
    if request is None:
        return
    if isinstance(event, CheckedOut):
        request.waited = event.waited
    elif isinstance(event, CheckedIn):
        request.held = event.held


@asynccontextmanager
async def _pool(url: str, connections: int) -> AsyncIterator[AsyncEngine]:
    settings = {"pool_size": connections, "max_overflow": 0, "pool_timeout": None}
    async with engine_on(url, "penstock", isolation_level="AUTOCOMMIT", **settings) as engine:
        await fill(engine, connections)
        PenstockPool.of(engine).listeners.add(_record)
        yield engine


async def _measure(url: str, lengths: Lengths) -> tuple[dict[str, Run], list[Run]]:
    runs, rates = {}, []
    cases = [(pool, share) for pool in lengths.pools for share in lengths.seconds]
    with progress("planner_accuracy", len(cases) + len(AROUND)) as advance:
        for number, (pool, share) in enumerate(cases):
            load = Load(pool, KINDS[(number + number // 3) % 2], SEED + number)
            async with _pool(url, pool) as engine:
                trial = await load.offer(engine, CALIBRATION * CAPACITY, lengths.calibration)
                name = f"{pool} at {share:g}, {load.kind}"
                for _ in range(1 + REPEATS):
                    rate = share * pool / trial.hold
                    trial = await load.offer(engine, rate, lengths.seconds[share])
                    if trial.utilisation <= STEADY:
                        break
                runs[name] = trial
            advance()
        load = Load(RATE_POOL, "exponential", SEED)
        async with _pool(url, load.pool) as engine:
            trial = await load.offer(engine, CALIBRATION * CAPACITY, lengths.calibration)
            rate = _largest_rate(trial, lengths.simulated // 10)
            for times in AROUND:
                rates.append(await load.offer(engine, times * rate, lengths.rate))
                advance()
    return runs, rates


@dataclass(frozen=True)
class Load:
    """Poisson arrivals of requests that sleep on the server.

    Args:
        pool: Connections.
        kind: The distribution of the sleeps.
        seed: The same numbers are drawn for each rate.
    """

    pool: int
    kind: str
    seed: int

    async def offer(self, engine: AsyncEngine, rate: float, seconds: float) -> Run:
        """Offer requests, none of which waits for another to arrive, until all are answered.

        Args:
            engine: Has the pool.
            rate: Requests per second.
            seconds: How long they arrive.
        """
        gaps = Random(f"{self.seed} gaps")  # noqa: S311 - the same load in every run
        naps = Random(f"{self.seed} sleeps")  # noqa: S311 - as above
        due = takewhile(lambda at: at < seconds, accumulate(poisson(rate).draws(gaps)))
        sleeps = durations(self.kind, self.pool / CAPACITY).draws(naps)
        requests = [Request(at) for at in due]
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def serve(request: Request, sleep: float) -> None:
            _current.set(request)
            request.waited, request.asked = 0.0, loop.time() - begun
            async with engine.connect() as connection:
                await connection.exec_driver_sql(SLEEP, (sleep,))

        async with asyncio.TaskGroup() as group:
            for request, sleep in zip(requests, sleeps, strict=False):
                await asyncio.sleep(begun + request.due - loop.time())
                group.create_task(serve(request, sleep))
        return Run(requests, self.pool)


def durations(kind: str, mean: float) -> Durations:
    """Return a distribution of durations.

    Args:
        kind: One of ``KINDS``.
        mean: Seconds.
    """
    return Exponential(mean) if kind == "exponential" else Lognormal(mean, P99_OVER_MEAN * mean)
