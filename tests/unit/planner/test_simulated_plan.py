"""What a plan expects by formula, beside what its pools do when they are simulated."""

from random import Random
from statistics import fmean, quantiles
from typing import Any

import pytest

from penstock.errors import SettingsError
from penstock.planner import HoldTime, plan

REQUESTS = 40_000
CASES: tuple[dict[str, Any], ...] = (
    {"rate": 800, "query_time": 0.004, "workers": 2},
    {"rate": 800, "query_time": 0.004, "query_p99": 0.02, "workers": 4, "instances": 2},
    {"rate": 180, "query_time": 0.02, "pool_size": 5},
    {"rate": 180, "query_time": 0.02, "query_p99": 0.06, "pool_size": 5},
    {"rate": 85, "query_time": 0.02, "pool_size": 2},
    {"rate": 40, "query_time": 0.02, "pool_size": 1},
    {"rate": 40, "query_time": 0.02, "query_p99": 0.05, "pool_size": 1},
    {"rate": 900, "query_time": 0.02, "pool_size": 20},
    {"rate": 850, "query_time": 0.02, "query_p99": 0.05, "pool_size": 10, "max_overflow": 10},
    {
        "rate": 800,
        "query_time": 0.004,
        "queries": 2,
        "code_time": 0.003,
        "transaction_time": 0.001,
        "pool_size": 4,
        "max_overflow": 2,
        "workers": 2,
    },
    {
        "rate": 800,
        "query_time": 0.004,
        "query_p99": 0.02,
        "queries": 3,
        "code_time": 0.002,
        "pool_size": 4,
        "workers": 4,
    },
    {
        "rate": 300,
        "query_time": 0.004,
        "connections_per_request": 2,
        "pool_size": 2,
        "max_overflow": 1,
    },
    {
        "rate": 2000,
        "query_time": 0.01,
        "query_p99": 0.03,
        "pool_size": 2,
        "workers": 8,
        "instances": 4,
    },
    {"rate": 70, "query_time": 0.1, "query_p99": 0.4, "pool_size": 8},
)


@pytest.mark.parametrize("inputs", CASES)
def test_the_simulation_finds_what_the_formulae_expect(inputs: dict[str, Any]) -> None:
    fixed = {"max_overflow": 0} if "pool_size" in inputs else {}
    made = plan({**fixed, **inputs})
    expected, queue = made.predicted, made.predicted.queue

    found = made.simulated(REQUESTS)

    assert found.requests == found.answered == REQUESTS
    assert found.utilisation == pytest.approx(queue.utilisation, rel=0.03)
    assert found.wait_probability == pytest.approx(queue.waiting_probability, abs=0.05)
    assert found.wait.mean == pytest.approx(queue.mean_wait, rel=0.15, abs=0.0005)
    assert found.response.p99 == pytest.approx(expected.response_p99, rel=0.15)


def test_a_pool_that_is_too_small_rejects_what_no_formula_tells_of() -> None:
    capacity, rate = 250, 500
    inputs = {"query_time": 1 / capacity, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    made = plan({"rate": rate, **inputs})

    found = made.simulated(20_000)

    assert made.predicted.document()["mean_wait"] is None
    assert found.timeouts > 0
    assert (found.timeouts + found.shed) / found.requests == pytest.approx(
        1 - capacity / rate, abs=0.02
    )
    assert found.wait.longest <= made.pool_timeout
    assert found.document()["timeouts"] == found.timeouts
    assert found.document()["shed"] == found.shed


def test_the_same_seed_gives_the_same_outcome_and_another_one_another() -> None:
    made = plan(CASES[0])
    told: list[int] = []

    found = made.simulated(1000, seed=3, on_progress=told.append)

    assert found == made.simulated(1000, seed=3)
    assert found != made.simulated(1000, seed=4)
    assert told == sorted(told)
    assert told[-1] == 1000


def test_a_simulation_of_no_requests_is_refused() -> None:
    with pytest.raises(SettingsError, match="requests=0"):
        plan(CASES[0]).simulated(0)


@pytest.mark.parametrize("p99", [None, 0.004, 0.012, 0.02])
@pytest.mark.parametrize("queries", [1.0, 2.0, 0.5])
def test_hold_times_are_drawn_as_they_are_described(p99: float | None, queries: float) -> None:
    hold = HoldTime.of(0.004, p99, queries, constant=0.001)
    draws = hold.draws(Random(1))

    drawn = [next(draws) for _ in range(20_000)]

    assert fmean(drawn) == pytest.approx(hold.mean, rel=0.05)
    assert quantiles(drawn, n=100)[98] == pytest.approx(hold.quantile(0.99), rel=0.1)
