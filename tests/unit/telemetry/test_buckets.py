"""Durations in buckets, and their percentiles."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.schema import BOUNDS, bucket_of, quantile


@given(st.floats(0, 1000))
def test_a_duration_is_in_the_bucket_of_the_next_bound(seconds: float) -> None:
    bucket = bucket_of(seconds)

    assert seconds <= (BOUNDS[bucket] if bucket < len(BOUNDS) else math.inf)
    assert bucket == 0 or seconds > BOUNDS[bucket - 1]


@given(st.lists(st.floats(2e-6, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_right_to_19_percent(durations: list[float], share: float) -> None:
    counts = [0] * (len(BOUNDS) + 1)
    for duration in durations:
        counts[bucket_of(duration)] += 1
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]

    assert exact <= quantile(counts, share) <= exact * 1.19


def test_nothing_has_no_percentile() -> None:
    assert quantile([0] * (len(BOUNDS) + 1), 0.99) == 0.0


def test_what_is_longer_than_all_bounds_is_said_to_be_the_largest() -> None:
    counts = [0] * (len(BOUNDS) + 1)
    counts[bucket_of(3600)] += 1

    assert quantile(counts, 0.5) == pytest.approx(134.2, abs=0.1)
