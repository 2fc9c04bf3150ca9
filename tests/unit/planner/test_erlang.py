"""Erlang's formulae, against published values and against exact fractions."""

from fractions import Fraction
from math import exp, factorial, inf, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.planner import HoldTime, Queue, erlang_b, erlang_c


@pytest.mark.parametrize(
    ("servers", "load", "waiting"),
    [
        (2, 1, 0.33333),
        (3, 2, 0.44444),
        (5, 4, 0.55411),
        (10, 8, 0.40918),
        (21, 18, 0.39587),
        (14, 10, 0.17413),
        (55, 48, 0.23870),
    ],
)
def test_published_probabilities_of_waiting(servers: int, load: float, waiting: float) -> None:
    assert round(erlang_c(servers, load), 5) == waiting


@pytest.mark.parametrize(
    ("queue", "seconds", "level", "mean"),
    [(Queue(14, 10, 180), 20, 0.888, 7.84), (Queue(55, 48, 240), 15, 0.846, 8.18)],
)
def test_published_service_levels(queue: Queue, seconds: float, level: float, mean: float) -> None:
    assert round(1 - queue.share_waiting_longer(seconds), 3) == level
    assert round(queue.mean_wait, 2) == mean


def exact_c(servers: int, load: Fraction) -> Fraction:
    """Erlang C as it is defined, without a rounding."""
    terms = [load**number / factorial(number) for number in range(servers)]
    last = load**servers / factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 120), st.fractions(0, 1, max_denominator=1000).filter(lambda x: x < 1))
def test_it_is_what_the_definition_says(servers: int, utilisation: Fraction) -> None:
    load = servers * utilisation
    wanted = exact_c(servers, load)

    assert erlang_c(servers, float(load)) == pytest.approx(float(wanted), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("servers", [1, 2, 100, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999, 1 - 1e-9, 1.0, 1.5])
def test_it_is_a_probability_whatever_the_size(servers: int, share: float) -> None:
    load = servers * share

    assert 0 <= erlang_b(servers, load) <= erlang_c(servers, load) <= 1
    assert erlang_c(servers, load) <= erlang_c(servers, load + 0.5)


def test_the_ends_of_the_range() -> None:
    assert erlang_c(1, 0.0) == 0
    assert erlang_c(10_000, 0.0) == 0
    assert erlang_c(1, 0.3) == pytest.approx(0.3)
    assert erlang_c(10_000, 10_000) == 1
    # Halfin and Whitt: with servers = load + beta * sqrt(load) the probability has a limit.
    assert erlang_c(10_000, 9_900.5) == pytest.approx(0.2233, abs=0.003)
    assert Queue(2, 2.0, 1.0).mean_wait == inf
    assert Queue(2, 0.0, 1.0).mean_wait == Queue(2, 0.0, 1.0).wait_quantile(0.99) == 0


def test_one_server_is_the_queue_of_the_textbooks() -> None:
    queue = Queue(1, 0.8, 0.01)

    assert queue.mean_wait == pytest.approx(0.8 * 0.01 / 0.2)
    assert queue.share_waiting_longer(0.1) == pytest.approx(0.8 * exp(-0.2 * 0.1 / 0.01))
    assert queue.wait_quantile(0.99) == pytest.approx(log(80) * 0.05)
    assert queue.wait_quantile(0.1) == 0


@pytest.mark.parametrize("load", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("p99", "scv"), [(0.01, 0.0), (None, 1.0), (0.05, None)])
def test_with_one_server_the_mean_is_that_of_pollaczek_and_khinchine(
    load: float, p99: float | None, scv: float | None
) -> None:
    hold = HoldTime.of(0.01, p99)
    queue = hold.queue(1, load / 0.01)
    exact = load * 0.01 / (1 - load) * (1 + hold.scv) / 2

    assert scv is None or hold.scv == pytest.approx(scv, abs=1e-12)
    assert queue.mean_wait == pytest.approx(exact)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 50), st.floats(0, 0.99), st.floats(0.5, 0.9999))
def test_a_quantile_is_what_the_tail_says(servers: int, used: float, share: float) -> None:
    queue = Queue(servers, servers * used, 0.02, 1.7)
    wait = queue.wait_quantile(share)

    if wait:
        assert queue.share_waiting_longer(wait) == pytest.approx(1 - share, rel=1e-9)
    else:
        assert queue.waiting_probability <= 1 - share + 1e-12


@pytest.mark.parametrize("used", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_the_response_of_one_exponential_server_is_exponential(used: float) -> None:
    hold = HoldTime.of(0.01)
    queue = hold.queue(1, used * 100)

    found = hold.response_quantile(queue)

    assert found == pytest.approx(log(100) * 0.01 / (1 - used), rel=2e-3)


@pytest.mark.parametrize(("queries", "constant"), [(1, 0.0), (4, 0.0), (1, 0.01), (3, 0.002)])
@pytest.mark.parametrize("p99", [0.004, 0.01, 0.04])
def test_a_hold_time_adds_up(queries: float, constant: float, p99: float) -> None:
    one, hold = HoldTime.of(0.004, p99), HoldTime.of(0.004, p99, queries, constant)
    variance = one.scv * 0.004**2

    assert hold.mean == pytest.approx(0.004 * queries + constant)
    assert hold.scv * hold.mean**2 == pytest.approx(variance * queries)
    alone = hold.response_quantile(hold.queue(1000, 0.001))
    if queries == 1:
        assert alone == pytest.approx(p99 + constant, rel=5e-3)
