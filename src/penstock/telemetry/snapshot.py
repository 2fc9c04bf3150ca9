"""What the telemetry of one database says at one moment, by worker and for all of them together."""

from dataclasses import dataclass, field
from functools import cached_property, reduce

from penstock.telemetry.schema import Counters, Histogram, Sample

__all__ = [
    "NO_ROUTE",
    "STATES",
    "LeaseSample",
    "Reading",
    "RouteUse",
    "StatementUse",
    "Totals",
    "WorkerReading",
]

NO_ROUTE = "(no route)"
"""What has a connection outside requests."""
STATES = ("running", "idle in transaction", "idle")
"""What a connection does that is checked out, as ``pg_stat_activity`` calls it."""


@dataclass(frozen=True, slots=True)
class RouteUse:
    """How one route uses connections.

    Args:
        route: Its method and pattern, or ``(no route)``.
        checkouts: Leases that have ended.
        seconds: Their sum.
        longest: The longest of them, in seconds.
    """

    route: str
    checkouts: int
    seconds: float
    longest: float


@dataclass(frozen=True, slots=True)
class StatementUse:
    """A statement that was slow, or repeated within one request, on one route.

    Args:
        statement: Its text without values, on one line, cut at 200 characters.
        route: As in :class:`RouteUse`.
        calls: How often it was slow.
        seconds: The sum of those calls.
        longest: The longest of them, in seconds.
        rows: Rows that those calls have returned or changed.
        most_in_request: How often one request ran it, at most; 0 where that was not remarkable.
        last_at: Unix time of the last call.
    """

    statement: str
    route: str
    calls: int
    seconds: float
    longest: float
    rows: int
    most_in_request: int
    last_at: float


@dataclass(frozen=True, slots=True)
class LeaseSample:
    """One connection that is checked out.

    Args:
        route: Who has it: method and pattern, or ``(no route)``.
        since: Unix time of its checkout.
        state: One of ``STATES``, as ``pg_stat_activity`` calls them.
        is_overdue: Whether it has lasted for longer than ``leak_after``, and not on purpose.
        statement: Its last one, without values; empty where that is not noted.
    """

    route: str
    since: float
    state: str
    is_overdue: bool
    statement: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What one process has counted since its start.

    Args:
        counters: Of each kind of event.
        histograms: By the names in ``HISTOGRAMS``.
        pid: Its number.
        is_closed: Whether it has closed its database; else it was killed, or crashed.
    """

    counters: Counters
    histograms: dict[str, Histogram]
    pid: int
    is_closed: bool


@dataclass(frozen=True, slots=True)
class WorkerReading:
    """What one process says.

    Args:
        pid: Its number.
        started: Unix time when it opened the database.
        now: Its newest sample.
        history: Its samples of the last 15 minutes, oldest first, at most one a second.
        counters: Since its start.
        histograms: By the names in ``HISTOGRAMS``, since its start.
        routes: By route.
        statements: Slow and repeated ones.
        leases: What is checked out now, of all that the longest.
        unreachable: Unix time since when no connection can be opened; 0.0 while they can be.
        failures: Attempts that have failed since then.
        fault: Why the last one did, without an address.
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
    unreachable: float = 0.0
    failures: int = 0
    fault: str = ""


@dataclass(frozen=True)
class Reading:
    """What all workers of one database on this machine say.

    Args:
        name: The database's name in ``install``.
        workers: Those that live, by their start.
        ended_counters: Of those that do not live any more, together.
        ended_histograms: As above.
        lost: Process numbers of workers that ended without closing their database, and when
            that was noticed, oldest first.
    """

    name: str
    workers: tuple[WorkerReading, ...]
    ended_counters: Counters = field(default_factory=Counters)
    ended_histograms: dict[str, Histogram] = field(default_factory=dict)
    lost: tuple[tuple[int, float], ...] = ()

    @cached_property
    def now(self) -> Sample:
        """The newest samples of all workers, together; an empty one without any worker."""
        return Sample.of_all([w.now for w in self.workers]) if self.workers else Sample(0.0)

    @cached_property
    def counters(self) -> Counters:
        """Of all workers, those that have ended as well, so that they never fall."""
        return reduce(Counters.__add__, (w.counters for w in self.workers), self.ended_counters)

    def histogram(self, name: str) -> Histogram:
        """Return one of ``HISTOGRAMS`` of all workers, those that have ended as well."""
        every = [self.ended_histograms, *(worker.histograms for worker in self.workers)]
        return reduce(Histogram.__add__, (each.get(name, Histogram()) for each in every))

    @cached_property
    def history(self) -> tuple[Sample, ...]:
        """One sample a second, of all workers together, oldest first."""
        if len(self.workers) == 1:
            return self.workers[0].history
        seconds: dict[int, list[Sample]] = {}
        for worker in self.workers:
            # Not two of one worker in one second, which would count it twice.
            for second, sample in {int(sample.at): sample for sample in worker.history}.items():
                seconds.setdefault(second, []).append(sample)
        return tuple(Sample.of_all(seconds[second]) for second in sorted(seconds))

    @cached_property
    def routes(self) -> tuple[RouteUse, ...]:
        """Of all workers together, those first that have held connections longest."""
        by_route: dict[str, list[RouteUse]] = {}
        for worker in self.workers:
            for use in worker.routes:
                by_route.setdefault(use.route, []).append(use)
        together = [
            RouteUse(
                route,
                sum(use.checkouts for use in uses),
                sum(use.seconds for use in uses),
                max(use.longest for use in uses),
            )
            for route, uses in by_route.items()
        ]
        return tuple(sorted(together, key=lambda use: -use.seconds))

    @cached_property
    def statements(self) -> tuple[StatementUse, ...]:
        """Of all workers together, those first that have taken most time."""
        by_key: dict[tuple[str, str], list[StatementUse]] = {}
        for worker in self.workers:
            for use in worker.statements:
                by_key.setdefault((use.statement, use.route), []).append(use)
        together = [
            StatementUse(
                *key,
                sum(use.calls for use in uses),
                sum(use.seconds for use in uses),
                max(use.longest for use in uses),
                sum(use.rows for use in uses),
                max(use.most_in_request for use in uses),
                max(use.last_at for use in uses),
            )
            for key, uses in by_key.items()
        ]
        return tuple(sorted(together, key=lambda use: -use.seconds))
