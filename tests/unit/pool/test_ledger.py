"""Who gets which connection: checkout, waiting, and what became of the orders."""

import math

import pytest
from tests.unit.pool.callers import NOW, Caller, actions, ask, checkout, dispatch, idle, new_ledger

from penstock.pool.ledger import Ledger
from penstock.pool.queue import PACE_SAMPLES, AdmissionPolicy, RejectReason
from penstock.pool.slot import CHECKED_OUT, CLOSING, IDLE, Close, CloseReason, Open, Slot, Tally

NO = ConnectionError("no")


def opening(ledger: Ledger, count: int) -> list[Slot]:
    """Take so many orders, each of them to open a connection."""
    taken = actions(ledger)
    slots = [order.slot for order in taken if isinstance(order, Open)]
    assert len(slots) == len(taken) == count
    return slots


# Checkout.


def test_an_empty_pool_checks_out_nothing_at_once() -> None:
    assert new_ledger().acquire(NOW) is None


@pytest.mark.parametrize(("lifo", "order"), [(False, [0, 1, 2]), (True, [2, 1, 0])])
def test_idle_slots_are_checked_out_in_the_configured_order(lifo: bool, order: list[int]) -> None:
    ledger = new_ledger(3, lifo=lifo)
    slots = idle(ledger, 3)

    checked_out = [ledger.acquire(NOW + 1) for _ in range(3)]

    assert checked_out == [slots[index] for index in order]
    assert {(slot.state, slot.checked_out_at) for slot in slots} == {(CHECKED_OUT, NOW + 1)}
    assert ledger.acquire(NOW + 1) is None


def test_what_has_expired_is_closed_instead_of_checked_out() -> None:
    ledger = new_ledger(2, recycle=60.0)
    old = idle(ledger, 1)[0]
    ledger.add_connection(NOW + 30)
    dispatch(ledger, NOW + 30)

    young = ledger.acquire(NOW + 60)

    assert young not in (None, old)
    assert actions(ledger) == [Close(old, CloseReason.LIFETIME)]
    assert ledger.open == 2


def test_what_expires_while_it_is_checked_out_is_not_handed_on() -> None:
    ledger = new_ledger(1, recycle=60.0)
    [slot] = checkout(ledger, 1)
    waiting = ask(ledger, NOW + 60)

    ledger.release(slot, NOW + 60)
    assert (slot.state, waiting.answers) == (CLOSING, [])

    dispatch(ledger, NOW + 60)
    assert waiting.slot is not slot


def test_with_recycle_0_every_lease_has_a_connection_of_its_own() -> None:
    ledger = new_ledger(1, recycle=0)
    slots = set()
    for _ in range(3):
        [slot] = checkout(ledger, 1)
        ledger.release(slot, NOW)
        slots.add(slot)

    assert len(slots) == 3
    assert ledger.tally.opened == 3


def test_the_fewest_idle_slots_are_noted() -> None:
    ledger = new_ledger(4)
    idle(ledger, 4)
    ledger.least_idle = ledger.idle

    checked_out = [ledger.acquire(NOW), ledger.acquire(NOW)]
    for slot in filter(None, checked_out):
        ledger.release(slot, NOW)
    ledger.acquire(NOW)

    assert ledger.least_idle == 2


# Waiting.


def test_connections_are_opened_for_those_who_wait_so_many_at_once() -> None:
    ledger = new_ledger(5, connects_at_once=2)
    callers = [ask(ledger) for _ in range(4)]
    first, _ = opening(ledger, 2)

    ledger.opened(first, NOW)

    assert callers[0].slot is first
    assert ledger.opening == 2
    assert len(opening(ledger, 1)) == 1


def test_no_more_are_opened_than_the_limit_allows() -> None:
    ledger = new_ledger(2, 1, connects_at_once=10)
    for _ in range(5):
        ask(ledger)

    assert len(opening(ledger, 3)) == ledger.limit == ledger.open


@pytest.mark.parametrize(("size", "overflow"), [(0, 0), (1, -1)])
def test_without_a_limit_everybody_gets_a_connection(size: int, overflow: int) -> None:
    ledger = new_ledger(size, overflow)

    assert len(set(checkout(ledger, 50))) == 50
    assert ledger.limit == math.inf


def test_a_returned_slot_goes_to_the_oldest_waiter() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    first, second = ask(ledger), ask(ledger)

    ledger.release(slot, NOW + 1)

    assert first.slot is slot
    assert second.answers == []
    assert (slot.state, slot.since, slot.checked_out_at) == (CHECKED_OUT, NOW, NOW + 1)


def test_what_was_held_or_suspended_for_long_is_not_known_to_work() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)

    ledger.release(slot, NOW + 600)
    assert (slot.state, slot.since) == (IDLE, NOW)

    ledger.suspend()
    waiter = ask(ledger, NOW + 700)
    ledger.resume(NOW + 900)
    assert (waiter.slot, slot.since) == (slot, NOW)


def test_a_slot_that_every_waiter_has_left_becomes_idle() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    ask(ledger).gone = True

    ledger.release(slot, NOW)

    assert slot.state is IDLE
    assert ledger.acquire(NOW) is slot


def test_a_connection_that_is_being_closed_still_takes_its_place() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    ledger.close_connection(slot, CloseReason.DEAD)
    waiting = ask(ledger)
    assert actions(ledger) == [Close(slot, CloseReason.DEAD)]

    ledger.remove(slot, NOW)
    dispatch(ledger)

    assert waiting.slot is not slot
    assert ledger.tally == Tally(opened=2, closed=1)


def test_with_max_waiting_0_one_may_have_a_connection_opened_but_not_wait_for_a_return() -> None:
    ledger = new_ledger(1, admission=AdmissionPolicy(max_waiting=0))

    first, second = ask(ledger), ask(ledger)
    dispatch(ledger)

    assert first.slot
    assert second.why is RejectReason.FULL


def test_in_a_pool_made_smaller_as_many_may_wait_as_before() -> None:
    ledger = new_ledger(5, admission=AdmissionPolicy(max_waiting=1))
    checkout(ledger, 5)
    ledger.resize(1, 0, NOW)

    assert ask(ledger).answers == []
    assert ask(ledger).why is RejectReason.FULL


def test_who_was_handed_something_broken_waits_in_front_of_all() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    waiting, unlucky = ask(ledger), Caller()

    ledger.remove(slot, NOW)
    ledger.wait_again(unlucky, NOW - 3, NOW)
    dispatch(ledger)

    assert unlucky.slot
    assert unlucky.arrived == NOW - 3
    assert waiting.answers == []


def test_who_was_handed_something_broken_has_a_connection_opened() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    ledger.remove(slot, NOW)
    unlucky = Caller()

    ledger.wait_again(unlucky, NOW, NOW)
    dispatch(ledger)

    assert unlucky.slot


def test_who_was_handed_something_broken_waits_also_where_the_queue_is_full() -> None:
    ledger = new_ledger(1, admission=AdmissionPolicy(max_waiting=1))
    checkout(ledger, 1)
    ask(ledger)

    ledger.wait_again(Caller(), NOW - 3, NOW)

    assert len(ledger.waiters) == 2


def test_the_quiet_before_somebody_came_back_is_not_the_pace_of_the_queue() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    for _ in range(PACE_SAMPLES):
        ask(ledger)
    for _ in range(PACE_SAMPLES):
        ledger.release(slot, NOW)
    later = NOW + 3600
    ledger.wait_again(Caller(), later, later)
    ask(ledger, later, deadline=later + 30)
    ledger.release(slot, later)

    patient = ask(ledger, later, deadline=later + 30)

    assert patient.answers == []


def test_whose_deadline_passes_is_told_what_it_was_waiting_for() -> None:
    ledger = new_ledger(1)
    connecting = ask(ledger)
    ledger.expire(connecting)
    dispatch(ledger)
    checkout(ledger, 1)
    waiting, suspended = ask(ledger), ask(ledger)
    ledger.expire(waiting)
    ledger.suspend()
    ledger.expire(suspended)

    assert connecting.why is RejectReason.CONNECTING
    assert waiting.why is RejectReason.WAITING
    assert suspended.why is RejectReason.SUSPENDED


def test_a_deadline_that_passes_after_the_answer_changes_nothing() -> None:
    ledger = new_ledger(1)
    caller = ask(ledger)
    dispatch(ledger)

    ledger.expire(caller)

    assert caller.slot.state is CHECKED_OUT
