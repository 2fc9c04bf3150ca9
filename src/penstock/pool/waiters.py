"""The queue for connections: first come, first served, and everybody is answered."""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice

from penstock.pool.admission import Admission, AdmissionPolicy, QueueClock
from penstock.pool.refusal import Refusal, Refused
from penstock.pool.slot import LENT, Slot

__all__ = ["Waiter", "Waiters", "WaitersTally"]


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
    def refuse(self, refusal: Refusal) -> None:
        """Learn that there will be no slot."""


@dataclass(slots=True)
class WaitersTally:
    """What has happened in the queue so far.

    ``queued`` is ``handed_over``, ``refused``, ``withdrawn`` and who waits now together.
    ``turned_away`` never came to wait.
    """

    queued: int = 0
    handed_over: int = 0
    refused: int = 0
    withdrawn: int = 0
    turned_away: int = 0


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

    def join(self, waiter: Waiter, ahead: float, now: float) -> Refusal | None:
        """Queue up at the end.

        Args:
            waiter: Who wants to.
            ahead: How many will be served by a return before it; below 0 where a new connection
                can be opened for it.
            now: The time.

        Returns:
            A refusal where there is no place.
        """
        moment = self._moment(now)
        why = self._admission.refuses(ahead, moment, waiter.deadline - now)
        if why is not None:
            self.tally.turned_away += 1
            return Refusal(why)
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
        """Call nobody's waiting hopeless by the pace so far: lending is suspended."""
        self._admission.forget_pace()

    def begin_anew(self, now: float) -> None:
        """Judge nobody by the time that has passed: lending was suspended."""
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

    def refuse(self, waiter: Waiter, refusal: Refusal) -> None:
        """Answer a waiter, if it still waits, that there will be no slot."""
        if waiter in self.queue:
            del self.queue[waiter]
            self.tally.refused += 1
            waiter.refuse(refusal)

    def refuse_oldest(self, refusal: Refusal) -> None:
        """Answer the oldest waiter that there will be no slot."""
        self.refuse(next(iter(self.queue)), refusal)

    def refuse_all(self, refusal: Refusal) -> None:
        """Answer everybody that there will be no slot."""
        while self.queue:
            self.refuse_oldest(refusal)

    def hand_over(self, slot: Slot, now: float, *, may_shed: bool = True) -> bool:
        """Lend the slot to the oldest waiter who still wants it and may have it; False if none.

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
                self.tally.refused += 1
                waiter.refuse(Refusal(Refused.SHED))
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
                slot.state = LENT
                slot.lent_at = now
                self.tally.handed_over += 1
                self._admission.handed_over(moment - waiter.queued_at, moment)
                return True
            self.tally.withdrawn += 1
        return False
