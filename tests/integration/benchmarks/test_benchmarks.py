"""Each benchmark runs; what it measures decides nothing here."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from benchmarks import rtt, scaling
from benchmarks.http_read import BY_HAND

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[3]
TARGETS = {
    "batching": {
        "times_best_by_hand_1",
        "times_best_by_hand_32",
        "p99_over_best_by_hand_32",
        "no_database_cpu_over_express_32",
    },
    "burst": {"connects_after_first_burst"},
    "fairness": {"busiest_over_idlest"},
    "gc": set(),
    "http_read": {
        "express_times_tutorial",
        "express_orm_times_tutorial",
        "express_times_best_by_hand",
        "no_database_cpu_over_express",
        "sessions_times_tutorial",
        "express_p99_over_tutorial",
    },
    "http_write": {
        "sessions_times_tutorial",
        "express_times_tutorial",
        "express_times_best_by_hand",
    },
    "httparena": set(),
    "json_list": {
        "list_application_over_json",
        "list_both_over_json",
        "route_application_over_json",
        "route_both_over_json",
    },
    "lane_cpu": {"reader_over_bare_connection", "reader_over_asyncpg_pool"},
    "overload": {"goodput_share", "p99_ms", "seconds_until_healthy"},
    "planner_accuracy": {
        "wait_share_off_replayed",
        "mean_waits_missed_replayed",
        "wait_share_off_predicted",
        "mean_waits_missed_predicted",
        "largest_rate_off",
    },
    "pool_cpu": {
        "loan_us_over_stock",
        "leak_after_adds_us",
        "telemetry_adds_us",
        "ledger_loan_us",
        "ledger_hand_off_10000_over_10",
        "pool_hand_off_10000_over_10",
    },
    "roundtrips": {"express_read", "sessions_read", "sessions_write", "express_write"},
    "rtt": set(),
    "telemetry_cost": {"on_over_off", "core_share_of_20_viewers"},
    "waterfall": set(),
    "workers": {"two_times_one" if scaling.cores().are_apart else "cpu_of_one_over_two"},
}


@cache
def short_run(name: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--short", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,  # however busy the machine
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    assert result["ok"] == (run.returncode == 0)
    return result


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_benchmark_prints_one_json_object_with_figures_and_targets(name: str) -> None:
    result = short_run(name)

    assert result["benchmark"] == name
    assert result["figures"]
    assert result["targets"].keys() == TARGETS[name]
    assert result["ok"] == all(target["met"] for target in result["targets"].values())


def test_bursts_cost_no_connection_after_the_first() -> None:
    figures = short_run("burst")["figures"]

    assert figures["connects_in_first_burst"] == {"penstock": 15, "stock": 15}
    assert figures["connects_after_first_burst"] == {"penstock": 0, "stock": 20}


@pytest.mark.parametrize("name", ["burst", "fairness", "overload"])
def test_each_figure_is_there_for_both_pools(name: str) -> None:
    for figures in short_run(name)["figures"].values():
        assert figures.keys() == {"penstock", "stock"}


def test_nobody_is_overtaken() -> None:
    assert short_run("fairness")["figures"]["overtaken_share"]["penstock"] == 0


def test_an_overloaded_pool_refuses_instead_of_leaving_clients_to_give_up() -> None:
    figures = short_run("overload")["figures"]

    assert figures["refused"]["penstock"] > 0
    assert figures["failed"]["penstock"] == figures["left_errors"]["penstock"] == 0


def test_round_trips_are_exact() -> None:
    figures = short_run("roundtrips")["figures"]

    assert figures["read"]["tutorial"] == 6
    assert figures["write"]["tutorial"] == 7
    assert figures["read"]["asyncpg_by_hand"] == figures["write"]["asyncpg_by_hand"] == 2
    assert figures["read"]["asyncpg_without_reset"] == 1
    assert figures["write"]["asyncpg_without_reset"] == 1
    assert figures["read"]["express"] == figures["write"]["express"] == 1
    assert figures["read"]["sessions"] == 1
    assert figures["write"]["sessions"] == 2


@pytest.mark.parametrize("name", ["http_read", "http_write"])
def test_the_table_says_which_peers_are_faster_than_the_express_lane(name: str) -> None:
    figures = short_run(name)["figures"]

    faster = {peer for peer, ratio in figures["times_express"].items() if ratio > 1}
    assert {peer for peer, beats in figures["beats_express"].items() if beats == "yes"} == faster
    assert figures["beats_express"].keys() == figures["requests_per_second"].keys()


@pytest.mark.parametrize("name", ["http_read", "http_write"])
def test_the_measure_is_the_best_peer_by_hand(name: str) -> None:
    result = short_run(name)
    rates, best = result["figures"]["requests_per_second"], result["conditions"]["best_by_hand"]

    by_hand = {peer: rate for peer, rate in rates.items() if peer in BY_HAND}
    assert {"asyncpg_without_reset", "asyncpg_without_reset_gc"} <= by_hand.keys()
    assert by_hand[best] == max(by_hand.values())
    ratio = result["figures"]["times_best_by_hand"]["express"]
    assert result["targets"]["express_times_best_by_hand"]["measured"] == ratio
    assert ratio == pytest.approx(rates["express"] / rates[best], abs=0.01)


@pytest.mark.parametrize(
    ("peer", "trips_to_read", "trips_to_write"),
    [
        # Before their response: the tutorial's COMMIT comes after it.
        ("tutorial", 3, 4),
        ("asyncpg_by_hand", 2, 2),
        ("asyncpg_without_reset_gc", 1, 1),
        ("sessions", 1, 2),
        ("express", 1, 1),
    ],
)
def test_no_answer_is_faster_than_its_round_trips(
    peer: str, trips_to_read: int, trips_to_write: int
) -> None:
    figures = short_run("rtt")["figures"]

    trip_ms = 2000 * rtt.AWAY
    assert figures["read_p50_ms"][peer] >= trips_to_read * trip_ms
    assert figures["write_p50_ms"][peer] >= trips_to_write * trip_ms


def test_workers_are_compared_in_what_the_machine_can_show() -> None:
    result = short_run("workers")

    for figures in result["figures"].values():
        assert figures.keys() == {"one", "two"}
    measured = result["conditions"]["throughput"].startswith("measured")
    assert measured == ("two_times_one" in result["targets"])


def test_both_profiles_of_httparena_are_measured_on_all_peers() -> None:
    result = short_run("httparena")

    for figures in (result["figures"], result["beside"]["crud"]):
        for rates in figures["requests_per_second"], figures["times_best_by_hand"]:
            assert rates.keys() == {"asyncpg_pool", "asyncpg_pool_gc", "express"}


def test_a_simulation_of_what_was_recorded_waits_as_the_real_pool_did() -> None:
    figures = short_run("planner_accuracy")["figures"]

    for run, share in figures["wait_share"].items():
        assert figures["wait_share_replayed"][run] == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize(
    "name", ["gc", "http_read", "http_write", "httparena", "telemetry_cost", "workers"]
)
def test_each_rate_lies_within_its_range(name: str) -> None:
    figures = short_run(name)["figures"]

    for peer, median in figures["requests_per_second"].items():
        least, greatest = figures["requests_per_second_range"][peer]
        assert 0 < least <= median <= greatest
