"""A plan held against a real run: what was predicted beside what the service measured."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

from penstock.base_error import PenstockError
from penstock.capacity.service import hold_of, only_database
from penstock.load import Generator, Request, RequestKind, Scenario, run_open_loop
from penstock.planner import HoldTime, Plan, Prediction, fitting_p99
from penstock.watch import Client as Service
from penstock.watch import Part

_SETTLE = 2.5
"""Seconds after the load in which each worker takes a sample and the service's document is made
anew."""
_LATE_SHARE = 0.01
"""Share of late requests from which the 99th percentile is the generator's own."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the requests of a run.

    Args:
        requests: How many were sent.
        successes: Those that were answered with a status below 400.
        p99: 99th percentile of their latency in seconds; None where none was answered.
        generator: How it did itself.
    """

    requests: int
    successes: int
    p99: float | None
    generator: Generator

    @property
    def is_late(self) -> bool:
        """Whether so many requests started late that the load was not the planned one."""
        return self.generator.late > self.requests * _LATE_SHARE


@dataclass(frozen=True, slots=True)
class Measured:
    """What the telemetry of one instance counted during a run.

    Args:
        checkouts: Of all its workers.
        checkouts_per_second: The same, by second.
        workers: How many there were.
        connections: Of each worker's pool.
        utilisation: Mean share of all connections that was checked out.
        waiting_probability: Share of the checkouts that waited.
        mean_wait: Of all checkouts, in seconds.
        wait_p99: 99th percentile of the wait.
        hold: Mean hold time.
        hold_p99: Its 99th percentile.
    """

    checkouts: int
    checkouts_per_second: float
    workers: int
    connections: int
    utilisation: float
    waiting_probability: float
    mean_wait: float
    wait_p99: float
    hold: float
    hold_p99: float

    @classmethod
    def between(cls, before: Part, after: Part, seconds: float) -> "Measured":
        """Return the difference of two looks at a service.

        Args:
            before: The database in the live document before the run.
            after: The same after it.
            seconds: How long the run was.

        Raises:
            PenstockError: No connection was checked out in between.
        """
        grown = _Growth(before, after)
        checkouts, hold = grown.count("checkouts"), hold_of(after)
        if checkouts <= 0 or hold is None:
            raise PenstockError("The requests used no connection: choose another --path")
        workers = after.parts("workers")
        limit = max(each.part("now").count("limit") for each in workers)
        held = grown.seconds("hold")
        mean = held / max(1, grown.durations("hold"))
        return cls(
            checkouts=checkouts,
            checkouts_per_second=checkouts / seconds,
            workers=len(workers),
            connections=limit,
            utilisation=held / seconds / max(1, limit * len(workers)),
            waiting_probability=grown.count("waits") / checkouts,
            mean_wait=grown.seconds("wait") / checkouts,
            wait_p99=after.part("recent").part("wait").number("p99") or 0.0,
            hold=mean,
            hold_p99=fitting_p99(mean, hold[1]),
        )


@dataclass(frozen=True, slots=True)
class _Growth:
    before: Part
    after: Part

    def count(self, name: str) -> int:
        """Return by how much a counter grew."""
        return self.after.part("counters").count(name) - self.before.part("counters").count(name)

    def seconds(self, name: str) -> float:
        """Return the sum of the durations that a histogram got."""
        return _sum(self.after, name) - _sum(self.before, name)

    def durations(self, name: str) -> int:
        """Return how many it got."""
        return _times(self.after, name).count("count") - _times(self.before, name).count("count")


def _times(database: Part, name: str) -> Part:
    return database.part("times").part(name)


def _sum(database: Part, name: str) -> float:
    times = _times(database, name)
    return times.count("count") * (times.number("mean") or 0.0)


@dataclass(frozen=True, slots=True)
class Verification:
    """A run beside what was predicted.

    Args:
        plan: What was planned.
        predicted: For the load and the hold times that were measured: where these differ from the
            plan's, its inputs are wrong; where this differs from ``measured``, its model is.
        measured: By the service.
        sent: By the generator; its percentile has HTTP and the code around the database in it.
    """

    plan: Plan
    predicted: Prediction
    measured: Measured
    sent: Sent

    def rows(self) -> Mapping[str, tuple[float, float, float]]:
        """Return what was planned, predicted for the measured load, and measured, by its name."""
        planned, predicted = self.plan.predicted.queue, self.predicted.queue
        measured, workers = self.measured, self.plan.inputs.workers
        return {
            "checkouts_per_second": (
                planned.load / planned.service * workers,
                measured.checkouts_per_second,
                measured.checkouts_per_second,
            ),
            "hold_time": (planned.service, predicted.service, measured.hold),
            "utilisation": (planned.utilisation, predicted.utilisation, measured.utilisation),
            "waiting_probability": (
                planned.waiting_probability,
                predicted.waiting_probability,
                measured.waiting_probability,
            ),
            "mean_wait": (planned.mean_wait, predicted.mean_wait, measured.mean_wait),
            "wait_p99": (
                planned.wait_quantile(0.99),
                predicted.wait_quantile(0.99),
                measured.wait_p99,
            ),
        }

    @property
    def response_p99(self) -> tuple[float, float, float | None]:
        """The 99th percentile of the response: planned, predicted, and by the generator."""
        return self.plan.predicted.response_p99, self.predicted.response_p99, self.sent.p99


async def verify(
    plan: Plan,
    service: Service,
    path: str,
    *,
    seconds: float,
    random: Random,
    headers: Mapping[str, str],
    database: str | None = None,
) -> Verification:
    """Load one instance of a service as planned, and compare.

    Args:
        plan: Whose rate is divided by its instances.
        service: Where the live document is, and the requests go.
        path: That is asked for; each request checks out as many connections as the plan's.
        seconds: How long.
        random: When each is sent.
        headers: To send with each, by their names.
        database: Whose numbers count, where the service has several.

    Raises:
        PenstockError: The service cannot be reached, or the requests use no connection of it.
        SettingsError: The rate is more than this process can send.
    """

    async def look() -> Part:
        return only_database(await asyncio.to_thread(service.document), database)

    if not path.startswith("/"):
        raise PenstockError(f"--path {path}: a path from the slash on is accepted")
    parts = urlsplit(service.url)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path + path
    before, begun = await look(), time.monotonic()
    sent = await _send(
        origin,
        path,
        per_second=plan.rate / plan.inputs.instances,
        seconds=seconds,
        random=random,
        headers=headers,
    )
    lasted = time.monotonic() - begun
    await asyncio.sleep(_SETTLE)
    measured = Measured.between(before, await look(), lasted)
    hold = HoldTime.of(measured.hold, measured.hold_p99)
    queue = hold.queue(measured.connections, measured.checkouts_per_second / measured.workers)
    predicted = Prediction(
        rate=measured.checkouts_per_second,
        connections=measured.connections,
        queue=queue,
        response_p99=hold.response_quantile(queue),
    )
    return Verification(plan, predicted, measured, sent)


async def _send(
    url: str,
    path: str,
    *,
    per_second: float,
    seconds: float,
    random: Random,
    headers: Mapping[str, str],
) -> Sent:
    """Send GET requests at random times, whether or not others are answered."""
    scenario = Scenario((RequestKind(f"GET {path}", 1, lambda _: Request(path)),))
    result = await run_open_loop(
        url, scenario, random=random, rate=per_second, seconds=seconds, headers=headers
    )
    total = result.total
    p99 = None if total.p99_ms is None else total.p99_ms / 1000
    return Sent(total.requests, total.successes, p99, result.generator)
