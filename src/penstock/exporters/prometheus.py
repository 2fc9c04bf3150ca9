"""The telemetry of all workers as Prometheus reads it; needs the extra ``prometheus``."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from operator import attrgetter

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from penstock.telemetry.rules import find
from penstock.telemetry.schema import BOUNDS, Histogram, Sample
from penstock.telemetry.snapshot import Reading, WorkerReading

__all__ = [
    "BUCKETS",
    "COUNTERS",
    "GAUGES",
    "HISTOGRAMS",
    "PEAKS",
    "POOL_LABEL",
    "TOP_ROUTES",
    "Named",
    "PoolCollector",
    "exposition",
]


@dataclass(frozen=True, slots=True)
class Named:
    """A metric and where its value is.

    Args:
        name: In full, but for the ``_total`` of a counter.
        help: What it counts.
        field: The attribute of what has it.
        unit: The name's last word, where it is a unit.
    """

    name: str
    help: str
    field: str
    unit: str = ""


GAUGES = (
    Named("db_client_connection_idle_max", "Idle connections kept for good (pool_size).", "size"),
    Named(
        "db_client_connection_pending_requests", "Callers that wait for a connection.", "waiting"
    ),
    Named("penstock_connections_opening", "Connections being opened.", "opening"),
    Named("penstock_connections_invalid", "Connections being closed or cleaned up.", "invalid"),
    Named("penstock_connections_overflow", "Open connections above pool_size.", "overflow"),
    Named(
        "penstock_connections_at_rest",
        "Connections that have been idle in transaction for five seconds or more.",
        "idle_in_transaction",
    ),
    Named(
        "penstock_server_connections",
        "Connections of everybody to the server.",
        "server_connections",
    ),
    Named(
        "penstock_server_connections_max",
        "Connections that the server accepts (max_connections).",
        "server_limit",
    ),
    Named(
        "penstock_replica_lag_bytes",
        "What the replica furthest behind has not replayed.",
        "replica_lag_bytes",
        "bytes",
    ),
    Named(
        "penstock_replica_lag_seconds",
        "How far the replica furthest behind is behind, as the server estimates.",
        "replica_lag_seconds",
        "seconds",
    ),
)
PEAKS = (
    Named(
        "penstock_wait_longest_seconds",
        "Longest wait for a connection within the last minute.",
        "wait_longest",
        "seconds",
    ),
    Named(
        "penstock_event_loop_late_seconds",
        "By how much an event loop was late at most within the last minute.",
        "loop_late",
        "seconds",
    ),
)
COUNTERS = (
    Named(
        "db_client_connection_timeouts",
        "Callers whose pool_timeout passed before they got a connection.",
        "timeouts",
    ),
    Named("penstock_checkouts", "Leases of connections.", "checkouts"),
    Named("penstock_checkouts_waited", "Leases that had to be waited for.", "waits"),
    Named(
        "penstock_checkouts_refused", "Callers that got no connection, for any reason.", "refused"
    ),
    Named("penstock_checkouts_shed", "Callers rejected early, for too many waited.", "shed"),
    Named(
        "penstock_checkouts_nested",
        "Tasks that held one of a pool's connections, all checked out, and asked for another.",
        "nested",
    ),
    Named("penstock_checkins", "Leases that have ended.", "checkins"),
    Named("penstock_connections_opened", "Connections opened.", "opened"),
    Named(
        "penstock_connection_open_failures",
        "Attempts to open a connection that failed.",
        "open_failures",
    ),
    Named("penstock_connections_closed", "Connections closed.", "closed"),
    Named(
        "penstock_connections_short_lived",
        "Connections closed, though not broken, within a minute.",
        "short_lived",
    ),
    Named(
        "penstock_connections_died", "Connections that were found closed, mute or broken.", "died"
    ),
    Named(
        "penstock_connections_recovered", "Connections saved after a cancelled query.", "recovered"
    ),
    Named("penstock_leaks", "Leases that lasted longer than leak_after.", "leaks"),
    Named("penstock_slow_statements", "Statements slower than slow_query.", "slow"),
)
HISTOGRAMS = (
    Named(
        "db_client_connection_wait_time",
        "Time from the asking for a connection to the checkout.",
        "wait",
    ),
    Named(
        "db_client_connection_use_time",
        "Time from the checkout of a connection to its return.",
        "hold",
    ),
    Named(
        "db_client_connection_create_time", "Time that the opening of a connection took.", "create"
    ),
    Named("penstock_ping_time", "Time that a sign of life from a connection took.", "ping"),
    Named("penstock_commit_time", "Time that a COMMIT took.", "commit"),
)


POOL_LABEL = "db_client_connection_pool_name"
"""The label that every metric has: the database's name in ``install``."""
TOP_ROUTES = 50
"""Routes that a scrape tells apart: those that have held connections longest."""
RECENT = 60.0
"""Seconds of the gauges that keep a peak, so that no scrape interval in use misses it."""

_STATE_LABEL = "db_client_connection_state"
_PER_DOUBLING = 4
_POWERS = (6, 8, 10, *range(11, 21), 22, 24, 25, 27)
BUCKETS: tuple[float, ...] = tuple(BOUNDS[_PER_DOUBLING * power] for power in _POWERS)
"""Upper bounds in seconds of the exported histograms: powers of two of a microsecond, from 64
microseconds to 134 seconds, all of them among ``BOUNDS``, so that no count is estimated."""


class PoolCollector(Collector):
    """All metrics of some databases, for ``registry.register``.

    Args:
        read: Asked at each scrape; one reading for each database.
        min_idle: By the database's name, the connections that each of its workers keeps ready.
        clock: Unix time.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Reading]],
        min_idle: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._read = read
        self._min_idle = min_idle or {}
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values, reading nothing."""
        return _metrics([], self._min_idle, 0.0)

    def collect(self) -> Iterable[Metric]:
        """Read, and return the metrics with their values."""
        return _metrics(list(self._read()), self._min_idle, self._clock())


def exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """Return what a scrape is answered, and its content type.

    Args:
        collector: What it is to tell.
        accept: The request's ``Accept``; text unless that asks for OpenMetrics.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _metrics(readings: list[Reading], min_idle: Mapping[str, int], at: float) -> Iterator[Metric]:
    now = [(reading.name, reading.now) for reading in readings]
    yield _connections(now)
    yield _limit(now)
    yield _idle_min(readings, min_idle)
    for gauge in GAUGES:
        yield _gauge(gauge, ((name, attrgetter(gauge.field)(sample)) for name, sample in now))
    yield from _workers(readings, at)
    counted = [(reading.name, reading.counters) for reading in readings]
    for counter in COUNTERS:
        family = CounterMetricFamily(counter.name, counter.help, labels=[POOL_LABEL])
        for name, counters in counted:
            family.add_metric([name], getattr(counters, counter.field))
        yield family
    for histogram in HISTOGRAMS:
        yield _histogram(histogram, readings)
    yield from _routes(readings)
    yield _findings(readings)


def _connections(now: list[tuple[str, Sample]]) -> Metric:
    family = GaugeMetricFamily(
        "db_client_connection_count",
        "Open connections that are idle or used.",
        labels=[POOL_LABEL, _STATE_LABEL],
    )
    for name, sample in now:
        family.add_metric([name, "idle"], sample.checked_in)
        family.add_metric([name, "used"], sample.checked_out)
    return family


def _limit(now: list[tuple[str, Sample]]) -> Metric:
    named = Named("db_client_connection_max", "Connections that may be open at once.", "limit")
    return _gauge(named, ((name, sample.limit or math.nan) for name, sample in now))


def _idle_min(readings: list[Reading], min_idle: Mapping[str, int]) -> Metric:
    named = Named("db_client_connection_idle_min", "Connections kept ready (min_idle).", "")
    known = [reading for reading in readings if reading.name in min_idle]
    return _gauge(named, ((each.name, min_idle[each.name] * len(each.workers)) for each in known))


def _gauge(named: Named, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(named.name, named.help, labels=[POOL_LABEL], unit=named.unit)
    for name, value in values:
        if not math.isnan(value):  # it is not known
            family.add_metric([name], value)
    return family


def _workers(readings: list[Reading], at: float) -> Iterator[Metric]:
    living = Named("penstock_workers", "Processes that have the database open.", "")
    yield _gauge(living, ((reading.name, len(reading.workers)) for reading in readings))
    silent = Named(
        "penstock_worker_silence_seconds",
        "Since when the most silent worker has taken no sample, which it does every second.",
        "",
        "seconds",
    )
    yield _gauge(silent, ((reading.name, _silence(reading, at)) for reading in readings))
    for peak in PEAKS:
        value = attrgetter(peak.field)
        recent = ((each.name, map(value, _recent(each, at - RECENT))) for each in readings)
        yield _gauge(peak, ((name, max(values, default=math.nan)) for name, values in recent))


def _silence(reading: Reading, at: float) -> float:
    return max((max(0.0, at - each.now.at) for each in reading.workers), default=math.nan)


def _recent(reading: Reading, since: float) -> Iterator[Sample]:
    for worker in reading.workers:
        yield worker.now
        yield from takewhile(lambda sample: sample.at >= since, reversed(worker.history))


def _histogram(named: Named, readings: list[Reading]) -> Metric:
    family = HistogramMetricFamily(named.name, named.help, labels=[POOL_LABEL], unit="seconds")
    for reading in readings:
        histogram = reading.histogram(named.field)
        family.add_metric([reading.name], _buckets(histogram), histogram.seconds)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    up_to = list(accumulate(histogram.counts))
    within = [(repr(BOUNDS[_PER_DOUBLING * each]), up_to[_PER_DOUBLING * each]) for each in _POWERS]
    return [*within, ("+Inf", up_to[-1])]


def _routes(readings: list[Reading]) -> Iterator[Metric]:
    # By worker: what they have in common would fall with the end of one of them.
    labels = [POOL_LABEL, "route", "worker"]
    checkouts = CounterMetricFamily(
        "penstock_route_checkouts", "Leases that have ended, by route and worker.", labels=labels
    )
    seconds = CounterMetricFamily(
        "penstock_route_hold_seconds",
        "Time of those leases, in all.",
        labels=labels,
        unit="seconds",
    )
    for reading in readings:
        top = {use.route for use in reading.routes[:TOP_ROUTES]}
        for name, worker in _named(reading.workers):
            for use in worker.routes:
                if use.route in top:
                    values = [reading.name, use.route, name]
                    checkouts.add_metric(values, use.checkouts)
                    seconds.add_metric(values, use.seconds)
    yield checkouts
    yield seconds


def _named(workers: Sequence[WorkerReading]) -> Iterator[tuple[str, WorkerReading]]:
    """Give each worker with its process id, which those of other containers may have as well."""
    seen: Counter[int] = Counter()
    for worker in workers:  # by their start: the name of one stays when another one comes
        seen[worker.pid] += 1
        again = seen[worker.pid]
        yield (f"{worker.pid}" if again == 1 else f"{worker.pid}-{again}"), worker


def _findings(readings: list[Reading]) -> Metric:
    family = GaugeMetricFamily(
        "penstock_finding",
        "1 for each finding of the diagnosis that holds now.",
        labels=[POOL_LABEL, "id", "severity"],
    )
    for reading in readings:
        found = {(finding.id, finding.severity.value) for finding in find(reading)}
        for identity, severity in sorted(found):
            family.add_metric([reading.name, identity, severity], 1)
    return family
