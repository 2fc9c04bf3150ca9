"""Durations, counted by bucket."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

BUCKETS_PER_DOUBLING = 4
_SHORTEST = 1e-6
_DOUBLINGS = 27

BOUNDS: tuple[float, ...] = tuple(
    _SHORTEST * 2 ** (number / BUCKETS_PER_DOUBLING)
    for number in range(BUCKETS_PER_DOUBLING * _DOUBLINGS + 1)
)
"""Upper bounds of the buckets in seconds, from 1 microsecond to 134 seconds; one more bucket counts
longer durations. A percentile is exact to 19 %."""


def bucket_of(seconds: float) -> int:
    """Return the index of the bucket for a duration; ``len(BOUNDS)`` for the last."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float:
    """Return the duration that a share of all did not exceed.

    Args:
        counts: Number of durations in each bucket.
        share: From 0.0 to 1.0.

    Returns:
        The upper bound of its bucket, in seconds; 0.0 when nothing was counted, and the largest
        bound for the last bucket.
    """
    rank = share * sum(counts)
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if count and seen >= rank:
            return BOUNDS[min(index, len(BOUNDS) - 1)]
    return 0.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, counted by bucket.

    Args:
        counts: Number of durations in each bucket of ``BOUNDS``, then the number of longer ones.
        seconds: Sum of the durations.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that a share (0.0 to 1.0) of all did not exceed."""
        return quantile(self.counts, share)

    def __add__(self, other: "Histogram") -> "Histogram":
        counts = tuple(map(int.__add__, self.counts, other.counts))
        return Histogram(counts, self.seconds + other.seconds)
