"""Runs the pool's own ledger on a virtual clock, under a load that a model describes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop
from itertools import cycle, repeat
from operator import sub
from random import Random
from types import MappingProxyType

from penstock.planner.models import DatabaseModel, FleetModel, PoolModel, Workload
from penstock.planner.virtual_pool import Tally, Timers, VirtualDatabase, VirtualPool
from penstock.pool.queue import RejectReason

SAMPLES = 120
"""Samples over the time in which requests arrive."""
_TIMEOUTS = (RejectReason.WAITING, RejectReason.CONNECTING)
_SHED = (RejectReason.SHED, RejectReason.FULL, RejectReason.DEADLINE_UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long requests took, in seconds; NaN where there was none.

    Args:
        mean: The mean.
        p50: What 50 % did not exceed.
        p95: What 95 % did not exceed.
        p99: What 99 % did not exceed.
        longest: The longest.
    """

    mean: float
    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class SimulatedSample:
    """The whole fleet at one moment, and what happened since the sample before.

    Args:
        at: Seconds since the start.
        arrived: Requests that arrived.
        in_time: Requests that were answered within their deadline.
        rejected: Requests that got no connection.
        waiting: Requests that wait.
        checked_out: Connections in use.
        open: Connections in any state, which the server has or is about to have.
    """

    at: float
    arrived: int
    in_time: int
    rejected: int
    waiting: int
    checked_out: int
    open: int


@dataclass(frozen=True, slots=True)
class Simulated:
    """The outcome of a simulation; all times are in seconds.

    Each request ended in one way: ``requests`` is the sum of ``answered``, ``failed``,
    ``cut_off`` and of all ``rejected``.

    Args:
        requests: Requests that arrived.
        seconds: Time from the start to the end of the last request.
        answered: Requests whose hold ended regularly.
        in_time: Those that were answered within the deadline; all of them without one.
        failed: Requests whose connection broke during their hold.
        cut_off: Requests whose deadline passed during their hold.
        rejected: Requests that got no connection, by the pool's reason.
        queued: Requests that found no idle connection.
        wait: From the arrival to the checkout, of all requests that got a connection.
        response: From the arrival to the answer, of all that were answered.
        utilisation: Share of the limit of all pools that was in use, in the mean of the time,
            0.0 to 1.0; 0.0 without a limit.
        peak_connections: Connections of the whole fleet that were open or being opened at once.
        connects: Connections that were opened, those at the start included.
        connect_failures: Attempts to connect that failed.
        series: The course of the run.
    """

    requests: int
    seconds: float
    answered: int
    in_time: int
    failed: int
    cut_off: int
    rejected: Mapping[RejectReason, int]
    queued: int
    wait: Latencies
    response: Latencies
    utilisation: float
    peak_connections: int
    connects: int
    connect_failures: int
    series: tuple[SimulatedSample, ...]

    @property
    def wait_probability(self) -> float:
        """Share of the requests that found no idle connection, 0.0 to 1.0."""
        return self.queued / self.requests

    @property
    def goodput(self) -> float:
        """Requests per second that were answered within their deadline."""
        return self.in_time / self.seconds if self.seconds else 0.0

    @property
    def timeouts(self) -> int:
        """Requests that got no connection within ``pool_timeout`` or their deadline."""
        return sum(self.rejected.get(why, 0) for why in _TIMEOUTS)

    @property
    def shed(self) -> int:
        """Requests that were rejected to keep the queue short."""
        return sum(self.rejected.get(why, 0) for why in _SHED)

    def document(self) -> dict[str, float | None]:
        """Return its figures as values that JSON has; None where no request has one."""
        numbers = {
            "requests": self.requests,
            "utilisation": self.utilisation,
            "waiting_probability": self.wait_probability,
            "mean_wait": self.wait.mean,
            "wait_p99": self.wait.p99,
            "response_p99": self.response.p99,
            "timeouts": self.timeouts,
            "shed": self.shed,
        }
        return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def simulate(
    workload: Workload,
    pool: PoolModel,
    *,
    fleet: FleetModel = FleetModel(),  # noqa: B008 - it is frozen
    database: DatabaseModel = DatabaseModel(),  # noqa: B008 - it is frozen
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Simulated:
    """Return what becomes of a workload, decided by the ledger that the real pool has.

    The same arguments give the same outcome, bit by bit. Arrivals and holds are drawn from
    sources of their own, so that two pools with the same seed get the same requests.

    Args:
        workload: The requests of the whole fleet.
        pool: The pool of each worker.
        fleet: The workers.
        database: The database.
        seed: The source of chance.
        on_progress: Called now and then with the number of requests that have arrived.
    """
    return _Simulation(workload, pool, fleet, database, seed).run(on_progress)


class _Simulation:
    """One run: its clock, its chance and its pools."""

    def __init__(
        self,
        workload: Workload,
        pool: PoolModel,
        fleet: FleetModel,
        database: DatabaseModel,
        seed: int,
    ) -> None:
        def random(name: str) -> Random:
            return Random(f"{seed} {name}")  # noqa: S311 - the same requests in every run

        self._workload = workload
        self._gaps = workload.arrivals.draws(random("arrivals"))
        self._holds = workload.hold.draws(random("holds"))
        deadline = math.inf if workload.deadline is None else workload.deadline
        self._timers, self._tally = Timers(), Tally(deadline)
        self._database = VirtualDatabase(database, random("connects"), random("failures"))
        self._pools = [
            VirtualPool(
                pool,
                self._database,
                self._timers,
                self._tally,
                enforced=deadline if workload.is_enforced else math.inf,
                random=random(f"pool {number}"),
            )
            for number in range(fleet.instances * fleet.workers)
        ]
        for each in self._pools if pool.starts_open else ():
            each.open_all()
        self._turns = self._spread(random("turns"), takes_turns=fleet.takes_turns)
        self._series: list[SimulatedSample] = []
        self._sampled = (0, 0, 0)

    def _spread(self, random: Random, *, takes_turns: bool) -> Iterator[VirtualPool]:
        pools = self._pools
        if takes_turns or len(pools) == 1:
            return cycle(pools)
        return (pools[int(random.random() * len(pools))] for _ in repeat(None))

    def run(self, on_progress: Callable[[int], None]) -> Simulated:
        """Run until the last request has ended."""
        self._on_progress = on_progress
        database, timers = self._database, self._timers
        holds, left = database.holds, self._workload.requests
        self._sample_every(left * self._workload.arrivals.mean / SAMPLES)
        due = next(self._gaps)
        while left or holds or any(pool.ledger.waiters for pool in self._pools):
            ends, timer = database.ends_at(), timers.heap[0][0]
            if due <= ends and due <= timer:
                database.advance(due)
                self._arrive()
                left -= 1
                due = due + next(self._gaps) if left else math.inf
            elif ends <= timer:
                database.advance(ends)
                _, number, slot, arrived = heappop(holds)
                if slot.lease == number:
                    slot.content.end(slot, arrived)
            else:
                database.advance(timer)
                _, _, call, arguments = heappop(timers.heap)
                call(*arguments)
        self._sample()
        return self._result()

    def _arrive(self) -> None:
        self._tally.arrived += 1
        next(self._turns).arrive(next(self._holds))

    def _sample_every(self, seconds: float) -> None:
        self._sample()
        self._timers.at(self._database.now + seconds, self._sample_every, seconds)

    def _sample(self) -> None:
        database, tally = self._database, self._tally
        total = (tally.arrived, tally.in_time, tally.rejected.total())
        arrived, in_time, rejected = map(sub, total, self._sampled)
        self._sampled = total
        self._on_progress(tally.arrived)
        self._series.append(
            SimulatedSample(
                database.now,
                arrived,
                in_time,
                rejected,
                waiting=sum(len(pool.ledger.waiters) for pool in self._pools),
                checked_out=database.active,
                open=database.open,
            )
        )

    def _result(self) -> Simulated:
        tally, database = self._tally, self._database
        ledgers = [pool.ledger for pool in self._pools]
        available = sum(ledger.limit for ledger in ledgers) * tally.ended_at
        return Simulated(
            requests=tally.arrived,
            seconds=tally.ended_at,
            answered=len(tally.responses),
            in_time=tally.in_time,
            failed=tally.failed,
            cut_off=tally.cut_off,
            rejected=MappingProxyType(dict(tally.rejected)),
            queued=tally.queued,
            wait=_latencies(tally.waits, tally.arrived - tally.rejected.total()),
            response=_latencies(tally.responses, len(tally.responses)),
            utilisation=database.busy / available if available else 0.0,
            peak_connections=database.peak,
            connects=sum(ledger.tally.opened for ledger in ledgers),
            connect_failures=sum(ledger.tally.open_failures for ledger in ledgers),
            series=tuple(self._series),
        )


_NO_LATENCIES = Latencies(*[math.nan] * 5)
"""One object, for a run has to equal its repetition, and a NaN equals nothing."""


def _latencies(values: Sequence[float], count: int) -> Latencies:
    """Return the figures of ``count`` durations: the values, and 0.0 for each that is missing."""
    if not count:
        return _NO_LATENCIES
    ordered, zeros = sorted(values), count - len(values)

    def rank(share: float) -> float:
        place = math.ceil(share * count) - 1 - zeros
        return ordered[place] if place >= 0 else 0.0

    return Latencies(math.fsum(values) / count, *map(rank, (0.5, 0.95, 0.99, 1.0)))
