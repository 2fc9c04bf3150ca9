"""Metrics of all workers for Prometheus; needs the extra ``prometheus``."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from penstock.cluster import ClusterSnapshot
from penstock.cluster.member import IS_PRIMARY
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.rules import RULES
from penstock.telemetry.schema import (
    BOUNDS,
    BUCKETS_PER_DOUBLING,
    COUNTERS,
    HISTOGRAMS,
    SAMPLE,
    Field,
    Histogram,
    Kind,
    Sample,
)

POOL_LABEL = "db_client_connection_pool_name"
"""Label of every metric: the database's name in ``install``."""
TOP_ROUTES = 50
"""Routes in a scrape: those with the longest total checkout time."""
RECENT = 60.0
"""Seconds for which a gauge keeps its peak, so that no usual scrape interval misses it."""

_STATE_LABEL = "db_client_connection_state"
_UNITS = {"s": "seconds", "By": "bytes"}
"""Suffixes of metric names by the unit of the field; counts have none."""
_POWERS = (6, 8, 10, *range(11, 21), 22, 24, 25, 27)
BUCKETS: tuple[float, ...] = tuple(BOUNDS[BUCKETS_PER_DOUBLING * power] for power in _POWERS)
"""Upper bounds in seconds of the exported histograms: powers of two of a microsecond, from 64
microseconds to 134 seconds, all of them among ``BOUNDS``, so that no count is estimated."""


class PoolCollector(Collector):
    """Collects the metrics of databases, for ``registry.register``.

    Args:
        read: Returns one reading of each database; called at each scrape.
        min_idle: Connections that each worker keeps ready, by the database's name.
        clock: Returns Unix time.
        clusters: Returns what this process knows of the replicas, by the database's name.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Reading]],
        min_idle: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.time,
        clusters: Callable[[], Mapping[str, ClusterSnapshot]] = dict,
    ) -> None:
        self._read = read
        self._min_idle = min_idle or {}
        self._clock = clock
        self._clusters = clusters

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values, without a reading."""
        yield from _metrics([], self._min_idle, 0.0)
        yield from _replicas({})

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with their values in a new reading."""
        yield from _metrics(list(self._read()), self._min_idle, self._clock())
        yield from _replicas(self._clusters())


def exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """Return the response body of a scrape, and its content type.

    Args:
        collector: Collects the metrics.
        accept: The request's ``Accept`` header; the format is text unless it asks for OpenMetrics.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _metrics(readings: list[Reading], min_idle: Mapping[str, int], at: float) -> Iterator[Metric]:
    yield _connections(readings)
    yield _idle_min(readings, min_idle)
    for field in SAMPLE.values():
        if field.metric and not field.state and field.name not in COUNTERS:
            yield _peak(field, readings, at) if field.kind is Kind.PEAK else _gauge(field, readings)
    yield from _workers(readings, at)
    for field in COUNTERS.values():
        yield _counter(field, readings)
    for field in HISTOGRAMS.values():
        yield _histogram(field, readings)
    yield from _routes(readings)
    yield _findings(readings)


def _name(field: Field) -> str:
    return field.metric.replace(".", "_")


Values = Iterable[tuple[str, float]]
"""Numbers by the name of their pool."""


def _family(name: str, description: str, values: Values, unit: str = "") -> Metric:
    family = GaugeMetricFamily(name, description, labels=[POOL_LABEL], unit=unit)
    for pool, value in values:
        if not math.isnan(value):  # it is not known
            family.add_metric([pool], value)
    return family


def _connections(readings: list[Reading]) -> Metric:
    states = [field for field in SAMPLE.values() if field.state]
    labels = [POOL_LABEL, _STATE_LABEL]
    family = GaugeMetricFamily(_name(states[0]), "Open connections by state.", labels=labels)
    for reading in readings:
        for field in states:
            family.add_metric([reading.name, field.state], getattr(reading.now, field.name))
    return family


def _idle_min(readings: list[Reading], min_idle: Mapping[str, int]) -> Metric:
    known = [reading for reading in readings if reading.name in min_idle]
    return _family(
        "db_client_connection_idle_min",
        "Idle connections that the pool keeps ready (min_idle).",
        ((each.name, min_idle[each.name] * len(each.workers)) for each in known),
    )


def _gauge(field: Field, readings: list[Reading]) -> Metric:
    values = ((reading.name, getattr(reading.now, field.name)) for reading in readings)
    known = ((name, value) for name, value in values if field.is_exported(value))
    return _family(_name(field), field.description, known, _UNITS.get(field.unit, ""))


def _peak(field: Field, readings: list[Reading], at: float) -> Metric:
    value = attrgetter(field.name)
    recent = ((each.name, map(value, _recent(each, at - RECENT))) for each in readings)
    peaks = ((name, max(values, default=math.nan)) for name, values in recent)
    return _family(_name(field), field.description, peaks, _UNITS.get(field.unit, ""))


def _counter(field: Field, readings: list[Reading]) -> Metric:
    family = CounterMetricFamily(_name(field), field.description, labels=[POOL_LABEL])
    for reading in readings:
        family.add_metric([reading.name], getattr(reading.counters, field.name))
    return family


def _workers(readings: list[Reading], at: float) -> Iterator[Metric]:
    yield _family(
        "penstock_workers",
        "Processes that have the database open.",
        ((reading.name, len(reading.workers)) for reading in readings),
    )
    yield _family(
        "penstock_worker_silence_seconds",
        "Time since the last sample of the worker that has been silent longest.",
        ((reading.name, _silence(reading, at)) for reading in readings),
        "seconds",
    )


def _silence(reading: Reading, at: float) -> float:
    return max((max(0.0, at - each.now.at) for each in reading.workers), default=math.nan)


def _recent(reading: Reading, since: float) -> Iterator[Sample]:
    for worker in reading.workers:
        yield worker.now
        yield from takewhile(lambda sample: sample.at >= since, reversed(worker.history))


def _histogram(field: Field, readings: list[Reading]) -> Metric:
    family = HistogramMetricFamily(
        _name(field), field.description, labels=[POOL_LABEL], unit=_UNITS[field.unit]
    )
    for reading in readings:
        histogram = reading.histogram(field.name)
        family.add_metric([reading.name], _buckets(histogram), histogram.seconds)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    up_to = list(accumulate(histogram.counts))
    ends = [BUCKETS_PER_DOUBLING * power for power in _POWERS]
    return [*((repr(BOUNDS[end]), up_to[end]) for end in ends), ("+Inf", up_to[-1])]


def _routes(readings: list[Reading]) -> Iterator[Metric]:
    # By worker: a sum over the workers would fall when one of them ends.
    labels = [POOL_LABEL, "route", "worker"]
    checkouts = CounterMetricFamily(
        "penstock_route_checkouts", "Checkouts that have ended, by route and worker.", labels=labels
    )
    seconds = CounterMetricFamily(
        "penstock_route_hold_seconds",
        "Sum of the durations of these checkouts, by route and worker.",
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
    """Yield each worker with a unique name, since containers may share process numbers."""
    seen: Counter[int] = Counter()
    for worker in workers:  # the oldest first: its name stays when another worker starts
        seen[worker.pid] += 1
        again = seen[worker.pid]
        yield (f"{worker.pid}" if again == 1 else f"{worker.pid}-{again}"), worker


def _replicas(clusters: Mapping[str, ClusterSnapshot]) -> Iterator[Metric]:
    labels = [POOL_LABEL, "server"]
    up = GaugeMetricFamily(
        "penstock_replica_up",
        "1 for a replica that may serve reads, 0 for one that is left out, by server.",
        labels=labels,
    )
    lag = GaugeMetricFamily(
        "penstock_replica_measured_lag_seconds",
        "Time for which the primary has been past the replica's position, by server.",
        labels=labels,
        unit="seconds",
    )
    for pool, cluster in clusters.items():
        for replica in cluster.replicas:
            if replica.trouble == IS_PRIMARY:
                continue
            up.add_metric([pool, replica.name], 0 if replica.trouble else 1)
            if replica.lag is not None:
                lag.add_metric([pool, replica.name], replica.lag)
    yield up
    yield lag


def _findings(readings: list[Reading]) -> Metric:
    family = GaugeMetricFamily(
        "penstock_finding",
        "1 for each finding of the diagnosis that holds now.",
        labels=[POOL_LABEL, "id", "severity"],
    )
    for reading in readings:
        findings = [finding for rule in RULES.values() if (finding := rule(reading))]
        found = {(finding.id, finding.severity.value) for finding in findings}
        for identity, severity in sorted(found):
            family.add_metric([reading.name, identity, severity], 1)
    return family
