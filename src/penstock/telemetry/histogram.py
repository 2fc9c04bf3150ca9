"""Durations, counted by bucket."""

from dataclasses import dataclass

from penstock.telemetry.buckets import BOUNDS, quantile

__all__ = ["HISTOGRAMS", "Histogram"]

HISTOGRAMS = ("wait", "hold", "create", "ping", "commit")
"""What is timed: the wait for a connection, its loan, opening one, pinging one, COMMIT."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, counted by bucket.

    Args:
        counts: How many are in each bucket of ``BOUNDS``, and behind them how many are longer.
        seconds: Their sum.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that a share (0.0 to 1.0) of them did not exceed."""
        return quantile(self.counts, share)

    def __add__(self, other: "Histogram") -> "Histogram":
        counts = tuple(map(int.__add__, self.counts, other.counts))
        return Histogram(counts, self.seconds + other.seconds)
