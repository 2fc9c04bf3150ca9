"""How long a request holds a connection, as a distribution."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, log, sqrt
from random import Random
from statistics import NormalDist

from penstock.planner.durations import LARGEST_P99, lognormal_sigma
from penstock.planner.erlang import Queue


def fitting_p99(mean: float, p99: float) -> float:
    """Return the 99th percentile nearest to a measured one that the distribution can have.

    Args:
        mean: Seconds.
        p99: As it was measured: the bound of a histogram's bucket, or of a few durations.
    """
    return min(max(p99, mean), mean * LARGEST_P99)


def _cells() -> tuple[tuple[float, float], ...]:
    """Return the middles and weights of cells of probability, which are finer towards 1.0."""
    bounds = [
        *(number / 100 for number in range(90)),
        *(0.9 + number / 1000 for number in range(80)),
        *(0.98 + number / 10_000 for number in range(200)),
        1.0,
    ]
    return tuple(((low + high) / 2, high - low) for low, high in pairwise(bounds))


_CELLS = _cells()


@dataclass(frozen=True, slots=True)
class HoldTime:
    """How long a connection is checked out by one request.

    Args:
        mean: Seconds.
        scv: Squared coefficient of variation: variance over squared mean.
        constant: Seconds of it that are the same each time.
        is_exponential: Whether the rest is exponential; else it is log-normal.
    """

    mean: float
    scv: float
    constant: float
    is_exponential: bool

    @classmethod
    def of(
        cls, query: float, p99: float | None = None, queries: float = 1.0, constant: float = 0.0
    ) -> "HoldTime":
        """Return the time of some queries, one after the other, and of what lies between.

        Args:
            query: Mean time of a query in seconds.
            p99: Its 99th percentile, from ``query`` to ``LARGEST_P99`` times that; the time is
                log-normal then. None for an exponential one.
            queries: Queries of each request.
            constant: Seconds for which the connection is held beside that.
        """
        scv = 1.0 if p99 is None else exp(lognormal_sigma(p99 / query) ** 2) - 1
        total = query * queries
        mean = total + constant
        # A sum of independent times: its variance grows as its mean does.
        scv *= query * total / mean**2
        return cls(mean, scv, constant, is_exponential=p99 is None and queries == 1)

    def quantile(self, share: float) -> float:
        """Return the seconds that a share of the requests does not exceed.

        Args:
            share: Above 0.0 and below 1.0.
        """
        return self._quantiles()(share)

    def draws(self, random: Random) -> Iterator[float]:
        """Yield durations in seconds, without end.

        Args:
            random: The source of chance.
        """
        quantile = self._quantiles()
        while True:
            yield quantile(random.random() or 0.5)  # there is no quantile of 0.0

    def _quantiles(self) -> Callable[[float], float]:
        constant, rest = self.constant, self.mean - self.constant
        if self.is_exponential:
            return lambda share: constant - rest * log(1 - share)
        variance = log(1 + self.scv * (self.mean / rest) ** 2)
        normal = NormalDist(log(rest) - variance / 2, sqrt(variance)) if variance else None
        return lambda share: constant + (exp(normal.inv_cdf(share)) if normal else rest)

    def queue(self, connections: int, per_second: float) -> Queue:
        """Return the queue in front of a pool that is asked for a connection so often.

        Args:
            connections: Of the pool.
            per_second: Checkouts per second, which come independently of each other (Poisson).
        """
        return Queue(connections, per_second * self.mean, self.mean, (1 + self.scv) / 2)

    def response_quantile(self, queue: Queue, share: float = 0.99) -> float:
        """Return the sum of wait and hold time that a share of the requests does not exceed.

        A request's wait does not depend on its own hold time, for the queue is first in, first out.

        Args:
            queue: As :meth:`queue` returns it.
            share: From 0.0 to below 1.0.

        Returns:
            Seconds; infinite where the queue grows without bound.
        """
        probability, mean_wait = queue.waiting_probability, queue.mean_wait_of_waiters
        if mean_wait == inf:
            return inf

        quantile = self._quantiles()
        points = [(quantile(share), weight) for share, weight in _CELLS]

        def above(seconds: float) -> float:
            return sum(
                weight
                if hold >= seconds
                else weight * probability * exp((hold - seconds) / mean_wait)
                for hold, weight in points
            )

        low, high = 0.0, points[-1][0] + queue.wait_quantile(1 - (1 - share) / 100)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if above(middle) > 1 - share else (low, middle)
        return high
