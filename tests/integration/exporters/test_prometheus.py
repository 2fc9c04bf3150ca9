"""What a real Prometheus makes of a real service of two workers."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integration.exporters.service import TOKEN
from tests.integration.exporters.watched import Watched, eventually, nothing_is_missing, watched
from tests.integration.exporters.workers import Service
from tests.servers.postgres import PostgresServer
from tests.servers.prometheus import promtool

READS, EXPRESS, WRITES = 120, 60, 20
ROUTES = {
    "GET /notes/{note_id}": READS,
    "GET /express/{note_id}": EXPRESS,
    "POST /notes/{word}": WRITES,
}
LOAD = sum(ROUTES.values())
LOANS_ENDED = ("penstock_checkins_total", "db_client_connection_use_time_seconds_count")
BEARER = f"Bearer {TOKEN}"


@pytest.fixture(scope="module")
def healthy(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """After a load of known numbers."""
    with watched(postgres, tmp_path_factory.mktemp("healthy")) as watch:
        send(watch.service)
        watch.await_scrape()
        yield watch


def send(service: Service) -> None:
    """Send the known load."""
    wanted = [
        *((f"/notes/{number}", "GET") for number in range(READS)),
        *((f"/express/{number}", "GET") for number in range(EXPRESS)),
        *((f"/notes/word-{time.time_ns()}-{number}", "POST") for number in range(WRITES)),
    ]
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda each: service.ask(*each), wanted))


def test_what_prometheus_counts_is_what_the_load_sent(healthy: Watched) -> None:
    for route, sent in ROUTES.items():
        assert healthy.total("penstock_route_checkouts_total", f'route="{route}"') == sent, route
    in_all = healthy.total("penstock_route_checkouts_total")
    for metric in (
        *LOANS_ENDED,
        "penstock_checkouts_total",
        "db_client_connection_wait_time_seconds_count",
    ):
        assert healthy.total(metric) == in_all, metric
    assert healthy.total("penstock_commit_time_seconds_count") >= WRITES
    assert healthy.total("penstock_checkouts_rejected_total") == 0


def test_both_workers_did_their_part(healthy: Watched) -> None:
    found = healthy.prometheus.query("sum by (worker) (penstock_route_checkouts_total) > 20")

    assert {each.labels["worker"] for each in found} == {str(p) for p in healthy.service.pids}


def test_the_pools_are_those_of_both_workers(healthy: Watched) -> None:
    value = healthy.prometheus.value
    (limit,) = healthy.postgres.execute("SHOW max_connections")[0]

    assert value("db_client_connection_max") == 4
    assert value("db_client_connection_idle_max") == 4
    assert value("db_client_connection_idle_min") == 2
    assert value("penstock_server_connections_max") == float(str(limit))
    (idle,) = healthy.prometheus.query(
        'db_client_connection_count{db_client_connection_state="idle"}'
    )
    assert idle.labels["db_client_connection_pool_name"] == "default"
    assert 2 <= idle.value <= 4


def test_times_are_as_they_were(healthy: Watched) -> None:
    for histogram in ("use_time", "wait_time", "create_time"):
        name = f"db_client_connection_{histogram}_seconds"
        everything = healthy.total(f"{name}_count")
        assert everything > 0
        assert healthy.total(f"{name}_bucket", 'le="+Inf"') == everything
        assert healthy.total(f"{name}_bucket", 'le="16.777216"') == everything
    seconds = healthy.total("db_client_connection_use_time_seconds_sum")
    assert seconds == pytest.approx(healthy.total("penstock_route_hold_seconds_total"))


def test_prometheus_has_nothing_else_to_say_against_the_names(healthy: Watched) -> None:
    text = healthy.service.get("/metrics", Authorization=BEARER).content

    said = promtool("check", "metrics", stdin=text, status=3)

    # OpenTelemetry's name stays what it is.
    complaint = 'non-histogram and non-summary metrics should not have "_count" suffix'
    assert said == f"db_client_connection_count {complaint}\n"


def test_a_scrape_is_small_fresh_and_for_those_who_may(healthy: Watched) -> None:
    get = healthy.service.get

    text = get("/metrics", Authorization=BEARER)
    openmetrics = get(
        "/metrics", Authorization=BEARER, Accept="application/openmetrics-text;version=1.0.0"
    )

    assert get("/metrics").status_code == 401
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert text.headers["cache-control"] == "no-store"
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert len(text.content) < 30_000


def test_a_healthy_service_raises_no_alert(healthy: Watched) -> None:
    (target,) = healthy.prometheus.targets()

    # A start on a busy machine is late once, of which the last minute tells: the rule itself waits
    # for two minutes, of which the quickened one here knows nothing.
    late = {"PenstockEventLoopBlocked"}
    assert healthy.prometheus.firing() - late == set()
    nothing_is_missing(healthy.prometheus.firing, seconds=100)
    assert healthy.prometheus.rule_faults() == []
    assert (target["health"], target["lastError"]) == ("up", "")


def test_what_a_killed_worker_had_counted_stays(postgres: PostgresServer, tmp_path: Path) -> None:
    with watched(postgres, tmp_path) as watch:
        send(watch.service)
        watch.await_scrape()
        before = {metric: watch.total(metric) for metric in LOANS_ENDED}
        assert min(before.values()) >= LOAD

        watch.service.send(0, signal.SIGKILL)
        eventually(lambda: watch.prometheus.value("penstock_workers") == 1)
        after = {metric: watch.total(metric) for metric in LOANS_ENDED}
        send(watch.service)
        watch.await_scrape()

        for metric in LOANS_ENDED:
            assert after[metric] == before[metric]
            assert watch.total(metric) == before[metric] + LOAD
            assert watch.prometheus.value(f"sum(resets({metric}[1m]))") == 0
