"""Distributions of durations: the gaps between arrivals, and the holds of connections."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, pairwise
from operator import mul
from random import Random
from statistics import NormalDist, fmean
from typing import Protocol

from penstock.base_error import SettingsError
from penstock.pool.policy import is_number

_Z99 = NormalDist().inv_cdf(0.99)
LARGEST_P99 = math.exp(_Z99**2 / 2)
"""How many times its mean the 99th percentile of a lognormal distribution is at most: 14.97."""


def lognormal_sigma(ratio: float) -> float:
    """Return the standard deviation of the logarithms of lognormal durations.

    Args:
        ratio: How many times their mean their 99th percentile is, from 1.0 to ``LARGEST_P99``.
    """
    return _Z99 - math.sqrt(max(0.0, _Z99**2 - 2 * math.log(ratio)))


class Durations(Protocol):
    """A source of durations."""

    @property
    def mean(self) -> float:
        """The mean duration in seconds."""

    def draws(self, random: Random) -> Iterator[float]:
        """Yield durations in seconds, without end.

        Args:
            random: The source of chance.
        """


def check(name: str, value: float, accepted: str, is_accepted: Callable[[float], bool]) -> None:
    """Check one number of a model.

    Args:
        name: Its name.
        value: The number.
        accepted: What is accepted, in words.
        is_accepted: Returns whether a number is accepted.

    Raises:
        SettingsError: It is not a finite number, or not accepted.
    """
    if not (is_number(value) and math.isfinite(value) and is_accepted(value)):
        raise SettingsError(f"{name}={value!r}: {accepted} is accepted")


def check_positive(name: str, value: float) -> None:
    """Check that a number is finite and greater than 0.

    Args:
        name: Its name.
        value: The number.

    Raises:
        SettingsError: It is not.
    """
    check(name, value, "a number greater than 0", lambda number: number > 0)


def check_share(name: str, value: float) -> None:
    """Check that a number lies between 0 and 1.

    Args:
        name: Its name.
        value: The number.

    Raises:
        SettingsError: It does not.
    """
    check(name, value, "a number from 0 to 1", lambda number: 0 <= number <= 1)


def _check_each(name: str, values: Sequence[float]) -> None:
    if not values:
        raise SettingsError(f"{name}={values!r}: one or more is accepted")
    for value in values:
        check(name, value, "numbers of 0 or more", lambda number: number >= 0)


@dataclass(frozen=True, slots=True)
class Constant:
    """The same duration each time.

    Args:
        mean: Seconds.

    Raises:
        SettingsError: ``mean`` is below 0.
    """

    mean: float

    def __post_init__(self) -> None:
        _check_each("mean", [self.mean])

    def draws(self, random: Random) -> Iterator[float]:  # noqa: ARG002 - the protocol's
        """Yield the duration, without end.

        Args:
            random: Not used.
        """
        while True:
            yield self.mean


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponentially distributed durations; as gaps they make Poisson arrivals.

    Args:
        mean: Seconds.

    Raises:
        SettingsError: ``mean`` is not greater than 0.
    """

    mean: float

    def __post_init__(self) -> None:
        check_positive("mean", self.mean)

    def draws(self, random: Random) -> Iterator[float]:
        """Yield durations, without end.

        Args:
            random: The source of chance.
        """
        log, draw, scale = math.log, random.random, -self.mean
        while True:
            yield scale * log(1.0 - draw())


def poisson(rate: float) -> Exponential:
    """Return the gaps of Poisson arrivals: each request arrives independently of all others.

    Args:
        rate: Requests per second.

    Raises:
        SettingsError: ``rate`` is not greater than 0.
    """
    check_positive("rate", rate)
    return Exponential(1 / rate)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Lognormally distributed durations: most are short, a few are long, as those of queries.

    Args:
        mean: Seconds.
        p99: Seconds that 99 % do not exceed: from ``mean`` to 14.97 times ``mean``.

    Raises:
        SettingsError: A value is out of its range.
    """

    mean: float
    p99: float

    def __post_init__(self) -> None:
        check_positive("mean", self.mean)
        most = self.mean * LARGEST_P99
        accepted = f"a number from mean ({self.mean:g}) to {most:g}"
        check("p99", self.p99, accepted, lambda p99: self.mean <= p99 <= most)

    def draws(self, random: Random) -> Iterator[float]:
        """Yield durations, without end.

        Args:
            random: The source of chance.
        """
        sigma = lognormal_sigma(self.p99 / self.mean)
        mu = math.log(self.mean) - sigma**2 / 2
        exp, gauss = math.exp, random.gauss
        while True:
            yield exp(gauss(mu, sigma))


@dataclass(frozen=True)
class Samples:
    """Durations drawn at random from measured ones, each independently.

    Args:
        seconds: The measured durations.

    Raises:
        SettingsError: There is none, or one is below 0.
    """

    seconds: Sequence[float]

    def __post_init__(self) -> None:
        _check_each("seconds", self.seconds)

    @property
    def mean(self) -> float:
        """The mean duration in seconds."""
        return fmean(self.seconds)

    def draws(self, random: Random) -> Iterator[float]:
        """Yield durations, without end.

        Args:
            random: The source of chance.
        """
        draw, seconds, count = random.random, self.seconds, len(self.seconds)
        while True:
            yield seconds[int(draw() * count)]


class Recorded(Samples):
    """Measured durations in the order in which they were measured, repeated where they end.

    Args:
        seconds: The measured durations.

    Raises:
        SettingsError: There is none, or one is below 0.
    """

    def draws(self, random: Random) -> Iterator[float]:  # noqa: ARG002 - the protocol's
        """Yield the durations in their order, without end.

        Args:
            random: Not used.
        """
        return cycle(self.seconds)


@dataclass(frozen=True)
class Buckets:
    """Durations drawn from a histogram, evenly within each bucket.

    Args:
        bounds: Upper bounds of the buckets in seconds, ascending; the first bucket begins at 0.
        counts: Durations in each bucket, then the number of longer ones, which count as long as
            the last bound.
        mean: Their measured mean in seconds, to which the draws are scaled.

    Raises:
        SettingsError: A value is out of its range, or nothing was counted.
    """

    bounds: Sequence[float]
    counts: Sequence[float]
    mean: float

    def __post_init__(self) -> None:
        _check_each("bounds", self.bounds)
        _check_each("counts", self.counts)
        check_positive("mean", self.mean)
        if any(high <= low for low, high in pairwise([0.0, *self.bounds])):
            raise SettingsError(f"bounds={self.bounds!r}: ascending numbers above 0 are accepted")
        if len(self.counts) != len(self.bounds) + 1:
            raise SettingsError(f"counts: {len(self.bounds) + 1} numbers are accepted")
        check_positive("the sum of counts", sum(self.counts))

    def draws(self, random: Random) -> Iterator[float]:
        """Yield durations, without end.

        Args:
            random: The source of chance.
        """
        lows, highs = [0.0, *self.bounds], [*self.bounds, self.bounds[-1]]
        middle = [(low + high) / 2 for low, high in zip(lows, highs, strict=True)]
        total = sum(self.counts)
        scale = self.mean * total / sum(map(mul, middle, self.counts))
        sums = list(accumulate(self.counts))
        while True:
            number = bisect_right(sums, total * random.random(), 0, len(sums) - 1)
            yield scale * random.uniform(lows[number], highs[number])


@dataclass(frozen=True, slots=True)
class Bursts:
    """The gaps of Poisson arrivals whose rate jumps up and down.

    Bursts and the lulls between them are exponentially long (a Markov-modulated Poisson process
    of two states).

    Args:
        rate: Requests per second, in the mean of bursts and lulls.
        factor: How many times ``rate`` the rate of a burst is.
        share: Share of the time that bursts take; ``factor * share`` is at most 1.
        seconds: Mean length of a burst.

    Raises:
        SettingsError: A value is out of its range.
    """

    rate: float
    factor: float = 4.0
    share: float = 0.1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_positive("rate", self.rate)
        check_positive("seconds", self.seconds)
        check("share", self.share, "a number between 0 and 1", lambda share: 0 < share < 1)
        accepted = f"a number from 1 to 1 / share = {1 / self.share:g}"
        check("factor", self.factor, accepted, lambda factor: 1 <= factor <= 1 / self.share)

    @property
    def mean(self) -> float:
        """The mean gap in seconds."""
        return 1 / self.rate

    def draws(self, random: Random) -> Iterator[float]:
        """Yield gaps, without end; a lull comes first.

        Args:
            random: The source of chance.
        """
        lull_rate = self.rate * (1 - self.factor * self.share) / (1 - self.share)
        lull_seconds = self.seconds * (1 - self.share) / self.share
        phases = cycle([(lull_rate, lull_seconds), (self.rate * self.factor, self.seconds)])
        gap = 0.0
        for rate, seconds in phases:
            left = random.expovariate(1 / seconds)
            while rate and (step := random.expovariate(rate)) < left:
                left -= step
                yield gap + step
                gap = 0.0
            gap += left
