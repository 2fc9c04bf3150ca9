"""The wait queue: first in, first out, with admission control."""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from penstock.pool.slot import CHECKED_OUT, Slot


class RejectReason(StrEnum):
    """The phase in which a caller was rejected."""

    WAITING = "waiting"
    """Its deadline passed while every connection was checked out."""
    CONNECTING = "connecting"
    """Its deadline passed while a connection was being opened."""
    SHED = "shed"
    """The pool was overloaded, and it had waited for longest."""
    DEADLINE_UNREACHABLE = "deadline-unreachable"
    """At the pace of the queue its turn would come after its deadline."""
    FULL = "full"
    """``max_waiting`` callers were waiting."""
    SUSPENDED = "suspended"
    """Its deadline passed while checkout was suspended."""
    CLOSED = "closed"
    """The pool is closed."""
    NESTED = "nested"
    """Its task holds a connection of the saturated pool, so that it would wait for itself."""
    FAILED = "failed"
    """A connection could not be opened."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The answer to a caller that gets no slot.

    Args:
        why: The phase.
        error: The driver's error, where a connection could not be opened.
    """

    why: RejectReason
    error: BaseException | None = None


PACE_SAMPLES = 32
"""Hand-overs that the pace of the queue is measured by: one late hand-over changes it little."""
PARTS = 4
"""Parts of an interval. If hardly any caller arrived in two of them, the others were bursts."""
SUSTAINED_SHARE = 0.9
"""Arrivals per hand-over from which the queue does not drain, so that it counts as standing."""


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """How the wait queue is kept short.

    Args:
        max_waiting: Waiters at most; None for no limit.
        codel_target: Seconds that every waiter of an interval has to wait before waiters are
            shed; None to shed none. The method is CoDel's (RFC 8289) as Facebook uses it for
            requests: B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015.
        codel_interval: Seconds that the shortest wait has to stay above the target.
    """

    max_waiting: int | None = None
    codel_target: float | None = None
    codel_interval: float = 0.1

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two heartbeats of the event loop, while there are waiters.

        A quarter of a second is short for a request and costs nothing; a short ``codel_interval``
        needs to detect stalls that are as short.
        """
        return 0.25 if self.codel_target is None else min(0.25, self.codel_interval / 4)


class QueueClock:
    """The time of a queue, from which stalls of the event loop are left out.

    While the loop is blocked no waiter can be served, and the length of the wait says nothing
    about the load. Ten thousand tasks that start in one iteration block it as well: only a
    heartbeat, which takes another iteration, advances the clock.

    Args:
        heartbeat_interval: Seconds between two heartbeats; the next may be late by as much.
    """

    __slots__ = ("_beaten_at", "_longest", "_time")

    def __init__(self, heartbeat_interval: float) -> None:
        self._longest = 2 * heartbeat_interval
        self._beaten_at = self._time = -math.inf

    def start(self, now: float) -> float:
        """Start the clock, when there was no heartbeat before, and return the queue's time.

        Args:
            now: The time.
        """
        self._beaten_at = self._time = now
        return now

    def beat(self, now: float) -> None:
        """Advance the clock.

        Args:
            now: The time.
        """
        self._time = self.at(now)
        self._beaten_at = now

    def at(self, now: float) -> float:
        """Return the queue's time.

        Args:
            now: The time.
        """
        return self._time + min(now - self._beaten_at, self._longest)


class _Demand:
    """Whether callers keep arriving faster than they are served, or a burst is draining.

    Args:
        interval: Seconds that are measured. Arrivals are counted in each part of them by itself;
            releases come in bunches and are counted together.
    """

    __slots__ = ("_arrived", "_arrived_now", "_part", "_served", "_served_now", "_since")

    def __init__(self, interval: float) -> None:
        self._part = interval / PARTS
        self._arrived: deque[int] = deque(maxlen=PARTS)
        """Callers that arrived in each of the last parts."""
        self._served: deque[int] = deque(maxlen=PARTS)
        """Waiters that got a connection in each of the last parts."""
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Start to measure anew."""
        self._since = now
        self._arrived_now = self._served_now = 0
        self._arrived.clear()
        self._served.clear()

    def arrived(self, now: float) -> None:
        """Count a caller that arrives, whether it is admitted or not."""
        self._turn(now)
        self._arrived_now += 1

    def served(self, now: float) -> None:
        """Count a waiter that got a connection."""
        self._turn(now)
        self._served_now += 1

    def excess(self, now: float, *, stands: bool) -> int:
        """Return how many waiters to shed for each that is served; 0 where the queue drains.

        Args:
            now: The time.
            stands: Whether the queue has been standing: then a lull says little.
        """
        self._turn(now)
        if len(self._arrived) < PARTS:
            return 0
        arrived, served = sorted(self._arrived), sum(self._served)
        usual = arrived[PARTS // 2]  # bursts do not count
        least = usual if stands else arrived[1]
        if not least or least * PARTS < SUSTAINED_SHARE * served:
            return 0
        return max(1, usual * PARTS // served) if served else 1

    def _turn(self, now: float) -> None:
        if now - self._since < self._part:
            return
        passed = (now - self._since) // self._part
        self._arrived.append(self._arrived_now)
        self._served.append(self._served_now)
        nothing = [0] * int(min(passed - 1, PARTS))
        self._arrived.extend(nothing)
        self._served.extend(nothing)
        self._arrived_now = self._served_now = 0
        self._since += passed * self._part


class Admission:
    """Decides who may wait, and who is shed; times are in seconds on the queue's clock.

    Args:
        policy: The limits.
    """

    __slots__ = ("_demand", "_good_at", "_handed_over_at", "_shed_at", "_target", "policy")

    def __init__(self, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self._target = math.inf if policy.codel_target is None else policy.codel_target
        self._demand = _Demand(policy.codel_interval)
        self._good_at = 0.0
        """When a waiter was last served within the target, or the queue was empty."""
        self._shed_at = -math.inf
        """When a waiter was last to be shed."""
        self._handed_over_at: deque[float] = deque(maxlen=PACE_SAMPLES)
        """The last hand-overs since the queue began to fill."""

    def rejects(self, waiting: float, now: float, timeout: float) -> RejectReason | None:
        """Return why a caller is rejected; None where it may wait.

        Args:
            waiting: Waiters in front of it; below 0 where a connection can be opened for it.
            now: The time.
            timeout: Seconds until its deadline.

        Returns:
            ``FULL`` where too many wait, ``DEADLINE_UNREACHABLE`` where at the pace of the queue
            its turn would come after its deadline.
        """
        self._demand.arrived(now)
        if waiting < 0:
            return None
        most = self.policy.max_waiting
        if most is not None and waiting >= most:
            return RejectReason.FULL
        if len(self._handed_over_at) == PACE_SAMPLES:
            pace = (now - self._handed_over_at[0]) / (PACE_SAMPLES - 1)
            if (waiting + 1) * pace > timeout:
                return RejectReason.DEADLINE_UNREACHABLE
        return None

    def busy(self, now: float) -> None:
        """Record that the queue was empty and begins to fill."""
        self._good_at = now
        self.reset_pace()

    def restart(self, now: float) -> None:
        """Start to measure anew: the past says nothing about the future."""
        self.busy(now)
        self._demand.reset(now)
        self._shed_at = -math.inf

    def reset_pace(self) -> None:
        """Measure the pace anew."""
        self._handed_over_at.clear()

    def sheds(self, waited: float, now: float) -> int:
        """Return how many of the oldest waiters are shed when a connection is handed over.

        None, unless the queue is standing: for an interval no waiter was served within the target,
        and in three quarters of it about as many callers arrived as were served, or more. So a
        burst, whose waiters all become late, is served. Shedding more at once than arrive in
        excess would empty the queue with one hand-over. A queue that was standing within the last
        interval is standing again once its oldest waiter is late, while as many callers arrive as
        before.

        Args:
            waited: Seconds that the oldest waiter has waited.
            now: The time.
        """
        if not self.is_late(waited):
            return 0
        interval = self.policy.codel_interval
        stands = now - self._shed_at <= interval
        if not stands and now - self._good_at <= interval:
            return 0
        excess = self._demand.excess(now, stands=stands)
        if excess:
            self._shed_at = now
        return excess

    def is_late(self, waited: float) -> bool:
        """Return whether a waiter that has waited for so long may be shed."""
        return waited > 2 * self._target

    def handed_over(self, waited: float, now: float) -> None:
        """Record that a waiter got a connection, by which the pace of the queue is measured.

        Args:
            waited: Seconds that it waited.
            now: The time.
        """
        self._demand.served(now)
        self._handed_over_at.append(now)
        if waited <= self._target:
            self._good_at = now


class Waiter(ABC):
    """A caller in the queue; it is answered exactly once unless it withdraws.

    Args:
        deadline: When it stops waiting; the ledger's caller reports that by ``expire``.
        retry_for: Seconds for which a failed connect is tried again for it, within the deadline.
    """

    __slots__ = ("arrived", "deadline", "held", "queued_at", "retry_for")

    def __init__(self, deadline: float = math.inf, retry_for: float = math.inf) -> None:
        self.deadline = deadline
        self.retry_for = retry_for
        self.arrived = math.nan
        """When it queued up."""
        self.queued_at = math.nan
        """The same on the clock of the queue."""
        self.held: frozenset[Slot] = frozenset()
        """The slots that it holds while it waits."""

    @abstractmethod
    def accept(self, slot: Slot) -> bool:
        """Take the slot; return False where it no longer waits."""

    @abstractmethod
    def reject(self, rejection: Rejection) -> None:
        """End the wait without a slot."""


@dataclass(slots=True)
class WaitersTally:
    """Counts of the queue since it was made.

    ``queued`` is the sum of ``handed_over``, ``rejected``, ``withdrawn`` and the present waiters.
    ``not_admitted`` callers did not enter the queue.
    """

    queued: int = 0
    handed_over: int = 0
    rejected: int = 0
    withdrawn: int = 0
    not_admitted: int = 0


class Waiters:
    """The wait queue of one pool.

    Args:
        policy: How it is kept short.
    """

    __slots__ = ("_admission", "_clock", "heartbeat_interval", "queue", "tally")

    def __init__(self, policy: AdmissionPolicy) -> None:
        self._admission = Admission(policy)
        self.heartbeat_interval = policy.heartbeat_interval
        self._clock = QueueClock(self.heartbeat_interval)
        self.queue: OrderedDict[Waiter, None] = OrderedDict()
        """The oldest first; no waiter overtakes another."""
        self.tally = WaitersTally()

    def __len__(self) -> int:
        return len(self.queue)

    def join(self, waiter: Waiter, waiting: float, now: float) -> Rejection | None:
        """Queue up at the end.

        Args:
            waiter: The caller.
            waiting: Waiters that a release serves before it; below 0 where a connection can be
                opened for it.
            now: The time.

        Returns:
            A rejection where it is not admitted.
        """
        moment = self._moment(now)
        why = self._admission.rejects(waiting, moment, waiter.deadline - now)
        if why is not None:
            self.tally.not_admitted += 1
            return Rejection(why)
        waiter.arrived, waiter.queued_at = now, moment
        self.queue[waiter] = None
        self.tally.queued += 1
        return None

    def rejoin(self, waiter: Waiter, arrived: float, now: float) -> None:
        """Queue up in front of all.

        Args:
            waiter: The caller.
            arrived: Since when it has waited.
            now: The time.
        """
        waiter.arrived = arrived
        waiter.queued_at = self._moment(now) - (now - arrived)
        self.queue[waiter] = None
        self.queue.move_to_end(waiter, last=False)
        self.tally.queued += 1

    def heartbeat(self, now: float) -> None:
        """Report that the event loop runs, each ``heartbeat_interval`` while there are waiters.

        Longer gaps are stalls, which do not count as waiting.

        Args:
            now: The time.
        """
        self._clock.beat(now)

    def _moment(self, now: float) -> float:
        if self.queue:
            return self._clock.at(now)
        moment = self._clock.start(now)
        self._admission.busy(moment)
        return moment

    def reset_pace(self) -> None:
        """Measure the pace of the queue anew: checkout is suspended."""
        self._admission.reset_pace()

    def restart(self, now: float) -> None:
        """Let every waiter wait from now on: checkout was suspended.

        Args:
            now: The time.
        """
        moment = self._clock.start(now)
        self._admission.restart(moment)
        for waiter in self.queue:
            waiter.arrived, waiter.queued_at = now, moment

    def withdraw(self, waiter: Waiter) -> bool:
        """Remove a waiter; return False where it was answered before."""
        if waiter not in self.queue:
            return False
        del self.queue[waiter]
        self.tally.withdrawn += 1
        return True

    def reject(self, waiter: Waiter, rejection: Rejection) -> None:
        """Reject a waiter, if it still waits."""
        if waiter in self.queue:
            del self.queue[waiter]
            self.tally.rejected += 1
            waiter.reject(rejection)

    def reject_oldest(self, rejection: Rejection) -> None:
        """Reject the oldest waiter."""
        self.reject(next(iter(self.queue)), rejection)

    def reject_all(self, rejection: Rejection) -> None:
        """Reject every waiter."""
        while self.queue:
            self.reject_oldest(rejection)

    def hand_over(self, slot: Slot, now: float, *, may_shed: bool = True) -> bool:
        """Hand the slot to the oldest waiter that is not shed and accepts it.

        Args:
            slot: A free slot.
            now: The time.
            may_shed: Whether waiters may be shed; the last one, for whom the slot is, never is.

        Returns:
            Whether a waiter has taken the slot.
        """
        moment = self._clock.at(now)
        shed = self._too_late(moment) if may_shed and self.queue else []
        for waiter in shed:
            del self.queue[waiter]
        if self._offer(slot, now, moment):
            for waiter in shed:
                self.tally.rejected += 1
                waiter.reject(Rejection(RejectReason.SHED))
            return True
        self.queue.update(dict.fromkeys(shed))
        return self._offer(slot, now, moment)

    def _too_late(self, moment: float) -> list[Waiter]:
        admission, queue = self._admission, self.queue
        excess = admission.sheds(moment - next(iter(queue)).queued_at, moment)
        oldest = islice(queue, min(excess, len(queue) - 1)) if excess else ()
        return [waiter for waiter in oldest if admission.is_late(moment - waiter.queued_at)]

    def _offer(self, slot: Slot, now: float, moment: float) -> bool:
        while self.queue:
            waiter, _ = self.queue.popitem(last=False)
            if waiter.accept(slot):
                slot.state = CHECKED_OUT
                slot.checked_out_at = now
                self.tally.handed_over += 1
                self._admission.handed_over(moment - waiter.queued_at, moment)
                return True
            self.tally.withdrawn += 1
        return False
