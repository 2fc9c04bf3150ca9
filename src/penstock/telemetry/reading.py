"""What the telemetry of one database says at one moment, by worker and for all of them together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, reduce
from math import nan

from penstock.telemetry.buckets import BOUNDS, quantile

__all__ = [
    "HISTOGRAMS",
    "Counters",
    "Histogram",
    "Reading",
    "RouteUse",
    "Sample",
    "StatementUse",
    "WorkerReading",
]

HISTOGRAMS = ("wait", "hold", "create", "ping", "commit")
"""What is timed: the wait for a connection, its loan, opening one, pinging one, COMMIT."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, counted by bucket.

    Args:
        counts: How many are in each bucket of ``BOUNDS``, and behind them how many are longer.
        seconds: Their sum.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that a share (0.0 to 1.0) of them did not exceed."""
        return quantile(self.counts, share)

    def __add__(self, other: "Histogram") -> "Histogram":
        counts = tuple(map(int.__add__, self.counts, other.counts))
        return Histogram(counts, self.seconds + other.seconds)


@dataclass(frozen=True, slots=True)
class Counters:
    """What has happened since a worker's start.

    Args:
        checkouts: Connections lent.
        waits: Of them, those that had to be waited for.
        checkins: Connections that came back.
        refused: Askers that got none, whatever the reason.
        timeouts: Of them, those whose ``pool_timeout`` passed, not counting a suspended pool's.
        shed: Of them, those turned away at once, for too many waited.
        opened: Connections opened.
        open_failures: Attempts to open one that failed.
        closed: Connections closed.
        short_lived: Of them, those that were younger than a minute and not broken.
        died: Of them, those that the server had closed, that answered no ping, that broke, or that
            the application invalidated.
        mended: Connections saved after a cancelled statement.
        leaks: Loans that lasted longer than ``leak_after``.
        nested: Tasks that asked for a second connection while all were lent.
        slow: Statements that took longer than ``slow_query``.
    """

    checkouts: int = 0
    waits: int = 0
    checkins: int = 0
    refused: int = 0
    timeouts: int = 0
    shed: int = 0
    opened: int = 0
    open_failures: int = 0
    closed: int = 0
    short_lived: int = 0
    died: int = 0
    mended: int = 0
    leaks: int = 0
    nested: int = 0
    slow: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        names = (each.name for each in fields(Counters))
        return Counters(*(getattr(self, name) + getattr(other, name) for name in names))


def _sum(default: int = 0) -> int:
    return field(default=default, metadata={"all": sum})


def _largest(default: float = 0.0) -> float:
    return field(default=default, metadata={"all": _largest_known})


def _largest_known(numbers: Iterable[float]) -> float:
    return max((number for number in numbers if number == number), default=nan)  # noqa: PLR0124 - NaN


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of one worker, or of all of them together.

    Args:
        at: Unix time of its end.
        size: ``pool_size``.
        limit: Connections that may be open at once; 0 for no limit.
        checked_in: Idle connections.
        checked_out: Lent ones.
        overflow: Those above ``size``.
        opening: Those being opened.
        invalid: Those being closed or cleaned up.
        waiting: Askers that wait.
        at_rest: Lent connections, within a transaction, on which no statement has run for five
            seconds or more.
        checkouts: As in :class:`Counters`, within this second, as are all that follow up to
            ``slow``.
        waits: As above.
        checkins: As above.
        refused: As above.
        timeouts: As above.
        shed: As above.
        opened: As above.
        open_failures: As above.
        closed: As above.
        short_lived: As above.
        died: As above.
        slow: As above.
        wait_seconds: Sum of the waits that ended within this second.
        hold_seconds: Sum of the loans that ended within it.
        wait_longest: The longest wait of those, or of those that still wait, in seconds.
        loop_late: Seconds by which the event loop was late for this sample.
        server_connections: Connections of everybody to the server; NaN while not known.
        server_limit: How many it accepts (``max_connections``); NaN while not known.
        replica_lag_bytes: What the replica furthest behind has not replayed; NaN without any.
        replica_lag_seconds: How far that is in time, as the server estimates it; NaN without any.
    """

    at: float
    size: int = _sum()
    limit: int = _sum()
    checked_in: int = _sum()
    checked_out: int = _sum()
    overflow: int = _sum()
    opening: int = _sum()
    invalid: int = _sum()
    waiting: int = _sum()
    at_rest: int = _sum()
    checkouts: int = _sum()
    waits: int = _sum()
    checkins: int = _sum()
    refused: int = _sum()
    timeouts: int = _sum()
    shed: int = _sum()
    opened: int = _sum()
    open_failures: int = _sum()
    closed: int = _sum()
    short_lived: int = _sum()
    died: int = _sum()
    slow: int = _sum()
    wait_seconds: float = field(default=0.0, metadata={"all": sum})
    hold_seconds: float = field(default=0.0, metadata={"all": sum})
    wait_longest: float = _largest()
    loop_late: float = _largest()
    server_connections: float = _largest(nan)
    server_limit: float = _largest(nan)
    replica_lag_bytes: float = _largest(nan)
    replica_lag_seconds: float = _largest(nan)

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is lent, from 0.0 to 1.0; 0.0 where there is no limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    @staticmethod
    def of_all(samples: Sequence["Sample"]) -> "Sample":
        """Return the sample of several workers together, for one second.

        Args:
            samples: One of each worker; at least one.
        """
        together = {
            each.name: each.metadata["all"]([getattr(sample, each.name) for sample in samples])
            for each in fields(Sample)
            if each.name != "at"
        }
        return Sample(max(sample.at for sample in samples), **together)


@dataclass(frozen=True, slots=True)
class RouteUse:
    """How one route uses connections.

    Args:
        route: Its method and pattern, or ``(no route)``.
        checkouts: Loans that have ended.
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
    """

    pid: int
    started: float
    now: Sample
    history: tuple[Sample, ...] = ()
    counters: Counters = Counters()
    histograms: dict[str, Histogram] = field(default_factory=dict)
    routes: tuple[RouteUse, ...] = ()
    statements: tuple[StatementUse, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What all workers of one database on this machine say.

    Args:
        name: The database's name in ``install``.
        workers: Those that live, by their start.
        ended_counters: Of those that do not live any more, together.
        ended_histograms: As above.
    """

    name: str
    workers: tuple[WorkerReading, ...]
    ended_counters: Counters = Counters()
    ended_histograms: dict[str, Histogram] = field(default_factory=dict)

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
