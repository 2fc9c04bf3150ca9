"""Decides which caller gets which connection, and when one is opened or closed.

The ledger is synchronous, without I/O and without a clock: every method is given the time, changes
the state, and queues what has to be done in ``actions``. The pool drives it in production; a test
or a simulation drives it on a virtual clock.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from random import Random

from penstock.pool.events import PoolSnapshot, text_of
from penstock.pool.queue import AdmissionPolicy, Rejection, RejectReason, Waiter, Waiters
from penstock.pool.slot import (
    CHECKED_OUT,
    CHECKING,
    CLOSING,
    IDLE,
    JITTER,
    OPENING,
    RECOVERING,
    Action,
    Backoff,
    Close,
    CloseReason,
    Open,
    Ping,
    Slot,
    SlotState,
    Tally,
    limit_of,
)


class LedgerError(Exception):
    """The ledger's caller reported what cannot have happened, such as a second release."""


def unlimited() -> float:
    """Return infinity."""
    return math.inf


class Ledger:
    """The state of one pool, and the decisions on its connections and callers.

    Args:
        size: Connections that are kept; 0 for no limit.
        overflow: Connections above ``size``; below 0 for no limit.
        recycle: Seconds that a connection is used at most; below 0 for no limit.
        random: The source of the jitter with which connections are replaced.
        backoff: The delay between attempts to connect after a failure.
        admission: How the queue is kept short.
        lifo: Whether the connection released last is checked out first.
        connects_at_once: Connections opened in parallel at most.
        age_limit: Returns how long a connection that is opened now is used at most, besides
            ``recycle``, in seconds.
    """

    def __init__(
        self,
        size: int,
        overflow: int,
        *,
        recycle: float,
        random: Random,
        backoff: Backoff,
        admission: AdmissionPolicy | None = None,
        lifo: bool = False,
        connects_at_once: int = 4,
        age_limit: Callable[[], float] = unlimited,
    ) -> None:
        self.size, self.overflow, self.limit = size, overflow, limit_of(size, overflow)
        self.actions: deque[Action] = deque()
        self.recycle, self._random = recycle, random
        self.backoff = backoff
        self.connects_at_once = connects_at_once
        self.age_limit = age_limit
        self.tally = Tally()
        self.suspended = self.closed = False
        self.replaced = False
        """Whether another pool has replaced this one, which keeps no connection idle any more."""
        self.least_idle = 0
        """The fewest idle slots since it was last set: so many connections were not needed."""
        self.slots: dict[Slot, None] = {}
        """Every slot, in any state: no more than the limit, unless that was lowered."""
        self.idle_slots: deque[Slot] = deque()
        """Empty while there are waiters, unless checkout is suspended."""
        self._take: Callable[[], Slot] = self.idle_slots.pop if lifo else self.idle_slots.popleft
        self.waiters = Waiters(admission or AdmissionPolicy())
        self._queue = self.waiters.queue
        self.opening = 0
        """The number of connections being opened."""
        self._closing = 0
        self._barred = False
        """Suspended or closed: no idle connection is checked out."""
        self._alert = False
        """Closed, replaced or above the limit: a release may close the connection."""

    def __iter__(self) -> Iterator[Slot]:
        """Every slot, the oldest first; the ledger must not change during the iteration."""
        return iter(self.slots)

    def count(self, *states: SlotState) -> int:
        """Return the number of slots in any of the states."""
        # Copied: an exporter reads the numbers from another thread.
        return sum(slot.state in states for slot in tuple(self.slots))

    @property
    def open(self) -> int:
        """The number of slots in any state, which counts towards the limit."""
        return len(self.slots)

    @property
    def idle(self) -> int:
        """The number of slots that can be checked out."""
        return len(self.idle_slots)

    def snapshot(self, unclaimed: int = 0) -> PoolSnapshot:
        """Return the numbers, from any thread; unclaimed are returns not reported yet."""
        error = self.backoff.last_error
        return PoolSnapshot(
            size=self.size,
            limit=0 if self.limit == math.inf else int(self.limit),
            checked_in=self.count(IDLE, CHECKING),
            checked_out=max(0, self.count(CHECKED_OUT) - unclaimed),
            overflow=max(0, self.open - self.size),
            opening=self.opening,
            invalid=self.count(RECOVERING, CLOSING) + unclaimed,
            waiting=len(self.waiters),
            suspended=self.suspended,
            closed=self.closed,
            opened_total=self.tally.opened,
            closed_total=self.tally.closed,
            open_failures_total=self.tally.open_failures,
            rejected_total=self.waiters.tally.rejected + self.waiters.tally.not_admitted,
            last_open_error=f"{type(error).__name__}: {text_of(error)}" if error else None,
        )

    # Checkout and release: the hot path.

    def acquire(self, now: float) -> Slot | None:
        """Check out an idle slot; return None where there is none, and ``wait`` is next."""
        if self._barred:
            return None
        idle = self.idle_slots
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
        """Release a checked-out slot: to the oldest waiter, or as idle."""
        if slot.state is not CHECKED_OUT:
            raise LedgerError(f"a slot that is {slot.state.value} was released")
        # Its holder may have sent nothing for long: what lies in between may have dropped it.
        slot.since = slot.checked_out_at
        if self._queue or self._alert or slot.eviction:
            self._place(slot, now)
        else:
            slot.state = IDLE
            self.idle_slots.append(slot)

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
        openable = max(0, self.limit - len(self.slots)) + self.opening
        rejection = self.waiters.join(waiter, len(self._queue) - openable, now)
        self.open_for_waiters(now)
        return rejection

    def wait_again(self, waiter: Waiter, arrived: float, now: float) -> None:
        """Queue up in front of all, after a connection that was broken; it waits since arrived."""
        self.waiters.rejoin(waiter, arrived, now)
        self.open_for_waiters(now)

    def expire(self, waiter: Waiter) -> None:
        """Reject a waiter whose deadline has passed, unless it was answered before."""
        self.waiters.reject(waiter, self.rejection_for(waiter))

    def has_room(self) -> bool:
        """Return whether one more caller is served without a release.

        A slot whose connection is being closed, recovered or pinged becomes free by itself.
        """
        return not self.suspended and self.limit - self.count(CHECKED_OUT) > len(self._queue)

    def rejection_for(self, waiter: Waiter) -> Rejection:
        """Return the rejection for a waiter whose deadline passes now."""
        if self.suspended:
            return Rejection(RejectReason.SUSPENDED)
        backoff = self.backoff
        if waiter.arrived < backoff.until and len(self.slots) - self.opening < self.limit:
            return Rejection(RejectReason.FAILED, backoff.last_error)
        return Rejection(RejectReason.CONNECTING if self.opening else RejectReason.WAITING)

    # The results of actions.

    def opened(self, slot: Slot, now: float) -> None:
        """Report that the slot's connection is open."""
        self._expect(slot, OPENING)
        self.opening -= 1
        self.tally.opened += 1
        self._begin_life(slot, now)
        old, slot.replaces = slot.replaces, None
        if old is not None and old in self.slots:
            self.evict(old)
        slot.since = now
        self._place(slot, now, is_new=True)
        self.open_for_waiters(now)

    def renew(self, slot: Slot, now: float) -> None:
        """Report that a checked-out slot has a new connection."""
        slot.eviction = None
        self._begin_life(slot, now)

    def _begin_life(self, slot: Slot, now: float) -> None:
        if self.backoff.failures:
            self.backoff.succeeded()
        slot.opened_at = now
        lifetime = self.lifetime()
        slot.expires_at = slot.retire_at = now + lifetime
        if lifetime < math.inf:
            slot.retire_at -= JITTER * lifetime * self._random.random()

    def lifetime(self) -> float:
        """Return the seconds that a connection which is opened now is used at most."""
        limit = self.age_limit()
        return limit if self.recycle < 0 else min(limit, self.recycle)

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

        After a transient failure the waiters go on waiting, each within its deadline and its
        ``retry_for``: the next attempt may serve them. After any other failure the oldest waiter is
        rejected, unless other attempts can still serve all; every waiter is rejected where no
        connection is open or being opened. The same holds in a pool that has never opened a
        connection, where the address may be wrong, and in one that is closed.

        Args:
            slot: The slot, which is removed.
            now: The time.
            error: The driver's error.
            refused: Whether the server refused the connection, as for a wrong password.
            transient: Whether the failure may pass by itself, such as a restart of the server.
        """
        self._expect(slot, OPENING)
        self.opening -= 1
        del self.slots[slot]
        self.tally.open_failures += 1
        self.backoff.failed(now, error, refused=refused)
        if slot.replaces is not None:
            slot.replaces.retire_at = now
        rejection = Rejection(RejectReason.FAILED, error)
        if transient and self.tally.opened and not self.closed:
            self._refuse_impatient(rejection, now)
        elif not self._has_open_or_opening():
            self.waiters.reject_all(rejection)
        elif not slot.for_housekeeping and len(self._queue) > self.opening:
            self.waiters.reject_oldest(rejection)

    def _refuse_impatient(self, rejection: Rejection, now: float) -> None:
        unserved = len(self._queue) - self.opening
        since = self.backoff.failing_since
        over = [each for each in self._queue if now - max(each.arrived, since) >= each.retry_for]
        for waiter in over[: max(0, unserved)]:
            self.waiters.reject(waiter, rejection)

    def remove(self, slot: Slot, now: float) -> None:
        """Report that the slot's connection is closed, and remove the slot."""
        self._expect(slot, CHECKED_OUT, CHECKING, RECOVERING, CLOSING)
        if slot.state is CLOSING:
            self._closing -= 1
        slot.state = CLOSING
        del self.slots[slot]
        self.tally.closed += 1
        self._update_alert()
        rejection = self._rejection_at_once(now)
        if rejection is not None and rejection.error is not None:
            self.waiters.reject_all(rejection)
        self.open_for_waiters(now)

    def recover(self, slot: Slot) -> None:
        """Report that a slot was released during a cancelled query, and is being recovered."""
        self._expect(slot, CHECKED_OUT)
        slot.state = RECOVERING

    def restore(self, slot: Slot, now: float) -> None:
        """Report that a connection was recovered or has answered a ping."""
        self._expect(slot, RECOVERING, CHECKING)
        slot.since = now
        self._place(slot, now)

    def close_connection(self, slot: Slot, why: CloseReason) -> None:
        """Close the connection of a slot that is not idle."""
        self._expect(slot, CHECKED_OUT, CHECKING, RECOVERING)
        self._close_idle(slot, why)

    # The operator.

    def resize(self, size: int, overflow: int, now: float) -> None:
        """Change the limits: surplus idle connections are closed now, the others on release."""
        self.size, self.overflow, self.limit = size, overflow, limit_of(size, overflow)
        while self._surplus() > 0 and self.idle_slots:
            self.evict(self.idle_slots[0], CloseReason.SURPLUS)
        self._update_alert()
        self.open_for_waiters(now)

    def suspend(self) -> None:
        """Check out no connection until ``resume``: callers wait, and releases are accepted."""
        self.suspended = self._barred = True
        self.waiters.reset_pace()

    def resume(self, now: float) -> None:
        """Check out connections again, to the oldest waiter first."""
        self.suspended = False
        self._barred = self.closed
        self.waiters.restart(now)
        while self.idle_slots and self._queue:
            self._place(self.idle_slots.popleft(), now)
        self.open_for_waiters(now)

    def dispose(self) -> None:
        """Close every connection: the idle ones now, the others on release."""
        for slot in list(self.slots):
            if slot.state is not CLOSING:
                self.evict(slot, CloseReason.DISPOSED)

    def shut_down(self) -> None:
        """Serve waiters only, and close each other connection on release: the pool is replaced."""
        self.replaced = self._alert = True

    def close(self) -> None:
        """Reject new callers, serve the waiters, and close each other connection on release."""
        self.closed = self._barred = self._alert = True
        while self.idle_slots:
            self.evict(self.idle_slots[0], CloseReason.DISPOSED)

    # Housekeeping.

    def add_connection(
        self, now: float, *, for_housekeeping: bool = False, replaces: Slot | None = None
    ) -> bool:
        """Open a connection.

        Args:
            now: The time.
            for_housekeeping: Whether it is opened for no waiter.
            replaces: The slot that is evicted once the connection is open.

        Returns:
            False where the limit is reached or the backoff is running.
        """
        if not self._may_open(now):
            return False
        if for_housekeeping and self.closed:
            return False
        slot = Slot(now, for_housekeeping=for_housekeeping, replaces=replaces)
        self.slots[slot] = None
        self.opening += 1
        self.actions.append(Open(slot))
        return True

    def open_for_waiters(self, now: float) -> None:
        """Open connections for the waiters, as far as the limit and the backoff allow.

        After a failure one attempt at a time shows whether the server is back.
        """
        if self.suspended:
            return
        wanted = min(len(self._queue), 1 if self.backoff.failures else self.connects_at_once)
        while self.opening < wanted and self.add_connection(now):
            pass

    def take_idle(self) -> Slot | None:
        """Take the slot that has been idle for longest, for a probe; then ``restore`` it."""
        if self.suspended or not self.idle_slots:
            return None
        slot = min(self.idle_slots, key=lambda idle: idle.since)
        self.idle_slots.remove(slot)
        slot.state = CHECKING
        return slot

    def ping(self, slot: Slot) -> None:
        """Ping an idle slot's connection."""
        self.idle_slots.remove(slot)
        slot.state = CHECKING
        self.actions.append(Ping(slot))

    def evict(self, slot: Slot, why: CloseReason = CloseReason.LIFETIME) -> None:
        """Close the slot's connection now if it is idle; otherwise mark it for eviction."""
        if slot.state is IDLE:
            self.idle_slots.remove(slot)
            self._close_idle(slot, why)
        else:
            slot.eviction = slot.eviction or why

    def evict_idle(self, is_unfit: Callable[[Slot], bool]) -> None:
        """Close the connections of idle slots that are unfit."""
        for slot in [idle for idle in self.slots if idle.state is IDLE and is_unfit(idle)]:
            self.evict(slot, CloseReason.DEAD)

    # The steps of every decision.

    def _place(self, slot: Slot, now: float, *, is_new: bool = False) -> None:
        why = None
        if not is_new:
            why = slot.eviction or (CloseReason.LIFETIME if now >= slot.expires_at else None)
        if self._surplus() > 0:
            why = CloseReason.SURPLUS
        if why is None and not self.suspended and self._hand_over(slot, now):
            return
        why = why or slot.eviction
        if why is None and (self.closed or self.replaced):
            why = CloseReason.DISPOSED
        if why is not None:
            self._close_idle(slot, why)
            self._update_alert()
        else:
            slot.state = IDLE
            self.idle_slots.append(slot)

    def _hand_over(self, slot: Slot, now: float) -> bool:
        # No waiter is shed while another connection is idle, being opened, or can be opened.
        is_all = not self.idle_slots and not self.opening and not self._may_open(now)
        return self.waiters.hand_over(slot, now, may_shed=is_all)

    def _may_open(self, now: float) -> bool:
        return len(self.slots) < self.limit and now >= self.backoff.until

    def _close_idle(self, slot: Slot, why: CloseReason) -> None:
        slot.state = CLOSING
        self._closing += 1
        self.actions.append(Close(slot, why))

    def _has_open_or_opening(self) -> bool:
        return len(self.slots) > self._closing

    def _surplus(self) -> float:
        return len(self.slots) - self._closing - self.limit

    def _update_alert(self) -> None:
        self._alert = self.closed or self.replaced or self._surplus() > 0

    def _expect(self, slot: Slot, *states: SlotState) -> None:
        if slot not in self.slots or slot.state not in states:
            raise LedgerError(f"a slot that is {slot.state.value} cannot do this")

    def _rejection_at_once(self, now: float) -> Rejection | None:
        if self.closed:
            return Rejection(RejectReason.CLOSED)
        backoff = self.backoff
        if backoff.refused and now < backoff.until and not self._has_open_or_opening():
            return Rejection(RejectReason.FAILED, backoff.last_error)
        return None
