"""What the operator does to a pool at run time: resize, suspend, dispose."""

import math

from tests.unit.pool.callers import NOW, actions, ask, checkout, dispatch, idle, new_ledger

from penstock.pool.queue import PACE_SAMPLES, AdmissionPolicy
from penstock.pool.slot import CHECKED_OUT, CLOSING, IDLE, Close, CloseReason, Tally

# Resizing.


def test_a_smaller_pool_closes_its_idle_surplus_at_once() -> None:
    ledger = new_ledger(5)
    slots = idle(ledger, 5)

    ledger.resize(2, 0, NOW)

    assert actions(ledger) == [Close(slot, CloseReason.SURPLUS) for slot in slots[:3]]
    assert (ledger.idle, ledger.limit) == (2, 2)


def test_a_smaller_pool_closes_what_is_checked_out_as_it_comes_back() -> None:
    ledger = new_ledger(3)
    first, second, third = checkout(ledger, 3)
    waiting = ask(ledger)
    ledger.resize(1, 0, NOW)

    for slot in (first, second):
        ledger.release(slot, NOW)
        assert actions(ledger) == [Close(slot, CloseReason.SURPLUS)]
    ledger.release(third, NOW)

    assert waiting.slot is third
    ledger.remove(first, NOW)
    ledger.remove(second, NOW)
    assert (ledger.open, actions(ledger)) == (1, [])


def test_a_connection_that_opens_in_a_pool_made_smaller_is_closed() -> None:
    ledger = new_ledger(2)
    [checked_out] = checkout(ledger, 1)
    waiting = ask(ledger)
    ledger.resize(1, 0, NOW)

    dispatch(ledger)
    assert (ledger.open, waiting.answers) == (1, [])

    ledger.release(checked_out, NOW)
    assert waiting.slot is checked_out


def test_a_larger_pool_opens_for_those_who_wait() -> None:
    ledger = new_ledger(1)
    checkout(ledger, 1)
    first, second = ask(ledger), ask(ledger)

    ledger.resize(1, 1, NOW)
    dispatch(ledger)

    assert first.slot
    assert second.answers == []


def test_a_pool_that_was_made_smaller_and_larger_again_keeps_what_comes_back() -> None:
    ledger = new_ledger(2)
    slots = checkout(ledger, 2)
    ledger.resize(1, 0, NOW)
    ledger.resize(2, 0, NOW)

    for slot in slots:
        ledger.release(slot, NOW)

    assert (ledger.idle, actions(ledger)) == (2, [])


def test_a_pool_of_size_0_or_overflow_minus_1_has_no_limit() -> None:
    ledger = new_ledger(1)
    ledger.resize(0, 5, NOW)
    assert ledger.limit == math.inf
    ledger.resize(5, -1, NOW)
    assert ledger.limit == math.inf


# Suspending.


def test_a_suspended_pool_takes_back_and_checks_out_nothing() -> None:
    ledger = new_ledger(2)
    [slot] = checkout(ledger, 1)
    ledger.suspend()

    waiting = ask(ledger)
    ledger.release(slot, NOW)

    assert slot.state is IDLE
    assert waiting.answers == []
    assert actions(ledger) == []


def test_what_was_being_opened_when_a_pool_was_suspended_is_kept() -> None:
    ledger = new_ledger(1)
    waiting = ask(ledger)
    ledger.suspend()

    dispatch(ledger)
    assert (ledger.idle, waiting.answers) == (1, [])

    ledger.resume(NOW)
    assert waiting.slot.state is CHECKED_OUT


def test_a_resumed_pool_serves_the_oldest_first_and_opens_for_the_others() -> None:
    ledger = new_ledger(3)
    slots = idle(ledger, 2)
    ledger.suspend()
    callers = [ask(ledger) for _ in range(4)]

    ledger.resume(NOW)
    assert [caller.slot for caller in callers[:2]] == slots

    dispatch(ledger)
    assert callers[2].slot not in slots
    assert callers[3].answers == []


def test_a_resumed_pool_checks_out_nothing_that_has_expired_meanwhile() -> None:
    ledger = new_ledger(1, recycle=60.0)
    [old] = idle(ledger, 1)
    ledger.suspend()
    waiting = ask(ledger)

    ledger.resume(NOW + 60)
    assert (old.state, waiting.answers) == (CLOSING, [])

    dispatch(ledger, NOW + 60)
    assert waiting.slot is not old


def test_who_waited_while_checkout_was_suspended_is_not_shed_for_it() -> None:
    ledger = new_ledger(1, admission=AdmissionPolicy(codel_target=0.005))
    [slot] = idle(ledger, 1)
    ledger.suspend()
    waiting = ask(ledger)

    ledger.resume(NOW + 5)

    assert waiting.slot is slot


def test_the_time_of_a_suspension_is_not_the_pace_of_the_queue() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    for _ in range(PACE_SAMPLES + 1):
        ask(ledger)
    for _ in range(PACE_SAMPLES):
        ledger.release(slot, NOW)
    ledger.suspend()
    ledger.resume(NOW + 60)

    patient = ask(ledger, NOW + 60, deadline=NOW + 62)

    assert patient.answers == []


def test_nobody_is_told_that_a_suspended_queue_is_too_slow() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    for _ in range(PACE_SAMPLES + 1):
        ask(ledger)
    for _ in range(PACE_SAMPLES):
        ledger.release(slot, NOW)
    ledger.suspend()

    assert ask(ledger, NOW + 60, deadline=NOW + 62).answers == []


# Disposing.


def test_disposing_closes_what_is_idle_now_and_the_rest_as_it_comes_back() -> None:
    ledger = new_ledger(4)
    resting, checked, checked_out, recovered = checkout(ledger, 4)
    for slot in (resting, checked):
        ledger.release(slot, NOW)
    ledger.ping(checked)
    ledger.recover(recovered)
    actions(ledger)

    ledger.dispose()
    assert actions(ledger) == [Close(resting, CloseReason.DISPOSED)]

    ledger.restore(checked, NOW)
    ledger.release(checked_out, NOW)
    ledger.restore(recovered, NOW)
    assert actions(ledger) == [
        Close(slot, CloseReason.DISPOSED) for slot in (checked, checked_out, recovered)
    ]


def test_a_connection_being_opened_when_a_pool_was_disposed_of_is_checked_out_once() -> None:
    ledger = new_ledger(1)
    waiting, next_one = ask(ledger), ask(ledger)
    ledger.dispose()
    dispatch(ledger)
    slot = waiting.slot

    ledger.release(slot, NOW)

    assert next_one.answers == []
    assert actions(ledger) == [Close(slot, CloseReason.DISPOSED)]


def test_a_connection_being_opened_for_nobody_when_a_pool_was_disposed_of_is_closed() -> None:
    ledger = new_ledger(1)
    ledger.add_connection(NOW, for_housekeeping=True)
    ledger.dispose()

    dispatch(ledger)

    assert ledger.open == 0
    assert ledger.tally == Tally(opened=1, closed=1)


def test_a_pool_that_was_disposed_of_can_be_used_again() -> None:
    ledger = new_ledger(2)
    old = idle(ledger, 2)
    ledger.dispose()
    dispatch(ledger)

    new = idle(ledger, 2)

    assert not set(old) & set(new)
    assert ledger.idle == 2
