"""The recorder of one worker: it counts in mapped memory that every worker reads."""

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import nan

from penstock.pool.errors import ConnectFailed, FailureReason, reason_of
from penstock.pool.events import (
    CheckoutRejected,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRecovered,
    LeaseLeaked,
    NestedCheckoutSeen,
    OpeningFailed,
    Pinged,
    PoolEvent,
    PoolSnapshot,
)
from penstock.pool.queue import RejectReason
from penstock.pool.record import current_holder
from penstock.pool.slot import CloseReason
from penstock.telemetry.layout import (
    CHECKPOINTS,
    FAULT_BYTES,
    LAYOUT,
    ROUTES,
    SECONDS_KEPT,
    STATEMENTS,
    routes_of,
    statements_of,
    write_leases,
)
from penstock.telemetry.reading import (
    CHECKPOINT_SECONDS,
    NO_ROUTE,
    ROUTE_FIELDS,
    STATEMENT_FIELDS,
    LeaseSample,
)
from penstock.telemetry.schema import BOUNDS, COUNTERS, HISTOGRAMS, OPTIONAL, SAMPLE
from penstock.telemetry.worker_file import WorkerFile

YOUNG_AGE = 60.0
"""Seconds below which a closed connection counts as short-lived."""
SHORTEST_WAIT = 2 * BOUNDS[0]
"""Seconds; the first bucket is for checkouts that did not wait."""

_COUNTER = {name: LAYOUT.counter(name) for name in COUNTERS}
_CHECKINS, _CHECKOUTS = _COUNTER["checkins"], _COUNTER["checkouts"]
_WAITS = _COUNTER["waits"]
_HISTOGRAM = {name: LAYOUT.histogram(name) for name in HISTOGRAMS}
_HOLD, _WAIT = _HISTOGRAM["hold"], _HISTOGRAM["wait"]
_SUM = len(BOUNDS) + 1
_OF_POOL = tuple(each.name for each in fields(PoolSnapshot) if each.name in SAMPLE)
_SHED = (RejectReason.SHED, RejectReason.DEADLINE_UNREACHABLE, RejectReason.FULL)
_TIMEOUTS = (RejectReason.WAITING, RejectReason.CONNECTING)
_BROKEN = (CloseReason.DEAD, CloseReason.INVALID, CloseReason.LOST)

ServerNumbers = tuple[float, float, float, float]
"""The ``OPTIONAL`` fields of a sample: the server's connections and how many it accepts, the lag of
the replica furthest behind in bytes and in seconds; NaN for each that is not known."""
NOT_KNOWN: ServerNumbers = (nan, nan, nan, nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaNumbers:
    """What a worker has counted of its replicas, and how many there are.

    Args:
        replicas: Those that reads may go to.
        replicas_out: Those of them that serve none.
        replica_reads: Reads that they served.
        replica_fallbacks: Reads that the primary served because none of them could.
        position_waits: Reads that waited for one to show what was written before.
    """

    replicas: int
    replicas_out: int
    replica_reads: int
    replica_fallbacks: int
    position_waits: int


_OF_REPLICAS = ("replica_reads", "replica_fallbacks", "position_waits")


class Recorder:
    """Records the events of one pool, and everything else that is counted about a database.

    Args:
        file: The worker's own file.
    """

    def __init__(self, file: WorkerFile) -> None:
        self._numbers = numbers = file.numbers
        self._texts = file.texts
        self._routes = routes_of(numbers, file.texts)
        self._statements = statements_of(numbers, file.texts)
        self._before = dict.fromkeys(COUNTERS, 0.0)
        self._sums_before = (0.0, 0.0)
        self._wait_longest = 0.0
        self._checkpoint = int(time.time()) // CHECKPOINT_SECONDS
        self._replicas = {"replicas": 0.0, "replicas_out": 0.0}
        self._replicas_before: dict[str, int] = {}
        self.server = NOT_KNOWN
        self.is_cut_off = False
        """Whether a connection has died since the last one was opened."""

    # The hot path: once per lease.

    def returned(self, held: float, /) -> None:
        """Record a check-in.

        Args:
            held: Seconds since the checkout.
        """
        numbers = self._numbers
        numbers[_CHECKINS] += 1.0
        numbers[_HOLD + bisect_left(BOUNDS, held)] += 1.0
        numbers[_HOLD + _SUM] += held
        holder = current_holder.get()
        route = None if holder is None else holder.route
        row = self._routes[NO_ROUTE if route is None else route(),]
        numbers[row] += 1.0
        numbers[row + 1] += held
        if held > numbers[row + 2]:  # noqa: PLR1730 - max() costs more, on every lease
            numbers[row + 2] = held

    def waited(self, seconds: float, /) -> None:
        """Record a checkout that waited.

        Args:
            seconds: Duration of the wait.
        """
        self._numbers[_WAITS] += 1.0
        self._time("wait", max(seconds, SHORTEST_WAIT))
        self._wait_longest = max(self._wait_longest, seconds)

    # Rare events.

    def __call__(self, event: PoolEvent, /) -> None:
        """Record an event that is neither a checkout nor a check-in."""
        match event:
            case ConnectionOpened(seconds=seconds):
                self._count("opened")
                self._time("create", seconds)
                self._numbers[LAYOUT.unreachable] = self._numbers[LAYOUT.failures] = 0.0
                self.is_cut_off = False
            case OpeningFailed(error=error):
                self._count("open_failures")
                self._unreachable(error)
            case ConnectionClosed(why=why, age=age):
                self._count("closed")
                self._closed(why, age)
            case ConnectionRecovered():
                self._count("recovered")
            case CheckoutRejected(why=why, waited=waited):
                self._rejected(why, waited)
            case LeaseLeaked():
                self._count("leaks")
            case NestedCheckoutSeen():
                self._count("nested")
            case Pinged(seconds=seconds):
                self._time("ping", seconds)

    def _unreachable(self, error: BaseException) -> None:
        reason = error.reason if isinstance(error, ConnectFailed) else reason_of(error)
        if reason is FailureReason.TOO_MANY_CONNECTIONS:
            return  # the server was reached
        numbers = self._numbers
        numbers[LAYOUT.unreachable] = numbers[LAYOUT.unreachable] or time.time()
        numbers[LAYOUT.failures] += 1.0
        # Without the error's text, which names addresses and users.
        text = f"{reason}, {type(error.__cause__ or error).__name__}".encode()[:FAULT_BYTES]
        self._texts[LAYOUT.fault_text :][:FAULT_BYTES] = text.ljust(FAULT_BYTES, b"\0")

    def _closed(self, why: CloseReason, age: float) -> None:
        if why in _BROKEN:
            self._count("died")
            self.is_cut_off = True
        elif age < YOUNG_AGE and why is not CloseReason.DISPOSED:
            self._count("short_lived")

    def _rejected(self, why: RejectReason, waited: float) -> None:
        self._count("rejected")
        if why in _SHED:
            self._count("shed")
        elif why in _TIMEOUTS:
            self._count("timeouts")
        self._wait_longest = max(self._wait_longest, waited)

    def committed(self, seconds: float) -> None:
        """Record a COMMIT that the server has confirmed.

        Args:
            seconds: Its duration.
        """
        self._time("commit", seconds)

    def slow(self, statement: str, route: str, seconds: float, rows: int) -> None:
        """Record a statement that took longer than ``slow_query``.

        Args:
            statement: Its shape, without values.
            route: The route that ran it.
            seconds: Its duration.
            rows: Number of rows that it returned or changed.
        """
        self._count("slow")
        numbers, row = self._numbers, self._statements[statement, route]
        numbers[row] += 1.0
        numbers[row + 1] += seconds
        numbers[row + 2] = max(numbers[row + 2], seconds)
        numbers[row + 3] += max(rows, 0)
        numbers[row + 5] = time.time()

    def repeated(self, statement: str, route: str, times: int) -> None:
        """Record a statement that one request ran many times.

        Args:
            statement: Its shape, without values.
            route: The request's route.
            times: How often the request ran it.
        """
        numbers, row = self._numbers, self._statements[statement, route]
        numbers[row + 4] = max(numbers[row + 4], float(times))
        numbers[row + 5] = time.time()

    # Once per second.

    def sample(
        self,
        pool: PoolSnapshot,
        idle_in_transaction: int,
        oldest_wait: float,
        late: float,
        now: float,
    ) -> None:
        """Add a second to the history.

        Args:
            pool: The pool's numbers.
            idle_in_transaction: Connections that have been idle in transaction for 5 seconds.
            oldest_wait: Seconds for which the first caller in the queue has waited.
            late: Longest delay of the event loop within the second, in seconds.
            now: Unix time.
        """
        numbers = self._numbers
        checked_out = numbers[_CHECKINS] + pool.checked_out
        # Detached connections are never checked in.
        numbers[_CHECKOUTS] = max(numbers[_CHECKOUTS], checked_out)
        # Checkouts that did not wait are counted here, which keeps them off the hot path.
        numbers[_WAIT] = max(numbers[_WAIT], numbers[_CHECKOUTS] - numbers[_WAITS])
        values = {name: float(getattr(pool, name)) for name in _OF_POOL}
        values |= self._replicas
        values |= {"at": now, "idle_in_transaction": float(idle_in_transaction), "loop_late": late}
        values |= self._growth()
        values["wait_longest"] = max(self._wait_longest, oldest_wait)
        values |= zip(OPTIONAL, self.server, strict=True)
        self._wait_longest = 0.0
        written = int(numbers[LAYOUT.written])
        place = LAYOUT.history + written % SECONDS_KEPT * len(SAMPLE)
        for index, name in enumerate(SAMPLE):
            numbers[place + index] = values[name]
        numbers[LAYOUT.written] = float(written + 1)
        checkpoint = int(now) // CHECKPOINT_SECONDS
        if checkpoint != self._checkpoint:
            self._checkpoint = checkpoint
            self._keep_totals(checkpoint)

    def _keep_totals(self, checkpoint: int) -> None:
        numbers = self._numbers
        begin = LAYOUT.checkpoints + checkpoint % CHECKPOINTS * LAYOUT.of_checkpoint
        numbers[begin] = 0.0  # no reader takes a half for a whole
        place = begin + 1
        for table, width, rows in (
            (LAYOUT.routes, len(ROUTE_FIELDS), ROUTES),
            (LAYOUT.statements, len(STATEMENT_FIELDS), STATEMENTS),
        ):
            end, kept = table + rows * width, place + 2 * rows
            for column in (0, 1):  # how many, and for how many seconds
                numbers[place + column : kept : 2] = numbers[table + column : end : width]
            place = kept
        numbers[begin] = float(checkpoint * CHECKPOINT_SECONDS)

    def replicas(self, counted: ReplicaNumbers) -> None:
        """Take over what was counted of the replicas, for the next sample.

        Args:
            counted: Since the worker's start. What was counted before this file began is in the
                one before it.
        """
        for name in _OF_REPLICAS:
            count = getattr(counted, name)
            self._numbers[_COUNTER[name]] += count - self._replicas_before.get(name, count)
            self._replicas_before[name] = count
        self._replicas = {name: float(getattr(counted, name)) for name in self._replicas}

    def leases(self, leases: Sequence[LeaseSample]) -> None:
        """Write the leases of this moment in place of the previous ones.

        Args:
            leases: At most ``LEASES``.
        """
        write_leases(self._numbers, self._texts, leases)

    def _growth(self) -> dict[str, float]:
        numbers, before = self._numbers, self._before
        growth = {name: numbers[_COUNTER[name]] - before[name] for name in COUNTERS}
        self._before = {name: numbers[_COUNTER[name]] for name in COUNTERS}
        sums = numbers[_WAIT + _SUM], numbers[_HOLD + _SUM]
        growth["wait_seconds"] = sums[0] - self._sums_before[0]
        growth["hold_seconds"] = sums[1] - self._sums_before[1]
        self._sums_before = sums
        return growth

    def _count(self, name: str) -> None:
        self._numbers[_COUNTER[name]] += 1.0

    def _time(self, name: str, seconds: float) -> None:
        numbers, begin = self._numbers, _HISTOGRAM[name]
        numbers[begin + bisect_left(BOUNDS, seconds)] += 1.0
        numbers[begin + _SUM] += seconds
