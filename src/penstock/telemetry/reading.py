"""What all workers of one database report at one moment, each by itself and together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import pairwise
from math import floor, isfinite
from typing import TypeVar

from penstock.telemetry.schema import (
    Counters,
    Field,
    Histogram,
    Kind,
    Sample,
    aggregate,
    declare,
    declared,
    largest,
)

NO_ROUTE = "(no route)"
"""The route of connections that are checked out outside requests."""
STATES = ("running", "idle in transaction", "idle")
"""States of a checked-out connection, as ``pg_stat_activity`` calls them."""
SETTLED_AGE = 60.0
"""Seconds after which a worker's start is over. During the start it imports modules, fills caches
and opens connections all at once, which is not a problem."""

# PostgreSQL's default of superuser_reserved_connections.
_RESERVED = 3


def _count(unit: str, description: str) -> int:
    return declare(0, Field(Kind.COUNTER, description, unit))


def _most(unit: str, description: str) -> int:
    return declare(0, Field(Kind.PEAK, description, unit, aggregation=max))


def _sum(description: str) -> float:
    return declare(0.0, Field(Kind.COUNTER, description, "s"))


def _latest(description: str) -> float:
    return declare(0.0, Field(Kind.PEAK, description, "s", aggregation=largest))


@dataclass(frozen=True, slots=True)
class RouteUse:
    """How one route uses connections.

    Args:
        route: Its method and pattern, or ``(no route)``.
    """

    route: str
    checkouts: int = _count("{checkout}", "Checkouts that have ended.")
    seconds: float = _sum("Total duration of these checkouts.")
    longest: float = _latest("Duration of the longest of these checkouts.")


@dataclass(frozen=True, slots=True)
class StatementUse:
    """A statement that was slow on one route, or repeated within one request.

    Args:
        statement: Its text without values, on one line, cut at 200 characters.
        route: Its method and pattern, or ``(no route)``.
    """

    statement: str
    route: str
    calls: int = _count("{call}", "Slow calls.")
    seconds: float = _sum("Total duration of these calls.")
    longest: float = _latest("Duration of the longest of these calls.")
    rows: int = _count("{row}", "Rows that these calls returned or changed.")
    most_in_request: int = _most(
        "{call}", "Most calls within one request; 0 unless one request repeated the statement."
    )
    last_at: float = _latest("Unix time of the last call.")


ROUTE_FIELDS: Mapping[str, Field] = declared(RouteUse, keys=["route"])
STATEMENT_FIELDS: Mapping[str, Field] = declared(StatementUse, keys=["statement", "route"])


@dataclass(frozen=True, slots=True)
class LeaseSample:
    """A connection that is checked out.

    Args:
        route: Method and pattern of the route that holds it, or ``(no route)``.
        since: Unix time of its checkout.
        state: One of ``STATES``.
        is_overdue: Whether it has been checked out for longer than ``leak_after``, unless its
            lease is declared to last.
        statement: The statement that it ran last, without values; empty when it is not recorded.
    """

    route: str
    since: float
    state: str
    is_overdue: bool
    statement: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The totals of routes and statements at one moment, or by how much they grew up to it.

    Args:
        at: Unix time.
        routes: Checkouts that have ended and their seconds, by route.
        statements: Slow calls and their seconds, by statement and route.
    """

    at: float
    routes: Mapping[str, tuple[float, float]]
    statements: Mapping[tuple[str, str], tuple[float, float]]

    def since(self, before: "Checkpoint") -> "Checkpoint":
        """Return by how much the totals have grown since an earlier checkpoint."""
        return Checkpoint(
            self.at,
            _growth(self.routes, before.routes),
            _growth(self.statements, before.statements),
        )

    @classmethod
    def of_all(cls, at: float, checkpoints: Sequence["Checkpoint"]) -> "Checkpoint":
        """Return the totals of several workers together."""
        return cls(
            at,
            _total([each.routes for each in checkpoints]),
            _total([each.statements for each in checkpoints]),
        )


CHECKPOINT_SECONDS = 30
"""Seconds between two checkpoints."""

K = TypeVar("K")
_NOTHING = (0.0, 0.0)


def _growth(
    after: Mapping[K, tuple[float, float]], before: Mapping[K, tuple[float, float]]
) -> dict[K, tuple[float, float]]:
    grown = {}
    for name, (count, seconds) in after.items():
        count_before, seconds_before = before.get(name, _NOTHING)
        if count > count_before:
            grown[name] = count - count_before, max(seconds - seconds_before, 0.0)
    return grown


def _total(parts: Sequence[Mapping[K, tuple[float, float]]]) -> dict[K, tuple[float, float]]:
    total: dict[K, tuple[float, float]] = {}
    for part in parts:
        for name, (count, seconds) in part.items():
            known = total.get(name, _NOTHING)
            total[name] = known[0] + count, known[1] + seconds
    return total


@dataclass(frozen=True, slots=True)
class Totals:
    """What one process has counted since its start.

    Args:
        counters: Number of events of each kind.
        histograms: Durations, by the names in ``HISTOGRAMS``.
        pid: Its process number.
        is_closed: Whether it has closed its database; otherwise it was killed or crashed.
    """

    counters: Counters
    histograms: dict[str, Histogram]
    pid: int
    is_closed: bool


@dataclass(frozen=True, slots=True)
class WorkerReading:
    """What one process reports.

    Args:
        pid: Its process number.
        started: Unix time at which it opened the database.
        now: Its newest sample.
        history: Its samples of the last 15 minutes, oldest first, at most one per second.
        counters: Number of events since its start.
        histograms: Durations since its start, by the names in ``HISTOGRAMS``.
        routes: How each route uses connections.
        statements: Slow and repeated statements.
        leases: Connections that are checked out now, the oldest checkouts first.
        checkpoints: Totals of routes and statements in the last 15 minutes, oldest first.
        unreachable: Unix time since when no connection can be opened; 0.0 while connections can
            be opened.
        failures: Failed attempts to open one since then.
        fault: Reason of the last failure, without an address.
    """

    pid: int
    started: float
    now: Sample
    history: tuple[Sample, ...] = ()
    counters: Counters = field(default_factory=Counters)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    routes: tuple[RouteUse, ...] = ()
    statements: tuple[StatementUse, ...] = ()
    leases: tuple[LeaseSample, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    unreachable: float = 0.0
    failures: int = 0
    fault: str = ""

    def total_at(self, moment: float) -> Checkpoint:
        """Return the newest checkpoint that is no later than a moment; an empty one for none."""
        earlier = [each for each in self.checkpoints if each.at <= moment]
        return earlier[-1] if earlier else Checkpoint(moment, {}, {})

    def total_now(self, at: float) -> Checkpoint:
        """Return the totals since the start as a checkpoint."""
        return Checkpoint(
            at,
            {use.route: (float(use.checkouts), use.seconds) for use in self.routes},
            {
                (use.statement, use.route): (float(use.calls), use.seconds)
                for use in self.statements
            },
        )


@dataclass(frozen=True, slots=True)
class PlannedLoad:
    """What a capacity plan expects of the workers of one machine.

    Args:
        checkouts: Per second, of all workers together.
        hold: Mean time in seconds for which a connection is checked out.
        utilisation: Mean share of the connections that is checked out.
        workers: How many there are.
        instances: Machines, containers or pods.
        declared_instances: How many of them the setting ``instances`` tells of.
    """

    checkouts: float
    hold: float
    utilisation: float
    workers: int
    instances: int
    declared_instances: int


@dataclass(frozen=True)
class Reading:
    """What all workers of one database on this machine report.

    Args:
        name: The database's name in ``install``.
        workers: Workers that are alive, the oldest first.
        ended_counters: Number of events counted by workers that have ended.
        ended_histograms: Durations counted by workers that have ended.
        lost: Process numbers of workers that ended without closing their database, and the Unix
            time at which that was noticed, oldest first.
        plan: What was planned; None without a plan.
    """

    name: str
    workers: tuple[WorkerReading, ...]
    ended_counters: Counters = field(default_factory=Counters)
    ended_histograms: dict[str, Histogram] = field(default_factory=dict)
    lost: tuple[tuple[int, float], ...] = ()
    plan: PlannedLoad | None = None

    @cached_property
    def now(self) -> Sample:
        """The newest samples of all workers together; an empty sample without workers."""
        return Sample.of_all([w.now for w in self.workers]) if self.workers else Sample(0.0)

    @cached_property
    def moment(self) -> float:
        """Unix time of the newest sample; 0.0 without workers."""
        return max((worker.now.at for worker in self.workers), default=0.0)

    def recent(self, worker: WorkerReading, seconds: int) -> list[Sample]:
        """Return a worker's samples of the last seconds, oldest first.

        Rules look at each worker separately, because each has its own pool: idle connections of
        one do not help another that is exhausted, and a second that one of them has missed would
        look like a change of their sum.
        """
        newest = worker.history[-seconds - 1 :]
        return [each for each in newest if self.moment - seconds < each.at <= self.moment]

    def worker_of(self, sample: Sample) -> WorkerReading:
        """Return the worker that has taken a sample."""
        return next(each for each in self.workers if sample in each.history)

    def workers_of(self, count: int) -> str:
        """Return how many of the workers are concerned, such as ``1 of 2 workers``."""
        total = len(self.workers)
        return "the worker" if total == 1 else f"{count} of {total} workers"

    def is_settled(self, worker: WorkerReading) -> bool:
        """Return whether a worker's start is over."""
        return self.moment - worker.started >= SETTLED_AGE

    @property
    def server_capacity(self) -> int | None:
        """Connections that the server accepts from services; None while unknown."""
        limit = self.now.server_limit
        return max(0, floor(limit) - _RESERVED) if isfinite(limit) and limit > 0 else None

    @property
    def own_connections(self) -> int:
        """Connections that the workers have open, are opening or closing."""
        now = self.now
        return now.checked_in + now.checked_out + now.opening + now.invalid

    @property
    def other_connections(self) -> float:
        """Connections that the server has from other clients; 0.0 while unknown."""
        used = self.now.server_connections
        return max(0.0, used - self.own_connections) if isfinite(used) else 0.0

    @cached_property
    def counters(self) -> Counters:
        """Number of events of all workers, ended ones included, so that no counter ever falls."""
        return reduce(Counters.__add__, (w.counters for w in self.workers), self.ended_counters)

    def histogram(self, name: str) -> Histogram:
        """Return one of ``HISTOGRAMS`` of all workers, ended ones included."""
        every = [self.ended_histograms, *(worker.histograms for worker in self.workers)]
        return reduce(Histogram.__add__, (each.get(name, Histogram()) for each in every))

    @cached_property
    def history(self) -> tuple[Sample, ...]:
        """One sample per second, of all workers together, oldest first."""
        if len(self.workers) == 1:
            return self.workers[0].history
        seconds: dict[int, list[Sample]] = {}
        for worker in self.workers:
            # Two samples of one worker in one second would count it twice.
            for second, sample in {int(sample.at): sample for sample in worker.history}.items():
                seconds.setdefault(second, []).append(sample)
        return tuple(Sample.of_all(seconds[second]) for second in sorted(seconds))

    def growth(self, at: float) -> tuple[Checkpoint, ...]:
        """Return by how much the totals of routes and statements grew, step by step.

        Args:
            at: Unix time of the reading.

        Returns:
            The first step is where it begins, and empty; the last ends at ``at``.
        """
        moments = sorted({each.at for worker in self.workers for each in worker.checkpoints})
        begin = min((worker.started for worker in self.workers), default=at)
        if begin < at and (not moments or 0 < moments[0] - begin <= CHECKPOINT_SECONDS):
            moments.insert(0, begin)
        totals = [
            Checkpoint.of_all(moment, [worker.total_at(moment) for worker in self.workers])
            for moment in moments
        ]
        if totals and at > totals[-1].at:
            newest = Checkpoint.of_all(at, [worker.total_now(at) for worker in self.workers])
            totals.append(newest)
        return tuple(each.since(before) for before, each in pairwise([*totals[:1], *totals]))

    @cached_property
    def routes(self) -> tuple[RouteUse, ...]:
        """Routes of all workers together, those with the longest total checkout time first."""
        uses: dict[str, list[RouteUse]] = {}
        for worker in self.workers:
            for use in worker.routes:
                uses.setdefault(use.route, []).append(use)
        aggregated = [
            RouteUse(route, **aggregate(some, ROUTE_FIELDS)) for route, some in uses.items()
        ]
        return tuple(sorted(aggregated, key=lambda use: -use.seconds))

    @cached_property
    def statements(self) -> tuple[StatementUse, ...]:
        """Statements of all workers together, those with the longest total duration first."""
        uses: dict[tuple[str, str], list[StatementUse]] = {}
        for worker in self.workers:
            for use in worker.statements:
                uses.setdefault((use.statement, use.route), []).append(use)
        aggregated = [
            StatementUse(*key, **aggregate(some, STATEMENT_FIELDS)) for key, some in uses.items()
        ]
        return tuple(sorted(aggregated, key=lambda use: -use.seconds))
