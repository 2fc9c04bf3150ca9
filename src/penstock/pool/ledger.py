"""Who gets which connection, and when one is opened or closed: decided here, done elsewhere.

Synchronous, without I/O and without a clock: every method is told the time, changes the books, and
leaves what has to be done in ``actions``. The pool drives it in production; a test or a simulation
drives it on a clock of its own.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.pool.queue import AdmissionPolicy, Rejection, RejectReason, Waiter, Waiters
from penstock.pool.slot import (
    CHECKED_OUT,
    CHECKING,
    CLOSING,
    IDLE,
    OPENING,
    RECOVERING,
    Backoff,
    CloseReason,
    Lifetime,
    Slot,
    SlotState,
)

__all__ = [
    "Action",
    "Close",
    "Ledger",
    "LedgerError",
    "Open",
    "Ping",
    "Tally",
    "limit_of",
]


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection for the slot; then ``opened`` or ``failed``."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Close:
    """Close the slot's connection and see its server process off; then ``remove``."""

    slot: Slot
    why: CloseReason


@dataclass(frozen=True, slots=True)
class Ping:
    """Ping the slot's idle connection; then ``restore`` or ``close_connection``."""

    slot: Slot


Action = Open | Close | Ping


class LedgerError(Exception):
    """The driver reported what cannot have happened, such as a slot returned twice."""


@dataclass(slots=True)
class Tally:
    """What has happened to connections so far: ``opened`` is ``closed`` and what is open now."""

    opened: int = 0
    closed: int = 0
    open_failures: int = 0


def limit_of(size: int, overflow: int) -> float:
    """Return how many connections may be open at once."""
    return math.inf if size == 0 or overflow < 0 else size + overflow


class Ledger:
    """Decides for one pool which caller gets which connection, and when one is opened or closed.

    Args:
        size: Connections that are kept; 0 for as many as were ever wanted.
        overflow: Connections above ``size``; below 0 for no limit.
        lifetime: When connections retire.
        backoff: How far apart failing attempts to open one are.
        admission: How the queue is kept short.
        lifo: Whether the connection returned last is checked out first.
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
        self.actions: deque[Action] = deque()
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
        """Empty while anybody waits, unless checkout is suspended."""
        self._take: Callable[[], Slot] = self._idle.pop if lifo else self._idle.popleft
        self.waiters = Waiters(admission or AdmissionPolicy())
        self._queue = self.waiters.queue
        self._opening = 0
        self._closing = 0
        self._barred = False
        """Suspended or closed: nothing idle is checked out."""
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
        """Slots that can be checked out."""
        return len(self._idle)

    @property
    def opening(self) -> int:
        """Connections being opened."""
        return self._opening

    # Checkout and returning: the hot path.

    def acquire(self, now: float) -> Slot | None:
        """Hand out an idle slot at once; None where there is none, and the caller may ``wait``."""
        if self._barred:
            return None
        idle = self._idle
        while idle:
            slot = self._take()
            if now < slot.expires_at:
                slot.state = CHECKED_OUT
                slot.checked_out_at = now
                if len(idle) < self.least_idle:  # noqa: PLR1730 - a call costs more, on every lease
                    self.least_idle = len(idle)
                return slot
            self._close_idle(slot, CloseReason.LIFETIME)
        return None

    def release(self, slot: Slot, now: float) -> None:
        """Take a checked out slot back: for the oldest waiter, or as an idle one."""
        if slot.state is not CHECKED_OUT:
            raise LedgerError(f"a slot that is {slot.state.value} was returned")
        if self._queue or self._alert or slot.eviction:
            self._place(slot, now)
        else:
            slot.state = IDLE
            slot.since = now
            self._idle.append(slot)

    # Waiting.

    def wait(self, waiter: Waiter, now: float) -> Rejection | None:
        """Queue up.

        Returns:
            None for a place in the queue, answered by ``accept`` or ``reject``; a rejection
            where there is no place.
        """
        rejection = self._rejection_at_once(now)
        if rejection is not None:
            self.waiters.tally.not_admitted += 1
            return rejection
        openable = max(0, self.limit - len(self._slots)) + self._opening
        rejection = self.waiters.join(waiter, len(self._queue) - openable, now)
        self.open_for_waiters(now)
        return rejection

    def wait_again(self, waiter: Waiter, arrived: float, now: float) -> None:
        """Queue up in front of all: what the caller was handed turned out to be broken."""
        self.waiters.rejoin(waiter, arrived, now)
        self.open_for_waiters(now)

    def expire(self, waiter: Waiter) -> None:
        """Answer a waiter whose deadline has passed; nothing where it was answered before."""
        self.waiters.reject(waiter, self.rejection_for(waiter))

    def has_room(self) -> bool:
        """Return whether one more caller would be served without anybody's return.

        A place that is being closed, cleaned up or pinged is nobody else's.
        """
        return not self.suspended and self.limit - self.count(CHECKED_OUT) > len(self._queue)

    def rejection_for(self, waiter: Waiter) -> Rejection:
        """Return what a waiter is told that gives up now."""
        if self.suspended:
            return Rejection(RejectReason.SUSPENDED)
        backoff = self.backoff
        if waiter.arrived < backoff.until and len(self._slots) - self._opening < self.limit:
            return Rejection(RejectReason.FAILED, backoff.last_error)
        return Rejection(RejectReason.CONNECTING if self._opening else RejectReason.WAITING)

    # What became of the orders.

    def opened(self, slot: Slot, now: float) -> None:
        """Report that the slot's connection is open."""
        self._expect(slot, OPENING)
        self._opening -= 1
        self.tally.opened += 1
        self._begin_life(slot, now)
        old, slot.replaces = slot.replaces, None
        if old is not None and old in self._slots:
            self.evict(old)
        self._place(slot, now, is_new=True)
        self.open_for_waiters(now)

    def renew(self, slot: Slot, now: float) -> None:
        """Report that a checked out slot has a new connection, which nothing is held against."""
        slot.eviction = None
        self._begin_life(slot, now)

    def _begin_life(self, slot: Slot, now: float) -> None:
        self.backoff.succeeded()
        slot.opened_at = now
        slot.retire_at = self.lifetime.retire_at(now)
        slot.expires_at = self.lifetime.expires_at(now)

    def failed(
        self,
        slot: Slot,
        now: float,
        error: BaseException,
        *,
        refused: bool = False,
        transient: bool = False,
    ) -> None:
        """Report that the slot's connection could not be opened.

        After a transient failure those who wait go on waiting, each within its deadline and its
        ``retry_for``: the next attempt may serve them. After any other the oldest learns it,
        unless other attempts can still serve everybody; all learn it where nothing is open or
        being opened. So it is as well in a pool that has never opened a connection, where the
        address may be wrong, and in one that is closed, which is to come to an end.

        Args:
            slot: It leaves the books.
            now: The time.
            error: What the driver raised.
            refused: Whether the server said no, such as to the password.
            transient: Whether the failure may pass by itself, as a restart of the server does.
        """
        self._expect(slot, OPENING)
        self._opening -= 1
        del self._slots[slot]
        self.tally.open_failures += 1
        self.backoff.failed(now, error, refused=refused)
        if slot.replaces is not None:
            slot.replaces.retire_at = now
        rejection = Rejection(RejectReason.FAILED, error)
        if transient and self.tally.opened and not self.closed:
            self._refuse_impatient(rejection, now)
        elif not self._has_prospects():
            self.waiters.reject_all(rejection)
        elif not slot.for_housekeeping and len(self._queue) > self._opening:
            self.waiters.reject_oldest(rejection)

    def _refuse_impatient(self, rejection: Rejection, now: float) -> None:
        unserved = len(self._queue) - self._opening
        since = self.backoff.failing_since
        over = [each for each in self._queue if now - max(each.arrived, since) >= each.retry_for]
        for waiter in over[: max(0, unserved)]:
            self.waiters.reject(waiter, rejection)

    def remove(self, slot: Slot, now: float) -> None:
        """Report that the slot holds no connection any more."""
        self._expect(slot, CHECKED_OUT, CHECKING, RECOVERING, CLOSING)
        if slot.state is CLOSING:
            self._closing -= 1
        slot.state = CLOSING
        del self._slots[slot]
        self.tally.closed += 1
        self._watch()
        rejection = self._rejection_at_once(now)
        if rejection is not None and rejection.error is not None:
            self.waiters.reject_all(rejection)
        self.open_for_waiters(now)

    def recover(self, slot: Slot) -> None:
        """Report that a slot came back during a cancelled query, and is being cleaned up."""
        self._expect(slot, CHECKED_OUT)
        slot.state = RECOVERING

    def restore(self, slot: Slot, now: float) -> None:
        """Report that a connection that was recovered or pinged works."""
        self._expect(slot, RECOVERING, CHECKING)
        self._place(slot, now)

    def close_connection(self, slot: Slot, why: CloseReason) -> None:
        """Have the connection of a slot that is not idle closed."""
        self._expect(slot, CHECKED_OUT, CHECKING, RECOVERING)
        self._close_idle(slot, why)

    # The operator.

    def resize(self, size: int, overflow: int, now: float) -> None:
        """Change the limits: idle surplus is closed now, the rest as it comes back."""
        self.size, self.overflow, self.limit = size, overflow, limit_of(size, overflow)
        while self._surplus() > 0 and self._idle:
            self.evict(self._idle[0], CloseReason.SURPLUS)
        self._watch()
        self.open_for_waiters(now)

    def suspend(self) -> None:
        """Hand out nothing until ``resume``; callers wait, what is checked out is taken back."""
        self.suspended = self._barred = True
        self.waiters.forget_pace()

    def resume(self, now: float) -> None:
        """Hand out again, to the oldest waiter first."""
        self.suspended = False
        self._barred = self.closed
        self.waiters.begin_anew(now)
        while self._idle and self._queue:
            self._place(self._idle.popleft(), now)
        self.open_for_waiters(now)

    def dispose(self) -> None:
        """Have every connection closed: the idle ones now, the others as they come back."""
        for slot in list(self._slots):
            if slot.state is not CLOSING:
                self.evict(slot, CloseReason.DISPOSED)

    def shut_down(self) -> None:
        """Close whatever comes back and nobody waits for: another pool takes the place of this."""
        self.replaced = self._alert = True

    def close(self) -> None:
        """Take in nobody any more, and close whatever nobody waits for."""
        self.closed = self._barred = self._alert = True
        while self._idle:
            self.evict(self._idle[0], CloseReason.DISPOSED)

    # What housekeeping orders.

    def add_connection(
        self, now: float, *, for_housekeeping: bool = False, replaces: Slot | None = None
    ) -> bool:
        """Have a connection opened; False where there is no room, or it is too early to try."""
        if not self._may_open(now):
            return False
        if for_housekeeping and self.closed:
            return False
        slot = Slot(now, for_housekeeping=for_housekeeping, replaces=replaces)
        self._slots[slot] = None
        self._opening += 1
        self.actions.append(Open(slot))
        return True

    def open_for_waiters(self, now: float) -> None:
        """Have connections opened for those who wait, as far as there is room and time.

        After a failure one attempt at a time is enough to learn whether the server is back.
        """
        if self.suspended:
            return
        wanted = min(len(self._queue), 1 if self.backoff.is_failing else self.connects_at_once)
        while self._opening < wanted and self.add_connection(now):
            pass

    def take_idle(self) -> Slot | None:
        """Take out the connection that was idle for longest, for a question of the pool's own."""
        if self.suspended or not self._idle:
            return None
        slot = min(self._idle, key=lambda idle: idle.since)
        self._idle.remove(slot)
        slot.state = CHECKING
        return slot

    def ping(self, slot: Slot) -> None:
        """Have an idle slot's connection pinged."""
        self._idle.remove(slot)
        slot.state = CHECKING
        self.actions.append(Ping(slot))

    def evict(self, slot: Slot, why: CloseReason = CloseReason.LIFETIME) -> None:
        """Have the slot's connection closed: now where it is idle, else when it comes back."""
        if slot.state is IDLE:
            self._idle.remove(slot)
            self._close_idle(slot, why)
        else:
            slot.eviction = slot.eviction or why

    def evict_idle(self, is_unfit: Callable[[Slot], bool]) -> None:
        """Close the connections of idle slots that are dead.

        Args:
            is_unfit: Returns whether a slot's connection is to be closed.
        """
        for slot in [idle for idle in self._slots if idle.state is IDLE and is_unfit(idle)]:
            self.evict(slot, CloseReason.DEAD)

    # The moves that every decision is made of.

    def _place(self, slot: Slot, now: float, *, is_new: bool = False) -> None:
        slot.since = now
        why = None if is_new else self._outlived(slot, now)
        if self._surplus() > 0:
            why = CloseReason.SURPLUS
        if why is None and not self.suspended and self._hand_over(slot, now):
            return
        why = why or slot.eviction
        if why is None and (self.closed or self.replaced):
            why = CloseReason.DISPOSED
        if why is not None:
            self._close_idle(slot, why)
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
        if slot.eviction:
            return slot.eviction
        return CloseReason.LIFETIME if now >= slot.expires_at else None

    def _close_idle(self, slot: Slot, why: CloseReason) -> None:
        slot.state = CLOSING
        self._closing += 1
        self.actions.append(Close(slot, why))

    def _has_prospects(self) -> bool:
        return len(self._slots) > self._closing

    def _surplus(self) -> float:
        return len(self._slots) - self._closing - self.limit

    def _watch(self) -> None:
        self._alert = self.closed or self.replaced or self._surplus() > 0

    def _expect(self, slot: Slot, *states: SlotState) -> None:
        if slot not in self._slots or slot.state not in states:
            raise LedgerError(f"a slot that is {slot.state.value} cannot do this")

    def _rejection_at_once(self, now: float) -> Rejection | None:
        if self.closed:
            return Rejection(RejectReason.CLOSED)
        backoff = self.backoff
        if backoff.refused and now < backoff.until and not self._has_prospects():
            return Rejection(RejectReason.FAILED, backoff.last_error)
        return None
