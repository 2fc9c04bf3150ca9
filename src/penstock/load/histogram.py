"""Latencies by their frequency, in memory that does not grow with their number."""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil

_DIGITS = 11
"""Binary digits of a latency that are kept: all below 2.048 ms, else enough for 0.1 %."""


@dataclass(slots=True, eq=False)
class Histogram:
    """Latencies, each rounded to 0.1 % or one microsecond, whichever is more.

    The buckets are those of an HDR histogram; only the ones in use take memory.

    Args:
        counts: Frequencies by bucket, which is the least latency in it in microseconds.
        sum: Of all latencies, in seconds.
        longest: Of all latencies, in seconds.
    """

    counts: Counter[int] = field(default_factory=Counter)
    sum: float = 0.0
    longest: float = 0.0

    def __len__(self) -> int:
        return self.counts.total()

    def record(self, seconds: float) -> None:
        """Count one latency.

        Args:
            seconds: The latency; below 0 counts as 0.
        """
        microseconds = max(round(seconds * 1e6), 0)
        shift = max(microseconds.bit_length() - _DIGITS, 0)
        self.counts[microseconds >> shift << shift] += 1
        self.sum += seconds
        self.longest = max(self.longest, seconds)

    def add(self, other: "Histogram") -> None:
        """Count all latencies of another.

        Args:
            other: It stays as it is.
        """
        self.counts.update(other.counts)
        self.sum += other.sum
        self.longest = max(self.longest, other.longest)

    @property
    def mean_ms(self) -> float | None:
        """The mean latency in milliseconds, exactly; None without one."""
        return self.sum / len(self) * 1e3 if self.counts else None

    @property
    def max_ms(self) -> float | None:
        """The longest latency in milliseconds, exactly; None without one."""
        return self.longest * 1e3 if self.counts else None

    def percentile(self, percent: float) -> float | None:
        """Return the smallest latency that a share of all did not exceed (nearest rank).

        Args:
            percent: Above 0, up to 100.

        Returns:
            Milliseconds; None without a latency.
        """
        if not self.counts:
            return None
        # Rounded first, or 99.9 % of 1000 would be a hair above 999.
        rank = ceil(round(len(self) * percent / 100, 6))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank and percent < 100:
                return min(_middle(bucket) / 1e3, self.longest * 1e3)
        return self.max_ms

    def buckets(self) -> list[tuple[float, int]]:
        """Return each latency in milliseconds with its frequency, in ascending order."""
        return [(_middle(bucket) / 1e3, count) for bucket, count in sorted(self.counts.items())]

    def count_above(self, milliseconds: float) -> int:
        """Return how many latencies were longer.

        Args:
            milliseconds: Than this.
        """
        return sum(count for latency, count in self.buckets() if latency > milliseconds)


def _middle(bucket: int) -> int:
    return bucket + ((1 << max(bucket.bit_length() - _DIGITS, 0)) - 1) // 2
