"""The dashboard and the alerts in a real Prometheus, of a real service in trouble."""

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def together(watch: Watched, path: str, times: int) -> None:
    """Ask for what may well fail, several times at once."""
    with ThreadPoolExecutor(times) as clients:
        list(clients.map(watch.service.get, [path] * times))


def hold(watch: Watched) -> None:
    together(watch, "/hold?seconds=1.5", 12)


def rest(watch: Watched) -> None:
    together(watch, "/rest?seconds=10", 2)


def block(watch: Watched) -> None:
    together(watch, "/block?seconds=0.5", 2)


def nest(watch: Watched) -> None:
    together(watch, "/nested", 12)


def be_slow(watch: Watched) -> None:
    together(watch, "/hold?seconds=0.12", 4)


def cut(watch: Watched) -> None:
    together(watch, "/hold?seconds=0.1", 8)
    watch.postgres.execute(CUT.format(watch.database))


def close(watch: Watched) -> None:
    allow = f'ALTER DATABASE "{watch.database}" WITH ALLOW_CONNECTIONS'
    watch.postgres.execute(f"{allow} false")
    watch.postgres.execute(CUT.format(watch.database))
    together(watch, "/hold?seconds=0.1", 8)
    watch.postgres.execute(f"{allow} true")


TROUBLE: dict[Callable[[Watched], None], set[str]] = {
    block: {"PenstockEventLoopBlocked"},
    be_slow: {"PenstockStatementsSlow"},
    nest: {"PenstockCheckoutsNested"},
    cut: {"PenstockConnectionsDie"},
    close: {"PenstockConnectionsCannotOpen"},
    rest: {"PenstockConnectionsAtRest", "PenstockConnectionsLeak"},
    hold: {
        "PenstockPoolExhausted",
        "PenstockPoolNearlyExhausted",
        "PenstockCheckoutsRefused",
        "PenstockCheckoutsSlow",
        "PenstockFinding",
    },
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_alerts_fire_on_what_they_are_for(
    troubled: Watched, trouble: Callable[[Watched], None]
) -> None:
    awaited = set(TROUBLE[trouble])

    def silent() -> set[str]:
        awaited.difference_update(troubled.prometheus.firing())
        return awaited

    with again_and_again(trouble, troubled):
        nothing_is_missing(silent)

    assert troubled.prometheus.rule_faults() == []


@contextmanager
def again_and_again(trouble: Callable[[Watched], None], watch: Watched) -> Iterator[None]:
    """Make trouble for the length of a block."""
    is_enough = threading.Event()

    def make() -> None:
        while not is_enough.is_set():
            trouble(watch)

    with ThreadPoolExecutor(1) as background:
        made = background.submit(make)
        try:
            yield
        finally:
            is_enough.set()
        made.result()


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
        return [each for each in unanswered() if "replica_lag" not in each]

    with again_and_again(hold, troubled):  # for there to be a finding
        nothing_is_missing(missing)

    assert len(unanswered()) == 2


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
