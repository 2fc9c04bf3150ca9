"""What a load run measured."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended.

    Args:
        error: ``None`` for a success, else the error's name, as in `Figures.errors`.
        latency: Seconds until the answer was complete; ``None`` where none came.
    """

    error: str | None
    latency: float | None


def nearest_rank(latencies: Sequence[float], percent: int) -> float:
    """Return the smallest value that at least ``percent`` of the values do not exceed.

    Args:
        latencies: Values in ascending order; at least one.
        percent: 1 to 100.
    """
    return latencies[ceil(len(latencies) * percent / 100) - 1]


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, outcome: Outcome) -> None:
        self.requests += 1
        if outcome.error is not None:
            self.errors[outcome.error] += 1
        if outcome.latency is not None:
            self.latencies.append(outcome.latency)

    def figures(self, seconds: float) -> Figures:
        milliseconds = sorted(latency * 1000 for latency in self.latencies)
        p50, p90, p99, longest = (
            nearest_rank(milliseconds, percent) if milliseconds else None
            for percent in (50, 90, 99, 100)
        )
        return Figures(
            requests=self.requests,
            successes=self.requests - self.errors.total(),
            errors=MappingProxyType(dict(self.errors.most_common())),
            requests_per_second=self.requests / seconds if seconds > 0 else 0.0,
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            max_ms=longest,
        )


def _sum(tallies: Iterable[_Tally]) -> _Tally:
    total = _Tally()
    for tally in tallies:
        total.requests += tally.requests
        total.errors.update(tally.errors)
        total.latencies.extend(tally.latencies)
    return total


class Recording:
    """The tallies of a run, by kind of request.

    Args:
        names: The kinds that can occur.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._tallies = {name: _Tally() for name in names}

    def add(self, name: str, outcome: Outcome) -> None:
        """Count one finished request under its kind."""
        self._tallies[name].add(outcome)

    def result(self, seconds: float) -> LoadResult:
        """Return the figures of everything counted so far, for a run of this many seconds."""
        kinds = {name: tally.figures(seconds) for name, tally in self._tallies.items()}
        total = _sum(self._tallies.values()).figures(seconds)
        return LoadResult(seconds=seconds, total=total, kinds=MappingProxyType(kinds))
