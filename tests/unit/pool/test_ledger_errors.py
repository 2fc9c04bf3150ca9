"""What the driver reports back: connections opened, recovered and closed, and what cannot be."""

from collections.abc import Callable

import pytest
from tests.unit.pool.callers import NOW, actions, ask, checkout, dispatch, idle, new_ledger

from penstock.pool.ledger import LedgerError
from penstock.pool.slot import RECOVERING, Close, CloseReason, Slot, Tally

NO = ConnectionError("no")


def test_a_connection_that_nobody_waits_for_any_more_becomes_idle() -> None:
    ledger = new_ledger(1)
    caller = ask(ledger)
    ledger.waiters.withdraw(caller)

    dispatch(ledger)

    assert (ledger.idle, ledger.tally.opened) == (1, 1)


def test_a_recovered_slot_goes_to_who_waits() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    waiting = ask(ledger)
    ledger.recover(slot)
    assert (slot.state, ledger.open, waiting.answers) == (RECOVERING, 1, [])

    ledger.restore(slot, NOW + 2)

    assert waiting.slot is slot
    assert slot.since == NOW + 2


def test_an_evicted_slot_is_closed_when_it_is_recovered_or_returned() -> None:
    ledger = new_ledger(2)
    recovered, returned = checkout(ledger, 2)
    ledger.recover(recovered)
    for slot in (recovered, returned):
        ledger.evict(slot, CloseReason.INVALID)
    waiting = ask(ledger)

    ledger.restore(recovered, NOW)
    ledger.release(returned, NOW)

    assert waiting.answers == []
    assert actions(ledger) == [
        Close(recovered, CloseReason.INVALID),
        Close(returned, CloseReason.INVALID),
    ]


def test_the_first_reason_to_close_a_slot_stands() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    ledger.evict(slot, CloseReason.INVALID)
    ledger.evict(slot, CloseReason.DISPOSED)

    ledger.release(slot, NOW)

    assert actions(ledger) == [Close(slot, CloseReason.INVALID)]


def test_a_slot_that_was_returned_cannot_be_returned_again() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)

    with pytest.raises(LedgerError, match="idle"):
        ledger.release(slot, NOW)


def test_a_slot_that_has_left_the_books_cannot_be_returned() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    ledger.remove(slot, NOW)

    with pytest.raises(LedgerError):
        ledger.release(slot, NOW)
    assert ledger.idle == 0


def test_what_cannot_have_happened_is_an_error_and_changes_nothing() -> None:
    ledger = new_ledger(2)
    [resting] = idle(ledger, 1)
    stranger = Slot(NOW)
    reports: list[Callable[[], None]] = [
        lambda: ledger.opened(resting, NOW),
        lambda: ledger.failed(resting, NOW, NO, refused=False),
        lambda: ledger.remove(resting, NOW),
        lambda: ledger.recover(resting),
        lambda: ledger.restore(resting, NOW),
        lambda: ledger.close_connection(resting, CloseReason.DEAD),
        lambda: ledger.opened(stranger, NOW),
    ]

    for report in reports:
        with pytest.raises(LedgerError):
            report()

    assert (ledger.open, ledger.idle, ledger.opening) == (1, 1, 0)
    assert ledger.tally == Tally(opened=1)
