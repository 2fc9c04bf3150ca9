"""The dashboard and the alerts in a real Prometheus, of a real service in trouble."""

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.integration.exporters.watched import (
    FILES,
    Watched,
    eventually,
    nothing_is_missing,
    watched,
)
from tests.servers.postgres import PostgresServer

from penstock.exporters.prometheus import PoolCollector

DASHBOARD: dict[str, Any] = json.loads((FILES / "penstock.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CUT = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'"
    " AND pid <> pg_backend_pid()"
)


@pytest.fixture(scope="module")
def troubled(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """For troubles that a service survives."""
    with watched(postgres, tmp_path_factory.mktemp("troubled")) as watch:
        yield watch


def cut(watch: Watched) -> None:
    """End the connections that are open now."""
    watch.postgres.execute(CUT.format(watch.database))
    time.sleep(0.5)


def close(watch: Watched) -> None:
    """Refuse connections for a while."""
    allow = f'ALTER DATABASE "{watch.database}" WITH ALLOW_CONNECTIONS'
    watch.postgres.execute(f"{allow} false")
    try:
        cut(watch)
    finally:
        watch.postgres.execute(f"{allow} true")


class Trouble(NamedTuple):
    """What is made to happen.

    Args:
        path: Asked for by each client again and again.
        clients: How many.
        besides: Done again and again while they ask.
    """

    path: str
    clients: int
    besides: Callable[[Watched], None] | None = None


HELD = Trouble("/hold?seconds=1.5", clients=12)
ALERTS: dict[Trouble, set[str]] = {
    Trouble("/block?seconds=0.5", clients=2): {"PenstockEventLoopBlocked"},
    Trouble("/hold?seconds=0.12", clients=4): {"PenstockStatementsSlow"},
    Trouble("/nested", clients=12): {"PenstockCheckoutsNested"},
    Trouble("/hold?seconds=0.1", clients=8, besides=cut): {"PenstockConnectionsDie"},
    Trouble("/hold?seconds=0.1", clients=8, besides=close): {"PenstockConnectionsCannotOpen"},
    Trouble("/rest?seconds=10", clients=2): {
        "PenstockIdleInTransaction",
        "PenstockConnectionsLeak",
    },
    HELD: {
        "PenstockPoolExhausted",
        "PenstockPoolNearlyExhausted",
        "PenstockCheckoutsRejected",
        "PenstockCheckoutsSlow",
        "PenstockFinding",
    },
}


@pytest.mark.parametrize(
    "trouble", ALERTS, ids=["block", "slow", "nest", "cut", "close", "rest", "hold"]
)
def test_alerts_fire_on_what_they_are_for(troubled: Watched, trouble: Trouble) -> None:
    awaited = set(ALERTS[trouble])

    def silent() -> set[str]:
        awaited.difference_update(troubled.prometheus.firing())
        return awaited

    with kept_up(trouble, troubled):
        nothing_is_missing(silent)

    assert troubled.prometheus.rule_faults() == []


@contextmanager
def kept_up(trouble: Trouble, watch: Watched) -> Iterator[None]:
    """Make trouble for the length of a block; it never lets up, for no client awaits another."""
    is_enough = threading.Event()

    def ask() -> None:
        while not is_enough.is_set():
            if watch.service.get(trouble.path).is_error:
                time.sleep(0.1)

    def do_besides(what: Callable[[Watched], None]) -> None:
        while not is_enough.is_set():
            what(watch)

    with ThreadPoolExecutor(trouble.clients + 1) as threads:
        makers = [threads.submit(ask) for _ in range(trouble.clients)]
        if trouble.besides:
            makers.append(threads.submit(do_besides, trouble.besides))
        try:
            yield
        finally:
            is_enough.set()
        for maker in makers:
            maker.result()


def test_alerts_fire_on_workers_that_stop_and_on_those_that_die(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with watched(postgres, tmp_path) as watch:
        firing = watch.prometheus.firing

        watch.service.send(0, signal.SIGSTOP)
        eventually(lambda: "PenstockWorkerSilent" in firing())
        watch.service.send(0, signal.SIGCONT)
        eventually(lambda: "PenstockWorkerSilent" not in firing())

        watch.service.send(0, signal.SIGKILL)
        eventually(lambda: "PenstockWorkerDown" in firing())

        watch.service.send(0, signal.SIGKILL)
        eventually(lambda: "PenstockServiceDown" in firing())


def test_every_expression_of_the_dashboard_has_an_answer(troubled: Watched) -> None:
    def unanswered() -> list[str]:
        return [each for each in expressions() if not troubled.prometheus.query(filled_in(each))]

    def missing() -> list[str]:
        # There is no replica that could lag.
        return [each for each in unanswered() if not re.search("replica_(lag|measured|up)", each)]

    with kept_up(HELD, troubled):  # for there to be a finding
        nothing_is_missing(missing)

    assert len(unanswered()) == 4


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel.get("targets", [])]


def filled_in(expression: str) -> str:
    """Put in what Grafana does for its own variable and for "All" of the dashboard's."""
    for variable in DASHBOARD["templating"]["list"]:
        expression = expression.replace(f'"${variable["name"]}"', '".*"')
    filled = expression.replace("$__rate_interval", "1m")
    assert "$" not in filled, filled
    return filled


def test_the_choices_of_the_dashboard_are_labels(troubled: Watched) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            parts = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert parts is not None
            selector, label = parts.groups()
            (series,) = troubled.prometheus.query(filled_in(selector))
            assert series.labels[label]


def test_every_panel_is_explained_and_has_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()

    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_every_metric_is_on_the_dashboard() -> None:
    everything = " ".join(expressions())

    for metric in PoolCollector(list).describe():
        assert metric.name in everything, metric.name
