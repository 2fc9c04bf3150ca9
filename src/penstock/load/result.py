"""What a load run measured."""

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from penstock.load.histogram import Histogram

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
"""Those that every report has."""
_DECIMALS = 3


@dataclass(frozen=True, slots=True)
class Figures:
    """The outcome of a group of requests.

    Latencies run from the request's start in a closed loop, and in an open one from when it was
    due, to the last byte of the answer. They are in milliseconds, over every request that was
    answered, whatever its status; a request without an answer has none. They are ``None`` where
    nothing was answered. A percentile is the smallest latency that the given share of requests
    did not exceed (nearest rank), to 0.1 %.

    Args:
        requests: Requests that ended.
        successes: Requests that were answered with a status below 400.
        errors: How often each error occurred: a status such as ``"409"``, or where no answer
            came, the reason in words, such as ``"connection refused"``.
        requests_per_second: ``requests`` over the duration of the whole run.
        statuses: How often each status was answered.
        latencies: All of them.
    """

    requests: int
    successes: int
    errors: Mapping[str, int]
    requests_per_second: float
    statuses: Mapping[int, int]
    latencies: Histogram

    @property
    def success_rate(self) -> float:
        """Share of requests that succeeded, from 0.0 to 1.0; 0.0 where none was sent."""
        return self.successes / self.requests if self.requests else 0.0

    @property
    def p50_ms(self) -> float | None:
        """Median latency."""
        return self.latencies.percentile(50)

    @property
    def p90_ms(self) -> float | None:
        """Latency that 90 % did not exceed."""
        return self.latencies.percentile(90)

    @property
    def p99_ms(self) -> float | None:
        """Latency that 99 % did not exceed."""
        return self.latencies.percentile(99)

    @property
    def max_ms(self) -> float | None:
        """Longest latency, exactly."""
        return self.latencies.max_ms

    def as_json(self) -> dict[str, Any]:
        """Return the figures as values that JSON knows; durations in the unit of their name."""
        percentiles = {
            f"p{percent:g}_ms": rounded(self.latencies.percentile(percent))
            for percent in PERCENTILES
        }
        return {
            "requests": self.requests,
            "successes": self.successes,
            "success_rate": self.success_rate,
            "errors": dict(self.errors),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "requests_per_second": rounded(self.requests_per_second),
            "mean_ms": rounded(self.latencies.mean_ms),
            **percentiles,
            "max_ms": rounded(self.max_ms),
        }


def rounded(number: float | None) -> float | None:
    """Return a number with three decimals."""
    return None if number is None else round(number, _DECIMALS)


@dataclass(frozen=True, slots=True)
class Second:
    """What ended within one second of a run.

    Args:
        at: Whole seconds since the start, the warm-up left out.
        requests: Requests that ended.
        errors: Those without success.
        p50_ms: Median latency of the answers.
        p99_ms: Latency that 99 % did not exceed.
        max_ms: Longest latency.
    """

    at: int
    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True)
class Generator:
    """How the generator itself did.

    Args:
        cpu_share: Share of one core that its process used. Near 1.0, latencies are its own.
        unfinished: Requests that were under way when the run was stopped; counted nowhere else.
        late: Requests of an open loop that the generator started later than it should by more
            than ``LATE_AFTER``. Their latencies have that delay in them.
        late_max_ms: Longest such delay of all requests.
        queued: Requests of an open loop that had to wait for one of its connections, because the
            server had not answered those before. Their latencies have that wait in them.
    """

    cpu_share: float = 0.0
    unfinished: int = 0
    late: int = 0
    late_max_ms: float = 0.0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The outcome of a load run.

    Args:
        seconds: Time from the first request to the last answer, the warm-up left out.
        total: Figures of all requests together.
        kinds: Figures by name of the request's kind, in the scenario's order; a kind that was
            never drawn has zeros.
        timeline: The seconds in which a request ended, in their order.
        generator: How the generator itself did.
    """

    seconds: float
    total: Figures
    kinds: Mapping[str, Figures]
    timeline: tuple[Second, ...] = ()
    generator: Generator = field(default_factory=Generator)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended.

    Args:
        error: ``None`` for a success, else the error, as in `Figures.errors`.
        latency: Seconds until the answer was complete; ``None`` where none came.
        status: Of the answer; ``None`` where none came.
        ended: Monotonic time in seconds at its end.
    """

    error: str | None
    latency: float | None
    status: int | None = None
    ended: float = 0.0


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: Histogram = field(default_factory=Histogram)

    def add(self, outcome: Outcome) -> None:
        self.requests += 1
        if outcome.error is not None:
            self.errors[outcome.error] += 1
        if outcome.status is not None:
            self.statuses[outcome.status] += 1
        if outcome.latency is not None:
            self.latencies.record(outcome.latency)

    def figures(self, seconds: float) -> Figures:
        return Figures(
            requests=self.requests,
            successes=self.requests - self.errors.total(),
            errors=MappingProxyType(dict(self.errors.most_common())),
            requests_per_second=self.requests / seconds if seconds > 0 else 0.0,
            statuses=MappingProxyType(dict(sorted(self.statuses.items()))),
            latencies=deepcopy(self.latencies),
        )

    def second(self, at: int) -> Second:
        latencies = self.latencies
        p50, p99 = latencies.percentile(50), latencies.percentile(99)
        return Second(at, self.requests, self.errors.total(), p50, p99, latencies.max_ms)


def _sum(tallies: Iterable[_Tally]) -> _Tally:
    total = _Tally()
    for tally in tallies:
        total.requests += tally.requests
        total.errors.update(tally.errors)
        total.statuses.update(tally.statuses)
        total.latencies.add(tally.latencies)
    return total


class Recording:
    """The tallies of a run, by kind of request and by second.

    Args:
        names: The kinds that can occur.
        begun: Monotonic time in seconds at the start.
    """

    def __init__(self, names: Iterable[str], begun: float = 0.0) -> None:
        self.begun = begun
        self._tallies = {name: _Tally() for name in names}
        self._timeline: list[Second] = []
        self._second, self._at = _Tally(), 0

    def add(self, name: str, outcome: Outcome) -> None:
        """Count one finished request under its kind."""
        self._tallies[name].add(outcome)
        at = int(outcome.ended - self.begun)
        if at != self._at:
            self._end_second()
            self._at = at
        self._second.add(outcome)

    def result(self, seconds: float, generator: Generator | None = None) -> LoadResult:
        """Return the figures of everything counted so far, for a run of this many seconds."""
        self._end_second()
        kinds = {name: tally.figures(seconds) for name, tally in self._tallies.items()}
        return LoadResult(
            seconds=seconds,
            total=_sum(self._tallies.values()).figures(seconds),
            kinds=MappingProxyType(kinds),
            timeline=tuple(self._timeline),
            generator=generator or Generator(),
        )

    def _end_second(self) -> None:
        if self._second.requests:
            self._timeline.append(self._second.second(self._at))
            self._second = _Tally()
