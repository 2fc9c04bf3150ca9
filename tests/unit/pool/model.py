"""What a pool's books must say, kept beside them from what was done and what was answered."""

import math
from typing import TYPE_CHECKING

from tests.unit.pool.callers import NOW, Caller

from penstock.pool.ledger import Ledger
from penstock.pool.queue import Rejection, RejectReason, WaitersTally
from penstock.pool.slot import (
    CHECKED_OUT,
    CHECKING,
    CLOSING,
    IDLE,
    OPENING,
    Action,
    Close,
    Open,
    Ping,
    Slot,
    SlotState,
    Tally,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


OUT_OF_TURN = (
    RejectReason.WAITING,
    RejectReason.CONNECTING,
    RejectReason.SUSPENDED,
    RejectReason.FAILED,
)
"""Phases in which a deadline or another bound has passed, which happens to anybody in the queue."""


class Customer(Caller):
    """A caller that has the model check each answer.

    Args:
        model: Of the pool it asks.
        deadline: When it gives up.
        retry_for: Seconds for which a failed connect is tried again for it.
    """

    __slots__ = ("came_at", "model")

    def __init__(
        self, model: "Model", deadline: float = math.inf, retry_for: float = math.inf
    ) -> None:
        super().__init__(deadline, retry_for=retry_for)
        self.model = model
        self.came_at = model.loop_time

    def accept(self, slot: Slot) -> bool:
        """Take the slot, if it is this one's turn and nobody else has it."""
        self.model.offered(self, slot)
        return super().accept(slot)

    def reject(self, rejection: Rejection) -> None:
        """Take note, if it is this one's turn."""
        self.model.refused(self, rejection)
        super().reject(rejection)


class Model:
    """Books of the simplest kind: who is where in the queue, and what is done with each slot.

    Args:
        ledger: The books to compare with.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.now = NOW
        self.slots: dict[Slot, SlotState] = {}
        """A slot that is given to the ledger to dispose of is ``IDLE`` meanwhile."""
        self.queue: list[Customer] = []
        self.customers: list[Customer] = []
        self.to_do: list[Action] = []
        self.opened: Slot | None = None
        """The slot that was just reported open, which may be checked out once at any age."""
        self.shed: list[Customer] = []
        """Passed over by the hand-over that is going on, and to be told so."""
        self.loop_time = NOW
        """The time that the event loop has run: a stall counts as two heartbeats at most."""
        self.failing_since = math.inf
        self.slot_tally, self.tally = Tally(), WaitersTally()
        self._most_open = 0.0

    # What the ledger does.

    def offered(self, customer: Customer, slot: Slot) -> None:
        """Check that a slot that is handed over is free and young, and goes to the oldest.

        Those before it were passed over, which may be done to a few who have waited for long.
        """
        self.shed = self.queue[: self.queue.index(customer)]
        assert not self.shed or self._may_shed(slot)
        self.queue.remove(customer)
        assert customer.answers == []
        assert not self.ledger.suspended
        if customer.gone:
            self.tally.withdrawn += 1
            return
        self.tally.handed_over += 1
        self.checked_out(slot)

    def checked_out(self, slot: Slot) -> None:
        """Check that a slot that is checked out was free, and is fit to be checked out."""
        assert self.slots[slot] is IDLE
        assert self._staying() <= self.ledger.limit
        if slot is not self.opened:
            assert self.now < slot.expires_at
            assert slot.eviction is None
        self.slots[slot] = CHECKED_OUT

    def refused(self, customer: Customer, rejection: Rejection) -> None:
        """Check that whoever is refused waits, and is the oldest unless its time was over."""
        assert customer.answers == []
        if rejection.why is RejectReason.SHED:
            assert self.shed.pop(0) is customer
        assert rejection.why in OUT_OF_TURN or self.queue[0] is customer
        self.queue.remove(customer)
        self.tally.rejected += 1

    def _may_shed(self, slot: Slot) -> bool:
        ledger, target = self.ledger, self.ledger.waiters._admission.policy.codel_target
        others = [other for other in self.in_state(IDLE, OPENING, CHECKED_OUT) if other is not slot]
        assert not any(self.slots[other] is not CHECKED_OUT for other in others)
        assert ledger.open >= ledger.limit or self.now < ledger.backoff.until
        assert target is not None
        assert all(self.loop_time - each.came_at > 2 * target for each in self.shed)
        return True

    def take_orders(self) -> None:
        """Check that each new order is about a slot that the ledger may dispose of."""
        while self.ledger.actions:
            order = self.ledger.actions.popleft()
            match order:
                case Open(slot):
                    assert slot not in self.slots
                    assert self.now >= self.ledger.backoff.until
                    assert slot.for_housekeeping or not self.ledger.suspended
                    assert not (slot.for_housekeeping and self.ledger.closed)
                    self.slots[slot] = OPENING
                case Close(slot):
                    assert self.slots[slot] is IDLE
                    self.slots[slot] = CLOSING
                case Ping(slot):
                    assert self.slots[slot] is IDLE
                    self.slots[slot] = CHECKING
            self.to_do.append(order)

    # What is done to the ledger.

    def passes(self, seconds: float) -> None:
        """Let time pass while the event loop runs, which the ledger is told again and again."""
        heartbeat = self._heartbeat_interval
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + heartbeat)
            self.ledger.waiters.heartbeat(self.now)
        self.loop_time += seconds

    def stands_still(self, seconds: float) -> None:
        """Let time pass in which the event loop does not run."""
        self.now += seconds
        self.loop_time += min(seconds, 2 * self._heartbeat_interval)

    @property
    def _heartbeat_interval(self) -> float:
        return self.ledger.waiters._admission.policy.heartbeat_interval

    def must_learn(self, failed: Slot, *, transient: bool) -> "list[Customer]":
        """Return who has to be told that an attempt to connect has failed, which is over by now."""
        self.failing_since = min(self.failing_since, self.now)
        unserved = len(self.queue) - len(self.in_state(OPENING))
        if transient and self.slot_tally.opened and not self.ledger.closed:
            over = [each for each in self.queue if self._is_impatient(each)]
            return over[: max(0, unserved)]
        if not self.has_prospects():
            return list(self.queue)
        return self.queue[:1] if unserved > 0 and not failed.for_housekeeping else []

    def _is_impatient(self, customer: Customer) -> bool:
        return self.now - max(customer.arrived, self.failing_since) >= customer.retry_for

    def in_state(self, *states: SlotState) -> "Sequence[Slot]":
        """Return the slots that the model knows in these states, oldest first."""
        return [slot for slot, state in self.slots.items() if state in states]

    def has_prospects(self) -> bool:
        """Return whether any slot has or will have a connection that can be checked out."""
        return self._staying() > 0

    def _staying(self) -> int:
        return sum(state is not CLOSING for state in self.slots.values())

    def joined(self, customer: Customer, *, in_front: bool = False) -> None:
        """Note a place in the queue."""
        self.customers.append(customer)
        self.queue.insert(0 if in_front else len(self.queue), customer)
        self.tally.queued += 1

    def gone(self, slot: Slot) -> Slot:
        """Note that a connection is closed, or never was."""
        if self.slots.pop(slot) is OPENING:
            self.slot_tally.open_failures += 1
        else:
            self.slot_tally.closed += 1
        return slot

    def free(self, slot: Slot) -> Slot:
        """Note that the ledger may dispose of the slot from now on."""
        if self.slots[slot] is OPENING:
            self.slot_tally.opened += 1
            self.failing_since = math.inf
            self.opened = slot
        self.slots[slot] = IDLE
        return slot

    # What must hold after each step.

    def compare(self) -> None:
        """Check the ledger after a step."""
        self.take_orders()
        self.opened = None
        ledger = self.ledger
        assert self.shed == []
        assert {slot: slot.state for slot in ledger} == self.slots
        assert list(ledger.waiters.queue) == self.queue
        assert ledger.idle == len(self.in_state(IDLE))
        assert ledger.opening == len(self.in_state(OPENING))
        assert ledger.opening <= ledger.connects_at_once
        assert not ledger.idle or not self.queue or ledger.suspended
        assert not ledger.idle or not ledger.closed
        self._check_tallies()
        self._check_limit()
        self._check_nobody_waits_in_vain()

    def _check_tallies(self) -> None:
        ledger, tally = self.ledger, self.ledger.waiters.tally
        assert ledger.tally == self.slot_tally
        assert ledger.tally.opened == ledger.tally.closed + ledger.open - ledger.opening
        assert tally == self.tally
        answered = tally.handed_over + tally.rejected + tally.withdrawn
        assert tally.queued == answered + len(self.queue)
        assert all(len(customer.answers) <= 1 for customer in self.customers)

    def _check_limit(self) -> None:
        assert self.ledger.open <= max(self.ledger.limit, self._most_open)
        assert self._staying() <= self.ledger.limit or not self.ledger.idle
        self._most_open = self.ledger.open

    def _check_nobody_waits_in_vain(self) -> None:
        ledger = self.ledger
        if ledger.suspended or self.now < ledger.backoff.until or ledger.open >= ledger.limit:
            return
        at_once = ledger.connects_at_once if self.failing_since == math.inf else 1
        assert ledger.opening >= min(len(self.queue), at_once)
