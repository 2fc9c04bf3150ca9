"""The queue for connections: first come, first served, and who is rejected at once."""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from penstock.pool.slot import CHECKED_OUT, Slot

__all__ = [
    "Admission",
    "AdmissionPolicy",
    "QueueClock",
    "RejectReason",
    "Rejection",
    "Waiter",
    "Waiters",
    "WaitersTally",
]


class RejectReason(StrEnum):
    """The phase in which a caller was refused."""

    WAITING = "waiting"
    """Its deadline passed while every connection was checked out."""
    CONNECTING = "connecting"
    """Its deadline passed while a connection was being opened."""
    SHED = "shed"
    """The queue had been standing for too long, and it was its turn to go."""
    DEADLINE_UNREACHABLE = "hopeless"
    """At the pace of the queue its turn would have come after its deadline."""
    FULL = "full"
    """As many as may wait were waiting."""
    SUSPENDED = "suspended"
    """Its deadline passed while checkout was suspended."""
    CLOSED = "closed"
    """The pool hands out nothing any more."""
    NESTED = "nested"
    """It waited for itself: its task holds a connection of the saturated pool."""
    FAILED = "failed"
    """A connection could not be opened."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """What a waiter gets instead of a slot.

    Args:
        why: The phase.
        error: What the driver raised, where a connection could not be opened.
    """

    why: RejectReason
    error: BaseException | None = None


PACE_SAMPLES = 32
"""Hand-overs from which the pace of the queue is told: enough that one late one says little."""
PARTS = 4
"""Of an interval. Where in two of them hardly anybody came, the others were bursts."""
SUSTAINED_SHARE = 0.9
"""A queue that loses less than a tenth of what is served in a while does not drain: it stands."""


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """How a queue of waiters is kept short.

    Args:
        max_waiting: Waiters at most; None for no bound.
        codel_target: Seconds that a hand-over may come late, again and again, before waiters are
            shed; None to shed nobody. The method is CoDel's (RFC 8289) as Facebook uses it for
            requests: B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015.
        codel_interval: Seconds that the shortest wait has to stay above the target.
    """

    max_waiting: int | None = None
    codel_target: float | None = None
    codel_interval: float = 0.1

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two reports that the event loop runs, while anybody waits.

        A quarter of a second is little for a request and costs nothing; with a short
        ``codel_interval`` an equally short stall has to be seen.
        """
        return 0.25 if self.codel_target is None else min(0.25, self.codel_interval / 4)


class QueueClock:
    """The time that a queue has had: without what the event loop stood still.

    While the loop is blocked nobody can be served, and nothing follows from how long it took. It
    is blocked, too, while it begins ten thousand tasks in one of its rounds: only a heartbeat,
    for which it has to come round, makes the clock go on.

    Args:
        heartbeat_interval: Seconds between two heartbeats; so late again may the next one be.
    """

    __slots__ = ("_beaten_at", "_longest", "_time")

    def __init__(self, heartbeat_interval: float) -> None:
        self._longest = 2 * heartbeat_interval
        self._beaten_at = self._time = -math.inf

    def start(self, now: float) -> float:
        """Return the queue's time; that there was no heartbeat before means nothing."""
        self._beaten_at = self._time = now
        return now

    def beat(self, now: float) -> None:
        """Go on."""
        self._time = self.at(now)
        self._beaten_at = now

    def at(self, now: float) -> float:
        """Return the queue's time."""
        return self._time + min(now - self._beaten_at, self._longest)


class _Demand:
    """Whether more keep coming than are served, or bursts are being worked off.

    Args:
        interval: Seconds that are looked at, and of what came each of their parts by itself; what
            is served comes back in bunches.
    """

    __slots__ = ("_came", "_came_now", "_part", "_served", "_served_now", "_since")

    def __init__(self, interval: float) -> None:
        self._part = interval / PARTS
        self._came: deque[int] = deque(maxlen=PARTS)
        """How many callers wanted to wait, in each of the newest parts."""
        self._served: deque[int] = deque(maxlen=PARTS)
        """How many waiters got a connection."""
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Forget what was."""
        self._since = now
        self._came_now = self._served_now = 0
        self._came.clear()
        self._served.clear()

    def came(self, now: float) -> None:
        """Count a caller that wants to wait, whether it is let in or not."""
        self._turn(now)
        self._came_now += 1

    def served(self, now: float) -> None:
        """Count a waiter that got a connection."""
        self._turn(now)
        self._served_now += 1

    def excess(self, now: float, *, stands: bool) -> int:
        """Return how many have to go for each that is served; 0 where the queue drains.

        Args:
            now: The time.
            stands: Whether the queue has stood so far: then a lull says little.
        """
        self._turn(now)
        if len(self._came) < PARTS:
            return 0
        came, served = sorted(self._came), sum(self._served)
        usual = came[PARTS // 2]  # bursts do not count
        least = usual if stands else came[1]
        if not least or least * PARTS < SUSTAINED_SHARE * served:
            return 0
        return max(1, usual * PARTS // served) if served else 1

    def _turn(self, now: float) -> None:
        if now - self._since < self._part:
            return
        passed = (now - self._since) // self._part
        self._came.append(self._came_now)
        self._served.append(self._served_now)
        nothing = [0] * int(min(passed - 1, PARTS))
        self._came.extend(nothing)
        self._served.extend(nothing)
        self._came_now = self._served_now = 0
        self._since += passed * self._part


class Admission:
    """Applies a policy to one queue; times in seconds, on the queue's clock."""

    __slots__ = ("_demand", "_good_at", "_handed_over_at", "_shed_at", "_target", "policy")

    def __init__(self, policy: AdmissionPolicy) -> None:
        self.policy = policy
        self._target = math.inf if policy.codel_target is None else policy.codel_target
        self._demand = _Demand(policy.codel_interval)
        self._good_at = 0.0
        """When a waiter was last served within the target, or nobody waited."""
        self._shed_at = -math.inf
        """When it was last right to shed somebody."""
        self._handed_over_at: deque[float] = deque(maxlen=PACE_SAMPLES)
        """The newest hand-overs since the queue began to fill."""

    def rejects(self, waiting: float, now: float, patience: float) -> RejectReason | None:
        """Return why a caller is rejected; None where it may wait.

        Args:
            waiting: How many wait already; below 0 where a new connection can be opened for it.
            now: The time.
            patience: Seconds until the caller gives up.

        Returns:
            ``FULL`` where too many wait, ``DEADLINE_UNREACHABLE`` where at the pace of this busy
            period the caller's turn would come too late.
        """
        self._demand.came(now)
        if waiting < 0:
            return None
        most = self.policy.max_waiting
        if most is not None and waiting >= most:
            return RejectReason.FULL
        if len(self._handed_over_at) == PACE_SAMPLES:
            pace = (now - self._handed_over_at[0]) / (PACE_SAMPLES - 1)
            if (waiting + 1) * pace > patience:
                return RejectReason.DEADLINE_UNREACHABLE
        return None

    def busy(self, now: float) -> None:
        """Note that the queue was empty and now begins to fill."""
        self._good_at = now
        self.forget_pace()

    def begin_anew(self, now: float) -> None:
        """Forget what was: it says nothing of what comes."""
        self.busy(now)
        self._demand.begin(now)
        self._shed_at = -math.inf

    def forget_pace(self) -> None:
        """Let the pace be learnt anew."""
        self._handed_over_at.clear()

    def sheds(self, waited: float, now: float) -> int:
        """Return how many of the oldest waiters are shed when a connection is handed over.

        Nobody, unless the queue stands: for an interval no waiter was served within the target,
        and in three quarters of it about as many callers came as were served, or more. So a burst,
        whose waiters all become late, is worked off. Who sheds more at once than come in excess
        empties the queue with one hand-over. A queue that stood within the last interval stands
        again as soon as the oldest is late, while as many come as before.

        Args:
            waited: Seconds that the oldest has waited.
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
        """Return whether somebody who has waited for so long may be shed."""
        return waited > 2 * self._target

    def handed_over(self, waited: float, now: float) -> None:
        """Note that a waiter got a connection, from which the pace of the queue is learnt.

        Args:
            waited: Seconds that it has waited.
            now: The time.
        """
        self._demand.served(now)
        self._handed_over_at.append(now)
        if waited <= self._target:
            self._good_at = now


class Waiter(ABC):
    """Somebody in the queue, who is answered exactly once unless it withdraws.

    Args:
        deadline: When it gives up; whoever drives the ledger tells it by ``expire``.
        retry_for: Seconds for which a failed connect is tried again for it, within the deadline.
    """

    __slots__ = ("arrived", "deadline", "held", "queued_at", "retry_for")

    def __init__(self, deadline: float = math.inf, retry_for: float = math.inf) -> None:
        self.deadline = deadline
        self.retry_for = retry_for
        self.arrived = math.nan
        self.queued_at = math.nan
        """When it arrived, by the clock of its queue."""
        self.held: frozenset[Slot] = frozenset()
        """What it keeps while it waits."""

    @abstractmethod
    def accept(self, slot: Slot) -> bool:
        """Take the slot, or return False where it is no longer wanted."""

    @abstractmethod
    def reject(self, rejection: Rejection) -> None:
        """Learn that there will be no slot."""


@dataclass(slots=True)
class WaitersTally:
    """What has happened in the queue so far.

    ``queued`` is ``handed_over``, ``refused``, ``withdrawn`` and who waits now together.
    ``rejected`` never came to wait.
    """

    queued: int = 0
    handed_over: int = 0
    rejected: int = 0
    withdrawn: int = 0
    not_admitted: int = 0


class Waiters:
    """The queue of one pool.

    Args:
        policy: How it is kept short.
    """

    __slots__ = ("_admission", "_clock", "queue", "tally")

    def __init__(self, policy: AdmissionPolicy) -> None:
        self._admission = Admission(policy)
        self._clock = QueueClock(policy.heartbeat_interval)
        self.queue: OrderedDict[Waiter, None] = OrderedDict()
        """Oldest first; nobody overtakes."""
        self.tally = WaitersTally()

    def __len__(self) -> int:
        return len(self.queue)

    def join(self, waiter: Waiter, ahead: float, now: float) -> Rejection | None:
        """Queue up at the end.

        Args:
            waiter: Who wants to.
            ahead: How many will be served by a return before it; below 0 where a new connection
                can be opened for it.
            now: The time.

        Returns:
            A rejection where there is no place.
        """
        moment = self._moment(now)
        why = self._admission.rejects(ahead, moment, waiter.deadline - now)
        if why is not None:
            self.tally.not_admitted += 1
            return Rejection(why)
        waiter.arrived, waiter.queued_at = now, moment
        self.queue[waiter] = None
        self.tally.queued += 1
        return None

    def rejoin(self, waiter: Waiter, arrived: float, now: float) -> None:
        """Queue up in front of all, as somebody who has waited since ``arrived``."""
        waiter.arrived = arrived
        waiter.queued_at = self._moment(now) - (now - arrived)
        self.queue[waiter] = None
        self.queue.move_to_end(waiter, last=False)
        self.tally.queued += 1

    def heartbeat(self, now: float) -> None:
        """Report that the event loop runs, each ``heartbeat_interval`` while anybody waits.

        What is missing in between it stood still, which is not held against anybody.
        """
        self._clock.beat(now)

    def _moment(self, now: float) -> float:
        if self.queue:
            return self._clock.at(now)
        moment = self._clock.start(now)
        self._admission.busy(moment)
        return moment

    def forget_pace(self) -> None:
        """Call nobody's waiting hopeless by the pace so far: checkout is suspended."""
        self._admission.forget_pace()

    def begin_anew(self, now: float) -> None:
        """Judge nobody by the time that has passed: checkout was suspended."""
        moment = self._clock.start(now)
        self._admission.begin_anew(moment)
        for waiter in self.queue:
            waiter.arrived, waiter.queued_at = now, moment

    def withdraw(self, waiter: Waiter) -> bool:
        """Leave the queue; False where the answer has been given already."""
        if waiter not in self.queue:
            return False
        del self.queue[waiter]
        self.tally.withdrawn += 1
        return True

    def reject(self, waiter: Waiter, rejection: Rejection) -> None:
        """Answer a waiter, if it still waits, that there will be no slot."""
        if waiter in self.queue:
            del self.queue[waiter]
            self.tally.rejected += 1
            waiter.reject(rejection)

    def reject_oldest(self, rejection: Rejection) -> None:
        """Answer the oldest waiter that there will be no slot."""
        self.reject(next(iter(self.queue)), rejection)

    def reject_all(self, rejection: Rejection) -> None:
        """Answer everybody that there will be no slot."""
        while self.queue:
            self.reject_oldest(rejection)

    def hand_over(self, slot: Slot, now: float, *, may_shed: bool = True) -> bool:
        """Hand out the slot to the oldest waiter who still wants it and may have it; False if none.

        Args:
            slot: A free one.
            now: The time.
            may_shed: Whether those may be shed who have waited for too long; never is the last
                one, for whom the slot is there.
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
