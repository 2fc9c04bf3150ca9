"""A pool that is closed: who is still served, and what becomes of its connections."""

from tests.unit.pool.callers import NOW, actions, ask, checkout, dispatch, idle, new_ledger

from penstock.pool.queue import RejectReason
from penstock.pool.slot import CHECKING, Close, CloseReason, Open, Tally


def test_a_closed_pool_turns_everybody_away() -> None:
    ledger = new_ledger(2)
    idle(ledger, 2)
    ledger.close()

    assert ask(ledger).why is RejectReason.CLOSED
    assert ledger.idle == 0
    assert len(actions(ledger)) == 2


def test_who_waited_before_a_pool_was_closed_is_served() -> None:
    ledger = new_ledger(2)
    [slot] = checkout(ledger, 1)
    second, third = ask(ledger), ask(ledger)
    ledger.close()
    dispatch(ledger)
    assert second.slot

    ledger.release(slot, NOW)
    assert third.slot is slot

    ledger.release(third.slot, NOW)
    assert actions(ledger) == [Close(slot, CloseReason.DISPOSED)]


def test_who_was_handed_something_broken_by_a_closed_pool_is_served() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    waiting = ask(ledger)
    ledger.close()
    ledger.remove(slot, NOW)

    assert [type(order) for order in ledger.actions] == [Open]
    dispatch(ledger)
    assert waiting.slot


def test_a_closed_pool_ends_empty() -> None:
    ledger = new_ledger(4, 1)
    slots = checkout(ledger, 4)
    ledger.release(slots[0], NOW)
    ledger.ping(slots[0])
    ledger.add_connection(NOW, for_housekeeping=True)
    ledger.recover(slots[1])
    ledger.close()

    ledger.restore(slots[1], NOW)
    for slot in slots[2:]:
        ledger.release(slot, NOW)
    assert ledger.count(CHECKING) == 1
    dispatch(ledger)

    assert ledger.open == 0
    assert ledger.tally == Tally(opened=5, closed=5)


def test_a_closed_pool_that_was_suspended_checks_out_nothing_when_it_is_resumed() -> None:
    ledger = new_ledger(1)
    idle(ledger, 1)
    ledger.suspend()
    ledger.close()
    ledger.resume(NOW)

    assert ledger.acquire(NOW) is None
    assert ask(ledger).why is RejectReason.CLOSED
