"""The table of everything that a worker counts and measures.

Each number is declared once, as a field of :class:`Counters`, :class:`Sample` or ``HISTOGRAMS``,
with its unit, its description, its metric and the way in which the numbers of several workers are
aggregated. The layout of the workers' files, the sums over workers, the exported metrics and the
columns of the live document follow from the declaration.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from math import isnan, nan
from types import MappingProxyType
from typing import Any, TypeVar


class Kind(Enum):
    """How a number behaves, and with it how it is exported."""

    COUNTER = "counter"
    """Grows by one with each event; a :class:`Sample` has its growth within one second."""
    GAUGE = "gauge"
    """Goes up and down; exporters show the newest value."""
    PEAK = "peak"
    """Goes up and down; exporters show the largest value of the last minute."""
    HISTOGRAM = "histogram"
    """Durations, counted by bucket."""


def largest(numbers: Iterable[float]) -> float:
    """Return the largest of the numbers that are known; NaN when none is."""
    return max((number for number in numbers if not isnan(number)), default=nan)


Aggregation = Callable[[Iterable[Any]], Any]
"""Makes one number of those of several workers: ``sum`` or :func:`largest`."""


@dataclass(frozen=True, slots=True)
class Field:
    """The declaration of one number.

    Args:
        kind: How it behaves.
        description: What it is, as a sentence; the help of its metric.
        unit: In UCUM notation, as OpenTelemetry writes it: ``s``, ``By``, ``{connection}``.
        metric: Name under which it is exported, as OpenTelemetry writes it; empty when it is not
            exported as a metric of its own.
        aggregation: Makes one number of those of several workers.
        state: Value of the metric's attribute ``db.client.connection.state``; empty for none.
        absent: Value with which the metric is left out, besides NaN.
        label: What the live page calls it, in a list of such numbers.
        is_trouble: Whether the live page marks its growth, as that of leaks.
        name: Attribute of the class that has it; :func:`declared` fills it in.
        is_whole: Whether it is an ``int``; :func:`declared` fills it in.
    """

    kind: Kind
    description: str
    unit: str
    metric: str = ""
    aggregation: Aggregation = sum
    state: str = ""
    absent: float = nan
    label: str = ""
    is_trouble: bool = False
    name: str = ""
    is_whole: bool = False

    def is_exported(self, value: float) -> bool:
        """Return whether the metric is shown with this value."""
        return not isnan(value) and value != self.absent


_KEY = "penstock"
_Number = TypeVar("_Number", int, float)


def declared(table: type, *, keys: Collection[str] = ()) -> Mapping[str, Field]:
    """Return the declarations of a dataclass's numbers by name, in the order of its fields.

    Args:
        table: The dataclass.
        keys: Its fields that are texts, and tell one object from another.

    Raises:
        TypeError: A number has no declaration, no unit, or no description that is a sentence.
    """
    numbers = [each for each in fields(table) if each.name not in keys]
    found = {each.name: each.metadata.get(_KEY) for each in numbers}
    whole = {each.name for each in numbers if each.type is int}
    return named(table.__name__, found, whole)


def named(
    table: str, found: Mapping[str, Field | None], whole: Collection[str] = ()
) -> Mapping[str, Field]:
    """Return declarations that have their names; as :func:`declared` does for a dataclass.

    Args:
        table: What has them, for the error.
        found: The declarations by name; None for one that is missing.
        whole: Names of those that are ``int``.

    Raises:
        TypeError: As for :func:`declared`.
    """
    complete = {}
    for name, each in found.items():
        if each is None or not each.unit or not each.description.endswith("."):
            raise TypeError(f"{table}.{name}: must be declared with a unit and a description")
        complete[name] = replace(each, name=name, is_whole=name in whole)
    return MappingProxyType(complete)


def aggregate(items: Sequence[Any], table: Mapping[str, Field]) -> dict[str, Any]:
    """Return the numbers of several workers together, by field.

    Args:
        items: One object of each worker; at least one.
        table: The fields to aggregate.
    """
    return {
        name: each.aggregation([getattr(item, name) for item in items])
        for name, each in table.items()
    }


def typed(table: Mapping[str, Field], numbers: Sequence[float]) -> dict[str, Any]:
    """Return numbers by field, in the type of each.

    Args:
        table: The fields.
        numbers: One for each, in the same order.
    """
    return {
        name: int(number) if each.is_whole else number
        for (name, each), number in zip(table.items(), numbers, strict=True)
    }


def declare(default: _Number, declaration: Field) -> _Number:
    """Return a dataclass field for a number.

    Args:
        default: Its value as long as nothing was counted or measured.
        declaration: What it is; the name is filled in.
    """
    return field(default=default, metadata={_KEY: declaration})


BUCKETS_PER_DOUBLING = 4
_SHORTEST = 1e-6
_DOUBLINGS = 27

BOUNDS: tuple[float, ...] = tuple(
    _SHORTEST * 2 ** (number / BUCKETS_PER_DOUBLING)
    for number in range(BUCKETS_PER_DOUBLING * _DOUBLINGS + 1)
)
"""Upper bounds of the buckets in seconds, from 1 microsecond to 134 seconds; one more bucket counts
longer durations. A percentile is exact to 19 %."""


def bucket_of(seconds: float) -> int:
    """Return the index of the bucket for a duration; ``len(BOUNDS)`` for the last."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float:
    """Return the duration that a share of all did not exceed.

    Args:
        counts: Number of durations in each bucket.
        share: From 0.0 to 1.0.

    Returns:
        The upper bound of its bucket, in seconds; 0.0 when nothing was counted, and the largest
        bound for the last bucket.
    """
    rank = share * sum(counts)
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if count and seen >= rank:
            return BOUNDS[min(index, len(BOUNDS) - 1)]
    return 0.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, counted by bucket.

    Args:
        counts: Number of durations in each bucket of ``BOUNDS``, then the number of longer ones.
        seconds: Sum of the durations.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that a share (0.0 to 1.0) of all did not exceed."""
        return quantile(self.counts, share)

    def __add__(self, other: "Histogram") -> "Histogram":
        counts = tuple(map(int.__add__, self.counts, other.counts))
        return Histogram(counts, self.seconds + other.seconds)


def _counter(
    label: str, metric: str, unit: str, description: str, *, is_trouble: bool = False
) -> int:
    declaration = Field(Kind.COUNTER, description, unit, metric, label=label, is_trouble=is_trouble)
    return declare(0, declaration)


def _gauge(metric: str, unit: str, description: str, **more: Any) -> int:
    return declare(0, Field(Kind.GAUGE, description, unit, metric, **more))


def _seconds(description: str) -> float:
    return declare(0.0, Field(Kind.GAUGE, description, "s"))


def _server(metric: str, unit: str, description: str) -> float:
    return declare(nan, Field(Kind.GAUGE, description, unit, metric, largest))


def _peak(metric: str, description: str) -> float:
    return declare(0.0, Field(Kind.PEAK, description, "s", metric, largest))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """The counters: since a worker's start, or within one second."""

    checkouts: int = _counter(
        "checkouts", "penstock_checkouts", "{checkout}", "Connections checked out."
    )
    waits: int = _counter(
        "of them waited",
        "penstock_checkouts_waited",
        "{checkout}",
        "Checkouts that waited for a connection.",
    )
    checkins: int = _counter(
        "check-ins", "penstock_checkins", "{checkin}", "Connections returned to the pool."
    )
    rejected: int = _counter(
        "rejected",
        "penstock_checkouts_rejected",
        "{request}",
        "Callers that got no connection, for any reason.",
        is_trouble=True,
    )
    timeouts: int = _counter(
        "of them timed out",
        "db.client.connection.timeouts",
        "{timeout}",
        "Callers that got no connection within pool_timeout.",
        is_trouble=True,
    )
    shed: int = _counter(
        "of them shed",
        "penstock_checkouts_shed",
        "{request}",
        "Callers rejected before pool_timeout, because too many waited.",
        is_trouble=True,
    )
    opened: int = _counter(
        "opened", "penstock_connections_opened", "{connection}", "Connections opened."
    )
    open_failures: int = _counter(
        "failed to open",
        "penstock_connection_open_failures",
        "{attempt}",
        "Failed attempts to open a connection.",
        is_trouble=True,
    )
    closed: int = _counter(
        "closed", "penstock_connections_closed", "{connection}", "Connections closed."
    )
    short_lived: int = _counter(
        "of them short-lived",
        "penstock_connections_short_lived",
        "{connection}",
        "Connections closed within a minute of being opened, although they were not broken.",
    )
    died: int = _counter(
        "found dead",
        "penstock_connections_died",
        "{connection}",
        "Connections found closed, unresponsive or broken, or invalidated by the application.",
    )
    recovered: int = _counter(
        "recovered",
        "penstock_connections_recovered",
        "{connection}",
        "Connections recovered after a cancelled query.",
    )
    leaks: int = _counter(
        "leaks",
        "penstock_leaks",
        "{checkout}",
        "Connections checked out for longer than leak_after.",
        is_trouble=True,
    )
    nested: int = _counter(
        "nested checkouts",
        "penstock_checkouts_nested",
        "{checkout}",
        "Tasks that held a connection and requested another while all were checked out.",
        is_trouble=True,
    )
    slow: int = _counter(
        "slow statements",
        "penstock_slow_statements",
        "{statement}",
        "Statements slower than slow_query.",
    )
    replica_reads: int = _counter(
        "reads by replicas", "penstock_replica_reads", "{read}", "Reads that replicas served."
    )
    replica_fallbacks: int = _counter(
        "reads without a replica",
        "penstock_replica_fallbacks",
        "{read}",
        "Reads that the primary served because no replica could.",
        is_trouble=True,
    )
    position_waits: int = _counter(
        "waits for a position",
        "penstock_position_waits",
        "{read}",
        "Reads that waited for a replica to show what was written before.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters(_Counts):
    """Number of events since a worker's start."""

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(**aggregate([self, other], COUNTERS))


@dataclass(frozen=True, slots=True)
class Sample(_Counts):
    """One second of one worker, or of all workers together; counters are those of this second."""

    at: float = declare(
        0.0, Field(Kind.GAUGE, "Unix time at which the second ends.", "s", aggregation=max)
    )
    size: int = _gauge(
        "db.client.connection.idle.max",
        "{connection}",
        "Connections that the pool keeps open (pool_size).",
    )
    limit: int = _gauge(
        "db.client.connection.max",
        "{connection}",
        "Connections that may be open at once (pool_size + max_overflow).",
        absent=0,
    )
    checked_in: int = _gauge(
        "db.client.connection.count", "{connection}", "Idle connections.", state="idle"
    )
    checked_out: int = _gauge(
        "db.client.connection.count", "{connection}", "Checked-out connections.", state="used"
    )
    overflow: int = _gauge(
        "penstock_connections_overflow", "{connection}", "Open connections above pool_size."
    )
    opening: int = _gauge(
        "penstock_connections_opening", "{connection}", "Connections being opened."
    )
    invalid: int = _gauge(
        "penstock_connections_invalid",
        "{connection}",
        "Connections being closed, or recovered after a cancelled query.",
    )
    waiting: int = _gauge(
        "db.client.connection.pending_requests", "{request}", "Callers waiting for a connection."
    )
    idle_in_transaction: int = _gauge(
        "penstock_connections_idle_in_transaction",
        "{connection}",
        "Connections that have been idle in transaction for 5 seconds or more.",
    )
    replicas: int = _gauge(
        "penstock_replicas", "{server}", "Replicas that reads may go to.", aggregation=max
    )
    replicas_out: int = _gauge(
        "penstock_replicas_out",
        "{server}",
        "Replicas that serve no reads, in the worker that leaves out the most.",
        aggregation=max,
    )
    wait_seconds: float = declare(
        0.0, Field(Kind.GAUGE, "Total duration of the waits that ended within the second.", "s")
    )
    hold_seconds: float = declare(
        0.0, Field(Kind.GAUGE, "Total duration of the checkouts that ended within the second.", "s")
    )
    wait_longest: float = _peak(
        "penstock_wait_longest_seconds", "Longest wait for a connection within the last minute."
    )
    loop_late: float = _peak(
        "penstock_event_loop_late_seconds",
        "Longest delay of an event loop within the last minute.",
    )
    server_connections: float = _server(
        "penstock_server_connections",
        "{connection}",
        "Connections open on the server, from all clients.",
    )
    server_limit: float = _server(
        "penstock_server_connections_max",
        "{connection}",
        "Connections that the server accepts (max_connections).",
    )
    replica_lag_bytes: float = _server(
        "penstock_replica_lag_bytes",
        "By",
        "Write-ahead log that the replica furthest behind has not replayed.",
    )
    replica_lag_seconds: float = _server(
        "penstock_replica_lag_seconds",
        "s",
        "Delay of the replica furthest behind, as the server estimates it.",
    )

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is checked out, from 0.0 to 1.0; 0.0 without a limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    @staticmethod
    def of_all(samples: Sequence["Sample"]) -> "Sample":
        """Return the sample of several workers together, for one second.

        Args:
            samples: One of each worker; at least one.
        """
        return Sample(**aggregate(samples, SAMPLE))


COUNTERS: Mapping[str, Field] = declared(Counters)
SAMPLE: Mapping[str, Field] = declared(Sample)
OPTIONAL = tuple(each.name for each in fields(Sample) if each.default != each.default)  # NaN
"""Fields of a :class:`Sample` that are NaN while they are not known."""


def _duration(label: str, metric: str, description: str) -> Field:
    return Field(Kind.HISTOGRAM, description, "s", metric, label=label)


HISTOGRAMS: Mapping[str, Field] = named(
    "HISTOGRAMS",
    {
        "wait": _duration(
            "Wait",
            "db.client.connection.wait_time",
            "Time from requesting a connection to its checkout.",
        ),
        "hold": _duration(
            "Held",
            "db.client.connection.use_time",
            "Time from a connection's checkout to its return.",
        ),
        "create": _duration(
            "Opening", "db.client.connection.create_time", "Time to open a connection."
        ),
        "ping": _duration("Ping", "penstock_ping_time", "Round trip of a ping."),
        "commit": _duration("COMMIT", "penstock_commit_time", "Time that a COMMIT took."),
    },
)
"""What is timed, by name."""
