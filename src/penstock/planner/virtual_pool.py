"""A pool on a virtual clock: the ledger that ships, and around it what the real pool has."""

import math
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappush
from random import Random
from typing import Any

from penstock.planner.models import DatabaseModel, PoolModel
from penstock.pool.housekeeper import INTERVAL, Housekeeper, HousekeeperPolicy
from penstock.pool.ledger import Ledger
from penstock.pool.queue import Rejection, RejectReason, Waiter
from penstock.pool.slot import Backoff, Close, CloseReason, Open, Ping, Slot


class Timers:
    """What is due at which time, in seconds since the start."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call a function at a time, after those that were set for the same time before."""
        self._number += 1
        heappush(self.heap, (when, self._number, call, arguments))


@dataclass
class Tally:
    """What became of the requests of all pools.

    Args:
        deadline: Seconds from the arrival within which an answer counts; infinite for no limit.
        arrived: Requests that arrived.
        queued: Requests that found no idle connection.
        in_time: Requests that were answered within the deadline.
        failed: Requests whose connection broke.
        cut_off: Requests whose enforced deadline passed while they held a connection.
    """

    deadline: float
    arrived: int = 0
    queued: int = 0
    in_time: int = 0
    failed: int = 0
    cut_off: int = 0
    ended_at: float = 0.0
    """When the last request ended."""
    rejected: Counter[RejectReason] = field(default_factory=Counter)
    waits: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds that each request waited that got a connection and had to wait."""
    responses: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds from the arrival to the answer, of those that were answered."""

    def answer(self, response: float) -> None:
        """Count a request whose hold has ended regularly."""
        self.responses.append(response)
        if response <= self.deadline:
            self.in_time += 1


class VirtualDatabase:
    """The database on the virtual clock, with the holds in progress.

    The speed is the same for all holds. So each ends when the work that every hold has done since
    the start reaches a number that is known when it begins, however often the speed changes.

    Args:
        model: How it behaves.
        connects: The source of chance for the duration of connects.
        failures: The source of chance for failures.
    """

    def __init__(self, model: DatabaseModel, connects: Random, failures: Random) -> None:
        self.model = model
        self.holds: list[tuple[float, int, Slot, float]] = []
        """The work at which a hold ends, its number, its slot, and the arrival of its request."""
        self.now = 0.0
        self.active = 0
        """Holds in progress."""
        self.busy = 0.0
        """Their durations so far, in sum."""
        self.open = self.peak = 0
        """Connections that are open or being opened, and the most that were."""
        self._connects, self._failures = model.connect.draws(connects), failures
        self._work, self._speed, self._number = 0.0, 1.0, 0

    def advance(self, now: float) -> None:
        """Advance the clock."""
        passed = now - self.now
        self._work += passed * self._speed
        self.busy += passed * self.active
        self.now = now

    def ends_at(self) -> float:
        """Return when the first hold ends at the present speed; infinity where there is none."""
        return self.now + (self.holds[0][0] - self._work) / self._speed if self.holds else math.inf

    def begin(self, slot: Slot, arrived: float, hold: float) -> int:
        """Begin a hold; return its number, which the slot has as its lease while it lasts."""
        self._number += 1
        slot.lease = self._number
        heappush(self.holds, (self._work + hold, self._number, slot, arrived))
        self._change(1)
        return self._number

    def end(self, slot: Slot) -> None:
        """End the slot's hold."""
        slot.lease = None
        self._change(-1)

    def _change(self, by: int) -> None:
        self.active += by
        if self.model.law is not None:
            self._speed = 1 / self.model.law.stretch(self.active)

    def breaks(self) -> bool:
        """Return whether the connection breaks whose hold ends now."""
        return 0 < self.model.breaks > self._failures.random()

    def next_connect(self) -> tuple[float, bool]:
        """Return the seconds that the next connect takes, and whether it fails."""
        return next(self._connects), self._failures.random() < self.model.connect_failures

    def count_open(self, by: int) -> None:
        """Count connections that are being opened, or were closed."""
        self.open += by
        self.peak = max(self.peak, self.open)


class _Request(Waiter):
    """A request that waits."""

    __slots__ = ("hold", "pool")

    def __init__(self, pool: "VirtualPool", hold: float, deadline: float, retry: float) -> None:
        super().__init__(deadline, retry)
        self.pool, self.hold = pool, hold

    def accept(self, slot: Slot) -> bool:
        self.pool.begin_after_wait(slot, self)
        return True

    def reject(self, rejection: Rejection) -> None:
        self.pool.reject(rejection)


_FAILURE = ConnectionError("the connect failed")


class VirtualPool:
    """The pool of one worker.

    Args:
        model: Its settings.
        database: What it connects to.
        timers: Call it back.
        tally: Counts what becomes of its requests.
        enforced: Seconds from its arrival after which a request is cut off; infinite for never.
        random: Its source of jitter.
    """

    def __init__(
        self,
        model: PoolModel,
        database: VirtualDatabase,
        timers: Timers,
        tally: Tally,
        *,
        enforced: float,
        random: Random,
    ) -> None:
        policy = model.policy
        self._model, self._database, self._timers = model, database, timers
        self._tally, self._enforced = tally, enforced
        self.ledger = Ledger(
            model.size,
            model.overflow,
            recycle=model.recycle,
            random=random,
            backoff=Backoff(random, model.timeout),
            admission=policy.admission,
            lifo=model.uses_lifo,
            connects_at_once=policy.connects_at_once,
        )
        self._timeout = math.inf if model.timeout is None else model.timeout
        self._retry_for = self._time_to_retry()
        self._beats = self._retries = self._expires = False
        """Whether the timer is set."""
        self._housekeeper = Housekeeper(
            self.ledger, HousekeeperPolicy(policy.min_idle, policy.overflow_idle, policy.keepalive)
        )
        timers.at(INTERVAL * random.random(), self._keep_house)

    def _time_to_retry(self) -> float:
        if self._model.timeout is None:
            return self._model.policy.connect_timeout
        retry = self._model.policy.connect_retry
        return (math.inf if retry is None else retry) if self._timeout else 0.0

    def open_all(self) -> None:
        """Have ``size`` connections open at the start."""
        for _ in range(self._model.size):
            self.ledger.add_connection(0.0, for_housekeeping=True)
        while self.ledger.actions:
            slot = self.ledger.actions.popleft().slot
            slot.content = self
            self._database.count_open(1)
            self.ledger.opened(slot, 0.0)

    # Requests.

    def arrive(self, hold: float) -> None:
        """Check out a connection for a request, or queue it up.

        Args:
            hold: Seconds for which it holds the connection at full speed.
        """
        now = self._database.now
        slot = self.ledger.acquire(now)
        if slot is None:
            self._tally.queued += 1
            self._wait(now, hold)
        else:
            self._begin(slot, now, hold)
        if self.ledger.actions:
            self._dispatch()

    def _wait(self, now: float, hold: float) -> None:
        ledger = self.ledger
        deadline = now + min(self._timeout, self._enforced)
        request = _Request(self, hold, deadline, self._retry_for)
        if not self._timeout:
            if not ledger.has_room():
                self.reject(ledger.rejection_for(request))
                return
            request.deadline = now + self._enforced
        rejection = ledger.wait(request, now)
        if rejection is not None:
            self.reject(rejection)
            return
        self._retry_later()
        if not self._beats:
            self._beat_later()
        if not self._expires and request.deadline < math.inf:
            self._expire_at(request.deadline)

    def reject(self, rejection: Rejection) -> None:
        """Count a request that gets no connection."""
        self._tally.rejected[rejection.why] += 1
        self._tally.ended_at = self._database.now

    def begin_after_wait(self, slot: Slot, request: _Request) -> None:
        """Begin the hold of a request that has waited."""
        self._tally.waits.append(self._database.now - request.arrived)
        self._begin(slot, request.arrived, request.hold)

    def _begin(self, slot: Slot, arrived: float, hold: float) -> None:
        database, until = self._database, arrived + self._enforced
        lease = database.begin(slot, arrived, hold)
        if until < math.inf and (database.model.law or database.now + hold > until):
            self._timers.at(until, self._cut_off, slot, lease)

    def end(self, slot: Slot, arrived: float) -> None:
        """End a hold.

        Args:
            slot: The slot that is held.
            arrived: When its request arrived.
        """
        database, tally, now = self._database, self._tally, self._database.now
        database.end(slot)
        tally.ended_at = now
        if database.breaks():
            tally.failed += 1
            self.ledger.close_connection(slot, CloseReason.DEAD)
        else:
            tally.answer(now - arrived)
            self.ledger.release(slot, now)
        if self.ledger.actions:
            self._dispatch()

    def _cut_off(self, slot: Slot, lease: int) -> None:
        if slot.lease == lease:
            self._database.end(slot)
            self._tally.ended_at = self._database.now
            self._tally.cut_off += 1
            self.ledger.recover(slot)
            self._after_round_trip(self.ledger.restore, slot)

    # Timers.

    def _expire_at(self, deadline: float) -> None:
        self._expires = True
        self._timers.at(deadline, self._expire)

    def _expire(self) -> None:
        # Each may wait for as long as the others, so that the oldest is the first to expire.
        queue, self._expires = self.ledger.waiters.queue, False
        while queue:
            oldest = next(iter(queue))
            if oldest.deadline > self._database.now:
                self._expire_at(oldest.deadline)
                return
            self.ledger.expire(oldest)

    def _beat_later(self) -> None:
        self._beats = True
        interval = self.ledger.waiters.heartbeat_interval
        self._timers.at(self._database.now + interval, self._beat)

    def _beat(self) -> None:
        self._beats = False
        if self.ledger.waiters:
            self.ledger.waiters.heartbeat(self._database.now)
            self._beat_later()

    def _retry_later(self) -> None:
        until = self.ledger.backoff.until
        if until > self._database.now and not self._retries:
            self._retries = True
            self._timers.at(until, self._retry)

    def _retry(self) -> None:
        self._retries = False
        self.ledger.open_for_waiters(self._database.now)
        self._dispatch()
        if self.ledger.waiters:
            self._retry_later()

    def _keep_house(self) -> None:
        self._housekeeper.run(self._database.now)
        self._dispatch()
        self._timers.at(self._database.now + self._housekeeper.interval(), self._keep_house)

    # The actions of the ledger.

    def _dispatch(self) -> None:
        actions = self.ledger.actions
        while actions:
            match actions.popleft():
                case Open(slot):
                    self._open(slot)
                case Close(slot):
                    self._after_round_trip(self._closed, slot)
                case Ping(slot):
                    self._after_round_trip(self.ledger.restore, slot)

    def _open(self, slot: Slot) -> None:
        slot.content = self
        self._database.count_open(1)
        seconds, fails = self._database.next_connect()
        timeout = self._model.policy.connect_timeout
        report = self._failed if fails or seconds > timeout else self.ledger.opened
        self._report_in(min(seconds, timeout), report, slot)

    def _after_round_trip(self, report: Callable[[Slot, float], None], slot: Slot) -> None:
        self._report_in(self._database.model.round_trip, report, slot)

    def _report_in(self, seconds: float, report: Callable[[Slot, float], None], slot: Slot) -> None:
        self._timers.at(self._database.now + seconds, self._report, report, slot)

    def _report(self, report: Callable[[Slot, float], None], slot: Slot) -> None:
        report(slot, self._database.now)
        self._dispatch()

    def _closed(self, slot: Slot, now: float) -> None:
        self._database.count_open(-1)
        self.ledger.remove(slot, now)

    def _failed(self, slot: Slot, now: float) -> None:
        self._database.count_open(-1)
        self.ledger.failed(slot, now, _FAILURE, transient=True)
        if self.ledger.waiters:
            self._retry_later()
