from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.load import Histogram


def histogram(*milliseconds: float) -> Histogram:
    made = Histogram()
    for each in milliseconds:
        made.record(each / 1e3)
    return made


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 1), (50, 50), (90, 90), (99, 99), (99.9, 100), (100, 100)]
)
def test_a_percentile_of_1_to_100_is_its_own_number(percent: float, expected: float) -> None:
    found = histogram(*range(1, 101)).percentile(percent)

    assert found == pytest.approx(expected, rel=1e-3)


def test_the_last_but_one_of_a_thousand_is_99_9_percent() -> None:
    assert histogram(*([1.0] * 999), 50.0).percentile(99.9) == 1.0
    assert histogram(*([1.0] * 998), 50.0, 50.0).percentile(99.9) == pytest.approx(50, rel=1e-3)


def test_the_only_value_is_every_percentile() -> None:
    assert [histogram(4.2).percentile(percent) for percent in (1, 50, 99.9, 100)] == [
        pytest.approx(4.2)
    ] * 4


def test_without_a_value_there_is_no_percentile() -> None:
    empty = Histogram()

    assert (len(empty), empty.percentile(50), empty.max_ms, empty.mean_ms) == (0, None, None, None)


milliseconds = st.lists(st.floats(0, 1e7), min_size=1, max_size=200)


@given(milliseconds, st.floats(0.1, 100))
def test_a_percentile_is_the_nearest_rank_to_a_thousandth(
    values: list[float], percent: float
) -> None:
    exact = sorted(values)[ceil(round(len(values) * percent / 100, 6)) - 1]

    assert histogram(*values).percentile(percent) == pytest.approx(exact, rel=1e-3, abs=1e-3)


@given(milliseconds, milliseconds)
def test_a_sum_is_the_histogram_of_all_values(some: list[float], others: list[float]) -> None:
    both, whole = histogram(*some), histogram(*some, *others)
    both.add(histogram(*others))

    assert both.buckets() == whole.buckets()
    assert (len(both), both.max_ms) == (len(some) + len(others), whole.max_ms)
    assert both.mean_ms == pytest.approx(whole.mean_ms)


def test_its_size_does_not_grow_with_the_number_of_values() -> None:
    many = histogram(*(20 + number % 1000 / 100 for number in range(100_000)))

    assert len(many) == 100_000
    assert many.percentile(50) == pytest.approx(25, rel=1e-3)
    assert len(many.buckets()) < 700
    assert many.count_above(25) == pytest.approx(50_000, rel=0.01)
