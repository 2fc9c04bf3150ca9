"""Distributions have the means they promise, laws are found again, wrong values are refused."""

import math
from collections.abc import Callable
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base_error import SettingsError
from penstock.planner import (
    Buckets,
    Bursts,
    Constant,
    DatabaseModel,
    Durations,
    Exponential,
    FleetModel,
    Lognormal,
    PoolModel,
    Recorded,
    Samples,
    ScalabilityLaw,
    Workload,
    poisson,
)

HALVES = Buckets([1.0, 3.0], [1, 1, 0], mean=1.5)


def drawn(durations: Durations, count: int = 20_000) -> list[float]:
    return list(islice(durations.draws(Random(2)), count))


@pytest.mark.parametrize(
    "durations",
    [
        Constant(2.0),
        Exponential(2.0),
        Lognormal(2.0, 2.0),
        Lognormal(2.0, 8.0),
        Samples([1.0, 3.0]),
        Recorded([1.0, 3.0]),
        HALVES,
        Buckets([1.0, 4.0], [0, 1, 1], mean=2.0),
        poisson(0.5),
        Bursts(0.5, 2.0, 0.5, 10.0),
        Bursts(0.5, 4.0, 0.25, 10.0),
    ],
)
def test_draws_have_the_mean(durations: Durations) -> None:
    draws = drawn(durations)

    assert min(draws) >= 0.0
    assert math.fsum(draws) / len(draws) == pytest.approx(durations.mean, rel=0.06)


def test_a_lognormal_has_its_p99() -> None:
    assert sorted(drawn(Lognormal(2.0, 8.0)))[19_800] == pytest.approx(8.0, rel=0.06)


def test_recorded_durations_keep_their_order_and_begin_again() -> None:
    assert drawn(Recorded([3.0, 1.0, 2.0]), 5) == [3.0, 1.0, 2.0, 3.0, 1.0]


def test_a_histogram_is_drawn_evenly_within_its_buckets() -> None:
    draws = drawn(HALVES)

    scale = HALVES.mean / 1.25  # of the middles of both buckets
    first = [draw for draw in draws if draw <= scale]
    assert max(draws) <= 3.0 * scale
    assert len(first) == pytest.approx(10_000, rel=0.05)
    assert math.fsum(first) / len(first) == pytest.approx(scale / 2, rel=0.05)


def test_bursts_are_as_dense_as_their_factor_says_and_lulls_as_long_as_their_share() -> None:
    gaps = drawn(Bursts(100.0, 10.0, 0.1, 1.0), 50_000)

    lulls = [gap for gap in gaps if gap > 0.1]
    assert sorted(gaps)[25_000] == pytest.approx(math.log(2) / 1000, rel=0.05)
    assert len(lulls) == pytest.approx(50, rel=0.3)
    assert math.fsum(lulls) / len(lulls) == pytest.approx(9.0, rel=0.3)


SHARES = st.floats(0.0, 0.5)


@given(SHARES, st.floats(0.0, 0.05), st.sampled_from([1.0, 740.0]))
def test_a_law_is_found_again_from_its_throughputs(
    contention: float, coherency: float, alone: float
) -> None:
    law = ScalabilityLaw(contention, coherency)

    found = ScalabilityLaw.fit([(n, alone * n / law.stretch(n)) for n in (1, 2, 4, 8, 32, 64)])

    assert found.contention == pytest.approx(contention, abs=1e-6)
    assert found.coherency == pytest.approx(coherency, abs=1e-6)


@given(st.lists(st.floats(1.0, 1e4), min_size=4, max_size=4))
def test_a_fit_has_no_negative_factor(throughputs: list[float]) -> None:
    law = ScalabilityLaw.fit(zip((1, 2, 8, 32), throughputs, strict=True))

    assert law.contention >= 0
    assert law.coherency >= 0


def test_a_law_has_its_greatest_throughput_at_its_peak() -> None:
    law = ScalabilityLaw(0.1, 0.036)

    assert law.peak == pytest.approx(5.0)
    assert max(range(1, 100), key=lambda n: n / law.stretch(n)) == 5
    assert ScalabilityLaw(0.1).peak == math.inf


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (lambda: Constant(-1.0), "mean"),
        (lambda: Constant(math.nan), "mean"),
        (lambda: Exponential(0.0), "mean"),
        (lambda: Exponential(math.inf), "mean"),
        (lambda: Lognormal(1.0, 0.9), "p99"),
        (lambda: Lognormal(1.0, 15.0), "p99"),
        (lambda: Samples([]), "seconds"),
        (lambda: Recorded([1.0, -1.0]), "seconds"),
        (lambda: Buckets([], [1], 1.0), "bounds"),
        (lambda: Buckets([2.0, 1.0], [1, 1, 1], 1.0), "bounds"),
        (lambda: Buckets([1.0], [1], 1.0), "counts"),
        (lambda: Buckets([1.0], [0, 0], 1.0), "counts"),
        (lambda: poisson(0.0), "rate"),
        (lambda: Bursts(1.0, share=1.0), "share"),
        (lambda: Bursts(1.0, factor=11.0), "factor"),
        (lambda: Bursts(1.0, seconds=0.0), "seconds"),
        (lambda: Workload(poisson(1.0), Constant(1.0), 0), "requests"),
        (lambda: Workload(poisson(1.0), Constant(1.0), 1.5), "requests"),  # type: ignore[arg-type]
        (lambda: Workload(Constant(0.0), Constant(1.0)), "arrivals"),
        (lambda: Workload(poisson(1.0), Constant(1.0), deadline=0.0), "deadline"),
        (lambda: PoolModel(-1), "pool_size"),
        (lambda: PoolModel(1, -2), "max_overflow"),
        (lambda: PoolModel(timeout=-1.0), "pool_timeout"),
        (lambda: FleetModel(0), "instances"),
        (lambda: FleetModel(1, 0), "workers"),
        (lambda: ScalabilityLaw(-0.1), "contention"),
        (lambda: ScalabilityLaw(0.1, -0.1), "coherency"),
        (lambda: ScalabilityLaw.fit([(1, 1.0), (2, 1.0)]), "measured"),
        (lambda: ScalabilityLaw.fit([(1, 1.0), (2, 0.0), (3, 1.0)]), "throughput"),
        (lambda: DatabaseModel(round_trip=-1.0), "round_trip"),
        (lambda: DatabaseModel(connect_failures=1.1), "connect_failures"),
        (lambda: DatabaseModel(breaks=-0.1), "breaks"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(
    wrong: Callable[[], object], name: str
) -> None:
    with pytest.raises(SettingsError, match=name):
        wrong()
