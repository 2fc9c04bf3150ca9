"""What a scrape says, of readings made by hand."""

import math
import re
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from penstock.cluster import ClusterSnapshot, MemberSnapshot
from penstock.cluster.member import IS_PRIMARY
from penstock.exporters.prometheus import BUCKETS, TOP_ROUTES, PoolCollector, exposition
from penstock.telemetry.reading import Reading, RouteUse, WorkerReading
from penstock.telemetry.schema import (
    BOUNDS,
    COUNTERS,
    HISTOGRAMS,
    SAMPLE,
    Counters,
    Histogram,
    Sample,
)

NOW = 1_732_200_000.0
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
DOCS = Path(__file__).parents[3] / "docs" / "prometheus.md"

Scrape = dict[tuple[str, frozenset[tuple[str, str]]], float]


def worker(pid: int = 1, **parts: object) -> WorkerReading:
    return replace(WorkerReading(pid, NOW - 600, Sample(NOW - 0.5)), **parts)  # type: ignore[arg-type]


def of(*workers: WorkerReading, **parts: object) -> Reading:
    return replace(Reading("default", workers), **parts)  # type: ignore[arg-type]


def collector(*readings: Reading) -> PoolCollector:
    return PoolCollector(lambda: readings, {"default": 2}, lambda: NOW)


def scrape(*readings: Reading) -> Scrape:
    text, _ = exposition(collector(*readings), "")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text.decode())
        for sample in family.samples
    }


def value(scraped: Scrape, name: str, **labels: str) -> float:
    default = {"db_client_connection_pool_name": "default"}
    return scraped[name, frozenset({**default, **labels}.items())]


def series(scraped: Scrape, name: str) -> list[dict[str, str]]:
    return [dict(labels) for each, labels in scraped if each == name]


def histogram(*durations: float) -> Histogram:
    counts = [0] * (len(BOUNDS) + 1)
    for duration in durations:
        counts[bisect_left(BOUNDS, duration)] += 1
    return Histogram(tuple(counts), sum(durations))


def test_states_are_those_of_all_workers_together() -> None:
    first = Sample(
        NOW, size=5, limit=8, checked_in=3, checked_out=1, waiting=2, idle_in_transaction=1
    )
    second = Sample(NOW, size=5, limit=8, checked_in=2, checked_out=6, overflow=3)

    scraped = scrape(of(worker(1, now=first), worker(2, now=second)))

    idle, used = ({"db_client_connection_state": state} for state in ("idle", "used"))
    assert value(scraped, "db_client_connection_count", **idle) == 5
    assert value(scraped, "db_client_connection_count", **used) == 7
    assert value(scraped, "db_client_connection_max") == 16
    assert value(scraped, "db_client_connection_idle_max") == 10
    assert value(scraped, "db_client_connection_idle_min") == 4
    assert value(scraped, "db_client_connection_pending_requests") == 2
    assert value(scraped, "penstock_connections_idle_in_transaction") == 1
    assert value(scraped, "penstock_connections_overflow") == 3
    assert value(scraped, "penstock_workers") == 2


def test_every_counter_is_exported() -> None:
    numbers = {name: number for number, name in enumerate(COUNTERS, start=1)}

    scraped = scrape(of(worker(counters=Counters(**numbers))))

    for name, each in COUNTERS.items():
        assert value(scraped, f"{each.metric.replace('.', '_')}_total") == numbers[name]


def test_every_number_of_a_sample_is_exported_but_for_those_that_a_histogram_has() -> None:
    sums = {"at", "wait_seconds", "hold_seconds"}
    known = replace(Sample(NOW), **{name: 1 for name in SAMPLE if name != "at"})
    exported = {name for name, each in SAMPLE.items() if each.metric}

    scraped = {name for name, _ in scrape(of(worker(now=known)))}

    assert exported == set(SAMPLE) - sums
    for name in exported - set(COUNTERS):
        assert SAMPLE[name].metric.replace(".", "_") in scraped


def test_every_histogram_is_exported() -> None:
    scraped = scrape(of(worker()))

    for each in HISTOGRAMS.values():
        assert value(scraped, f"{each.metric.replace('.', '_')}_seconds_count") == 0


def test_what_an_ended_worker_counted_stays() -> None:
    counted = Counters(checkouts=7)
    held = {"hold": histogram(0.01, 0.02)}
    both = of(worker(1, counters=counted, histograms=held), worker(2, counters=counted))
    ended = of(worker(2, counters=counted), ended_counters=counted, ended_histograms=held)

    for reading in (both, ended):
        scraped = scrape(reading)
        assert value(scraped, "penstock_checkouts_total") == 14
        assert value(scraped, "db_client_connection_use_time_seconds_count") == 2


@pytest.mark.parametrize("bound", BUCKETS)
def test_a_bucket_counts_exactly_what_is_no_longer_than_its_bound(bound: float) -> None:
    just_longer = math.nextafter(bound, math.inf)
    durations = (bound / 3, bound, just_longer, bound * 1.01)

    scraped = scrape(of(worker(histograms={"create": histogram(*durations)})))

    name = "db_client_connection_create_time_seconds"
    assert value(scraped, f"{name}_bucket", le=repr(bound)) == 2
    assert value(scraped, f"{name}_bucket", le="+Inf") == 4
    assert value(scraped, f"{name}_count") == 4
    assert value(scraped, f"{name}_sum") == pytest.approx(sum(durations))


def test_the_bounds_are_few_short_and_ascending() -> None:
    assert len(BUCKETS) <= 20
    assert list(BUCKETS) == sorted(BUCKETS)
    assert set(BUCKETS) <= set(BOUNDS)
    assert all(len(repr(bound)) <= len("134.217728") for bound in BUCKETS)


def test_what_is_not_known_is_left_out() -> None:
    scraped = scrape(of(worker(now=Sample(NOW))))

    for name in ("server_connections", "server_connections_max", "replica_lag_seconds"):
        assert not series(scraped, f"penstock_{name}")
    assert not series(scraped, "db_client_connection_max")  # without a limit
    assert not any(map(math.isnan, scraped.values()))


def test_what_is_known_of_the_server_counts_once() -> None:
    sample = Sample(NOW, server_connections=40.0, server_limit=100.0, replica_lag_bytes=3.0)

    scraped = scrape(of(worker(1, now=sample), worker(2, now=sample)))

    assert value(scraped, "penstock_server_connections") == 40
    assert value(scraped, "penstock_server_connections_max") == 100
    assert value(scraped, "penstock_replica_lag_bytes") == 3


def test_peaks_are_those_of_the_last_minute() -> None:
    late = [
        Sample(NOW - 61, loop_late=9.0),
        Sample(NOW - 59, loop_late=0.5, wait_longest=0.25),
        Sample(NOW - 1, loop_late=0.1),
    ]

    scraped = scrape(of(worker(1, history=tuple(late)), worker(2)))

    assert value(scraped, "penstock_event_loop_late_seconds") == 0.5
    assert value(scraped, "penstock_wait_longest_seconds") == 0.25


def test_the_most_silent_worker_is_heard_of() -> None:
    scraped = scrape(of(worker(1, now=Sample(NOW - 30)), worker(2, now=Sample(NOW + 0.1))))

    assert value(scraped, "penstock_worker_silence_seconds") == 30


def test_a_database_without_workers_reports_zeros() -> None:
    scraped = scrape(of())

    assert value(scraped, "penstock_workers") == 0
    assert value(scraped, "penstock_checkouts_total") == 0
    assert not series(scraped, "penstock_worker_silence_seconds")


def test_routes_are_reported_for_each_worker() -> None:
    users, orders = RouteUse("GET /users/{id}", 3, 0.5, 0.4), RouteUse("GET /orders", 1, 0.1, 0.1)

    scraped = scrape(of(worker(1, routes=(users, orders)), worker(2, routes=(users,))))

    for pid in ("1", "2"):
        labels = {"route": "GET /users/{id}", "worker": pid}
        assert value(scraped, "penstock_route_checkouts_total", **labels) == 3
        assert value(scraped, "penstock_route_hold_seconds_total", **labels) == 0.5
    assert len(series(scraped, "penstock_route_checkouts_total")) == 3


def test_workers_of_two_containers_may_have_one_number() -> None:
    one, other = (worker(7, routes=(RouteUse("GET /a", n, n, n),)) for n in (2, 3))

    text, _ = exposition(collector(of(one, other)), "")

    reported = re.findall(r'penstock_route_checkouts_total\{.*worker="(.*)"\} (.*)', text.decode())
    assert reported == [("7", "2.0"), ("7-2", "3.0")]


def test_the_routes_that_hold_longest_are_reported() -> None:
    routes = tuple(RouteUse(f"GET /{n}", 1, float(n), 1.0) for n in range(TOP_ROUTES + 5))

    reported = series(scrape(of(worker(routes=routes))), "penstock_route_hold_seconds_total")

    assert {each["route"] for each in reported} == {f"GET /{n}" for n in range(5, TOP_ROUTES + 5)}


def test_a_findings_name_and_severity_are_reported() -> None:
    full = Sample(NOW, size=2, limit=2, checked_out=2, waiting=3, wait_longest=5.0)
    history = tuple(replace(full, at=NOW - age) for age in range(300, 0, -1))

    reported = series(scrape(of(worker(now=full, history=history))), "penstock_finding")

    assert reported
    assert all(each["severity"] in {"info", "warning", "critical"} for each in reported)


def test_several_databases_are_distinguished() -> None:
    analytics = Reading("analytics", (worker(counters=Counters(checkouts=5)),))

    scraped = scrape(of(worker(counters=Counters(checkouts=2))), analytics)

    label = "db_client_connection_pool_name"
    assert value(scraped, "penstock_checkouts_total") == 2
    assert value(scraped, "penstock_checkouts_total", **{label: "analytics"}) == 5


@pytest.mark.parametrize("name", ["GET /a\nb", 'GET /"x"', "GET /\\", "GET /é\u2028"])
def test_any_route_can_be_reported(name: str) -> None:
    use = RouteUse(name, 1, 0.1, 0.1)

    text, _ = exposition(collector(of(worker(routes=(use,)))), OPENMETRICS)

    (reported,) = (each for each in families_of(text) if each.name == "penstock_route_checkouts")
    assert [sample.labels["route"] for sample in reported.samples] == [name]


def families_of(openmetrics: bytes) -> list[Metric]:
    return list(parse_openmetrics(openmetrics.decode()))  # type: ignore[no-untyped-call]  # it has none


def test_it_speaks_text_and_openmetrics() -> None:
    reported = collector(of(worker()))

    text, text_type = exposition(reported, "*/*")
    openmetrics, openmetrics_type = exposition(reported, OPENMETRICS)

    assert text_type == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics_type.startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith(b"# EOF\n")
    assert families_of(openmetrics)
    assert list(parse_text(text.decode()))


def test_no_time_of_creation_is_exported() -> None:
    for accept in ("", OPENMETRICS):
        assert b"_created" not in exposition(collector(of(worker())), accept)[0]


def test_a_registry_learns_the_names_without_reading() -> None:
    def read() -> list[Reading]:
        raise AssertionError("no scrape yet")

    registry = CollectorRegistry(auto_describe=True)

    registry.register(PoolCollector(read))


def test_the_documentation_lists_every_metric_with_its_kind_and_help() -> None:
    page = DOCS.read_text(encoding="utf-8")
    families = list(collector().describe())
    rows = [
        (f"{each.name}_total" if each.type == "counter" else each.name, each.type, help_of(each))
        for each in families
    ]

    documented = re.findall(
        r"^\| `(\w+)` \| (gauge|counter|histogram) \| (.+) \|$", page, re.MULTILINE
    )

    assert len(rows) > 30
    assert sorted(documented) == sorted(rows)


def help_of(family: Metric) -> str:
    assert family.documentation.endswith("."), family.name
    return family.documentation


def server(name: str, lag: float | None = 0.0, trouble: str = "") -> MemberSnapshot:
    return MemberSnapshot(
        name=name, role="replica", lag=lag, trouble=trouble, load=0.0, reads=0, share=0.0
    )


def test_each_replica_is_up_or_not_and_late_where_that_is_known() -> None:
    servers = [
        server("a:1", 0.25),
        server("b:2", None, "it does not answer"),
        server("c:3", 40.0, "it is behind for longer than replica_max_lag (10 s)"),
        server("d:4", 0.0, IS_PRIMARY),
    ]
    cluster = ClusterSnapshot(
        primary=server("primary"),
        replicas=servers,
        timeline=1,
        replica_reads=0,
        replica_fallbacks=0,
        position_waits=0,
    )
    made = PoolCollector(list, clusters=lambda: {"default": cluster})
    found = {
        (sample.name, sample.labels["server"]): sample.value
        for family in made.collect()
        for sample in family.samples
    }

    assert found == {
        ("penstock_replica_up", "a:1"): 1.0,
        ("penstock_replica_up", "b:2"): 0.0,
        ("penstock_replica_up", "c:3"): 0.0,
        ("penstock_replica_measured_lag_seconds", "a:1"): 0.25,
        ("penstock_replica_measured_lag_seconds", "c:3"): 40.0,
    }
