"""Each benchmark runs; what it measures decides nothing here."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TARGETS = {
    "burst": {"connects_after_first_burst"},
    "fairness": {"busiest_over_idlest"},
    "http_sessions": set(),
    "overload": {"goodput_share", "p99_ms", "seconds_until_healthy"},
    "pool_cpu": {
        "loan_us_over_stock",
        "leak_after_adds_us",
        "ledger_loan_us",
        "ledger_hand_off_10000_over_10",
        "pool_hand_off_10000_over_10",
    },
}


@cache
def short_run(name: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--short", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
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
