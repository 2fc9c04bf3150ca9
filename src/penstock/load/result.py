"""What a load run measured."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Figures", "LoadResult"]


@dataclass(frozen=True, slots=True)
class Figures:
    """The outcome of a group of requests.

    Latencies run from the first byte that is sent to the last that is received, in
    milliseconds, over every request that was answered, whatever its status; a request without
    an answer has none. They are ``None`` where nothing was answered. A percentile is the
    smallest recorded latency that the given share of requests did not exceed (nearest rank), so
    that each is a latency that really occurred.

    Args:
        requests: Requests that were sent.
        successes: Requests that were answered with a status below 400.
        errors: How often each error occurred: a status such as ``"409"``, or the class of the
            exception where no answer came, such as ``"TimeoutError"``.
        requests_per_second: ``requests`` over the duration of the whole run.
        p50_ms: Median latency.
        p90_ms: Latency that 90 % did not exceed.
        p99_ms: Latency that 99 % did not exceed.
        max_ms: Longest latency.
    """

    requests: int
    successes: int
    errors: Mapping[str, int]
    requests_per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @property
    def success_rate(self) -> float:
        """Share of requests that succeeded, from 0.0 to 1.0; 0.0 where none was sent."""
        return self.successes / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The outcome of a load run.

    Args:
        seconds: Time from the first request to the last answer.
        total: Figures of all requests together.
        kinds: Figures by name of the request's kind, in the scenario's order; a kind that was
            never drawn has zeros.
    """

    seconds: float
    total: Figures
    kinds: Mapping[str, Figures]
