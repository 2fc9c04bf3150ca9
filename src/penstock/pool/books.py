"""What is open, idle, lent and waited for, and where a slot goes that comes free."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.pool.admission import AdmissionPolicy
from penstock.pool.lifetime import Backoff, Lifetime
from penstock.pool.orders import Check, Close, Open, Order
from penstock.pool.slot import CHECKING, CLOSING, IDLE, CloseReason, Slot, SlotState
from penstock.pool.waiters import Waiters

__all__ = ["Books", "LedgerError", "Tally", "limit_of"]


class LedgerError(Exception):
    """The driver reported what cannot have happened, such as a slot returned twice."""


@dataclass(slots=True)
class Tally:
    """What has happened to connections so far: ``opened`` is ``closed`` and what is open now."""

    opened: int = 0
    closed: int = 0
    open_failures: int = 0


class Books:
    """The state of one pool, and the moves that every decision is made of.

    Args:
        size: Connections that are kept; 0 for as many as were ever wanted.
        overflow: Connections above ``size``; below 0 for no limit.
        lifetime: When connections retire.
        backoff: How far apart failing attempts to open one are.
        admission: How the queue is kept short.
        lifo: Whether the connection returned last is lent first.
        connects_at_once: Connections that are opened in parallel at most.
    """

    def __init__(
        self,
        size: int,
        overflow: int,
        *,
        lifetime: Lifetime,
        backoff: Backoff,
        admission: AdmissionPolicy | None = None,
        lifo: bool = False,
        connects_at_once: int = 4,
    ) -> None:
        self.size, self.overflow, self.limit = size, overflow, limit_of(size, overflow)
        self.orders: deque[Order] = deque()
        self.lifetime = lifetime
        self.backoff = backoff
        self.connects_at_once = connects_at_once
        self.tally = Tally()
        self.suspended = False
        self.closed = False
        self.replaced = False
        """Another pool has taken the place of this one, in which nothing is kept any more."""
        self.least_idle = 0
        """Fewest idle slots since somebody last set it: so many connections nobody needed."""
        self._slots: dict[Slot, None] = {}
        """Every slot, in whatever state: never more than the limit, unless that was lowered."""
        self._idle: deque[Slot] = deque()
        """Empty while anybody waits, unless lending is suspended."""
        self._take: Callable[[], Slot] = self._idle.pop if lifo else self._idle.popleft
        self.waiters = Waiters(admission or AdmissionPolicy())
        self._queue = self.waiters.queue
        self._opening = 0
        self._closing = 0
        self._barred = False
        """Suspended or closed: nothing idle is lent."""
        self._alert = False
        """Closed, replaced, or more open than allowed: a returned slot is looked at twice."""

    def __iter__(self) -> Iterator[Slot]:
        """Every slot, oldest first; the books must not change meanwhile."""
        return iter(self._slots)

    def count(self, *states: SlotState) -> int:
        """Number of slots in any of the states."""
        # Copied at once: whoever exports numbers asks from a thread of its own.
        return sum(slot.state in states for slot in tuple(self._slots))

    @property
    def open(self) -> int:
        """Slots in any state: what counts towards the limit."""
        return len(self._slots)

    @property
    def idle(self) -> int:
        """Slots that can be lent."""
        return len(self._idle)

    @property
    def opening(self) -> int:
        """Connections being opened."""
        return self._opening

    def order_open(
        self, now: float, *, for_upkeep: bool = False, replaces: Slot | None = None
    ) -> bool:
        """Have a connection opened; False where there is no room, or it is too early to try."""
        if not self._may_open(now):
            return False
        if for_upkeep and self.closed:
            return False
        slot = Slot(now, for_upkeep=for_upkeep, replaces=replaces)
        self._slots[slot] = None
        self._opening += 1
        self.orders.append(Open(slot))
        return True

    def open_for_waiters(self, now: float) -> None:
        """Have connections opened for those who wait, as far as there is room and time.

        After a failure one attempt at a time is enough to learn whether the server is back.
        """
        if self.suspended:
            return
        wanted = min(len(self._queue), 1 if self.backoff.is_failing else self.connects_at_once)
        while self._opening < wanted and self.order_open(now):
            pass

    def spare(self) -> Slot | None:
        """Take out the connection that was idle for longest, for a question of the pool's own."""
        if self.suspended or not self._idle:
            return None
        slot = min(self._idle, key=lambda idle: idle.since)
        self._idle.remove(slot)
        slot.state = CHECKING
        return slot

    def order_check(self, slot: Slot) -> None:
        """Have an idle slot's connection pinged."""
        self._idle.remove(slot)
        slot.state = CHECKING
        self.orders.append(Check(slot))

    def retire(self, slot: Slot, why: CloseReason = CloseReason.LIFETIME) -> None:
        """Have the slot's connection closed: now where it is idle, else when it comes back."""
        if slot.state is IDLE:
            self._idle.remove(slot)
            self._dismiss(slot, why)
        else:
            slot.doomed = slot.doomed or why

    def _place(self, slot: Slot, now: float, *, is_new: bool = False) -> None:
        slot.since = now
        why = None if is_new else self._outlived(slot, now)
        if self._surplus() > 0:
            why = CloseReason.SURPLUS
        if why is None and not self.suspended and self._hand_over(slot, now):
            return
        why = why or slot.doomed
        if why is None and (self.closed or self.replaced):
            why = CloseReason.DISPOSED
        if why is not None:
            self._dismiss(slot, why)
            self._watch()
        else:
            slot.state = IDLE
            self._idle.append(slot)

    def _hand_over(self, slot: Slot, now: float) -> bool:
        # Nobody is shed while another connection is there, or about to be.
        is_all = not self._idle and not self._opening and not self._may_open(now)
        return self.waiters.hand_over(slot, now, may_shed=is_all)

    def _may_open(self, now: float) -> bool:
        return len(self._slots) < self.limit and now >= self.backoff.until

    def _outlived(self, slot: Slot, now: float) -> CloseReason | None:
        if slot.doomed:
            return slot.doomed
        return CloseReason.LIFETIME if now >= slot.expires_at else None

    def _dismiss(self, slot: Slot, why: CloseReason) -> None:
        slot.state = CLOSING
        self._closing += 1
        self.orders.append(Close(slot, why))

    def _has_prospects(self) -> bool:
        return len(self._slots) > self._closing

    def _surplus(self) -> float:
        return len(self._slots) - self._closing - self.limit

    def _watch(self) -> None:
        self._alert = self.closed or self.replaced or self._surplus() > 0

    def _expect(self, slot: Slot, *states: SlotState) -> None:
        if slot not in self._slots or slot.state not in states:
            raise LedgerError(f"a slot that is {slot.state.value} cannot do this")


def limit_of(size: int, overflow: int) -> float:
    """Return how many connections may be open at once."""
    return math.inf if size == 0 or overflow < 0 else size + overflow
