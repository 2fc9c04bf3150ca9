"""Buckets of durations, four to each doubling."""

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["BOUNDS", "bucket_of", "quantile"]

_PER_DOUBLING = 4
_FROM = 1e-6
_DOUBLINGS = 27

BOUNDS: tuple[float, ...] = tuple(
    _FROM * 2 ** (number / _PER_DOUBLING) for number in range(_PER_DOUBLING * _DOUBLINGS + 1)
)
"""Upper bounds in seconds, from a microsecond to 134 seconds; what is longer has a bucket of its
own behind them. A percentile is exact to 19 %."""


def bucket_of(seconds: float) -> int:
    """Return the index of the bucket for a duration; ``len(BOUNDS)`` for the last."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float:
    """Return the duration that a share of all did not exceed.

    Args:
        counts: How many durations are in each bucket.
        share: From 0.0 to 1.0.

    Returns:
        The upper bound of its bucket, in seconds; 0.0 where nothing was counted, and the largest
        bound for the last bucket.
    """
    rank = share * sum(counts)
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if count and seen >= rank:
            return BOUNDS[min(index, len(BOUNDS) - 1)]
    return 0.0
