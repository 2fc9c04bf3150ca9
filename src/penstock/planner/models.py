"""What a simulation is told of the load, the pools, the fleet and the database."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Self

from penstock.base_error import SettingsError
from penstock.planner.durations import Constant, Durations, check, check_positive, check_share
from penstock.pool.policy import PoolPolicy, check_size, check_times


def _check_whole(name: str, value: int) -> None:
    check(name, value, "a whole number of 1 or more", lambda n: n >= 1 and float(n).is_integer())


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of the whole fleet.

    Args:
        arrivals: The gaps between them: ``poisson(rate)``, ``Bursts``, ``Recorded`` ...
        hold: How long each holds a connection while no other is in use: its queries, their round
            trips, BEGIN and COMMIT, and what the code does meanwhile.
        requests: How many arrive.
        deadline: Seconds from its arrival after which an answer is of no use; None for never.
        is_enforced: Whether the deadline ends the wait and the query, as those of Penstock do.

    Raises:
        SettingsError: A value is out of its range.
    """

    arrivals: Durations
    hold: Durations
    requests: int = 100_000
    deadline: float | None = None
    is_enforced: bool = True

    def __post_init__(self) -> None:
        _check_whole("requests", self.requests)
        check_positive("the mean of arrivals", self.arrivals.mean)
        if self.deadline is not None:
            check_positive("deadline", self.deadline)


@dataclass(frozen=True, slots=True)
class PoolModel:
    """The pool of each worker.

    Args:
        size: ``pool_size``.
        overflow: ``max_overflow``.
        timeout: ``pool_timeout`` in seconds; None for no limit.
        recycle: ``pool_recycle`` in seconds; below 0 for never.
        uses_lifo: Whether the connection released last is checked out first.
        policy: The other settings of the pool.
        starts_open: Whether ``size`` connections are open at the start.

    Raises:
        SettingsError: A value is out of its range.
    """

    size: int = 5
    overflow: int = 0
    timeout: float | None = 30.0
    recycle: float = -1.0
    uses_lifo: bool = False
    policy: PoolPolicy = PoolPolicy()  # noqa: RUF009 - it is frozen
    starts_open: bool = True

    def __post_init__(self) -> None:
        check_size(self.size, self.overflow)
        check_times(self.timeout, self.recycle)


@dataclass(frozen=True, slots=True)
class FleetModel:
    """The workers, each of which has a pool of its own on the same database.

    Args:
        instances: Machines, containers or pods.
        workers: Processes in each of them.
        takes_turns: Whether requests go to the workers in turn; otherwise at random, as the
            kernel spreads connections over processes that share a socket.

    Raises:
        SettingsError: A value is out of its range.
    """

    instances: int = 1
    workers: int = 1
    takes_turns: bool = False

    def __post_init__(self) -> None:
        _check_whole("instances", self.instances)
        _check_whole("workers", self.workers)


@dataclass(frozen=True, slots=True)
class ScalabilityLaw:
    """How a database slows down when more connections are in use at once.

    The universal scalability law: N. J. Gunther, "Guerrilla Capacity Planning", Springer, 2007.
    The throughput of n connections is ``n / stretch(n)`` times that of one.

    Args:
        contention: Share of the work that only one connection does at a time (sigma).
        coherency: Cost of each pair of connections that wait for each other's data (kappa); above
            0 the throughput has a peak and falls beyond it.

    Raises:
        SettingsError: A value is below 0.
    """

    contention: float
    coherency: float = 0.0

    def __post_init__(self) -> None:
        for name in ("contention", "coherency"):
            check(name, getattr(self, name), "a number of 0 or more", lambda number: number >= 0)

    def stretch(self, active: int) -> float:
        """Return how many times longer each hold takes.

        Args:
            active: Connections that are in use.
        """
        others = max(0, active - 1)
        return 1 + self.contention * others + self.coherency * active * others

    @property
    def peak(self) -> float:
        """The connections in use at which the throughput is greatest; infinite for no peak."""
        if not self.coherency:
            return math.inf
        return math.sqrt(max(0.0, 1 - self.contention) / self.coherency)

    @classmethod
    def fit(cls, measured: Iterable[tuple[float, float]]) -> Self:
        """Return the law that comes closest to measured throughputs, by relative least squares.

        Args:
            measured: Connections in use, and the throughput with them in any unit.

        Raises:
            SettingsError: There are less than three points, or a number is not greater than 0.
        """
        points = list(measured)
        for active, throughput in points:
            check("connections", active, "a number of 1 or more", lambda number: number >= 1)
            check_positive("throughput", throughput)
        if len({active for active, _ in points}) < 3:
            raise SettingsError("measured: three numbers of connections or more are accepted")
        # n / X(n) = (1 + contention (n - 1) + coherency n (n - 1)) / X(1), each relative to itself.
        rows = [[x / n * term for term in (1.0, n - 1, n * (n - 1))] for n, x in points]
        fits = [_fit(rows, terms) for terms in ((0, 1, 2), (0, 1), (0, 2), (0,))]
        _, scale, contention, coherency = min(fit for fit in fits if min(fit) >= 0)
        return cls(contention / scale, coherency / scale)


def _fit(rows: Sequence[Sequence[float]], terms: Sequence[int]) -> tuple[float, ...]:
    """Return the squared error of the best fit to 1 by some terms, and each term's factor."""
    matrix = [
        [*(sum(row[i] * row[j] for row in rows) for j in terms), sum(row[i] for row in rows)]
        for i in terms
    ]
    for place, pivot in enumerate(matrix):  # Gauss-Jordan; the matrix is positive definite
        pivot[:] = [value / pivot[place] for value in pivot]
        for row in matrix:
            if row is not pivot:
                row[:] = [a - row[place] * b for a, b in zip(row, pivot, strict=True)]
    factors = [0.0, 0.0, 0.0]
    for term, row in zip(terms, matrix, strict=True):
        factors[term] = row[-1]
    error = sum((sum(map(mul, row, factors)) - 1) ** 2 for row in rows)
    return error, *factors


@dataclass(frozen=True, slots=True)
class DatabaseModel:
    """The database that every pool connects to.

    Args:
        connect: How long it takes to open a connection.
        round_trip: Seconds to ping, recover or close a connection.
        connect_failures: Share of the attempts to connect that fail, 0.0 to 1.0.
        breaks: Share of the requests whose connection breaks, at the end of their hold.
        law: How it slows down when more connections are in use; None for not at all.

    Raises:
        SettingsError: A value is out of its range.
    """

    connect: Durations = Constant(0.003)  # noqa: RUF009 - it is frozen
    round_trip: float = 0.0005
    connect_failures: float = 0.0
    breaks: float = 0.0
    law: ScalabilityLaw | None = None

    def __post_init__(self) -> None:
        check("round_trip", self.round_trip, "a number of 0 or more", lambda number: number >= 0)
        check_share("connect_failures", self.connect_failures)
        check_share("breaks", self.breaks)
