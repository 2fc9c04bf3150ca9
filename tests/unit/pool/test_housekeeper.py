"""Replacing what has lived its time: the new connection first, and few at once."""

import pytest
from tests.unit.pool.callers import NOW, actions, checkout, dispatch, idle, new_ledger

from penstock.pool.housekeeper import REPLACEMENTS_AT_ONCE, Housekeeper, HousekeeperPolicy
from penstock.pool.ledger import Ledger
from penstock.pool.slot import CLOSING, IDLE, OPENING, Close, CloseReason, Open, Ping, Slot

NO = ConnectionError("no")


def worker(ledger: Ledger, keepalive: float = 0) -> Housekeeper:
    """Return a schedule that closes no overflow, and pings only if it is told to."""
    return Housekeeper(ledger, HousekeeperPolicy(overflow_idle=1e9, keepalive=keepalive))


def opened_by(ledger: Ledger) -> list[Slot]:
    """Take the orders, each of them to open a connection that nobody waits for."""
    taken = actions(ledger)
    slots = [order.slot for order in taken if isinstance(order, Open)]
    assert len(slots) == len(taken)
    assert all(slot.for_housekeeping for slot in slots)
    return slots


def run(housekeeper: Housekeeper, ledger: Ledger, start: float, end: float) -> None:
    """Run once a second, and do at once what is due."""
    for second in range(int(end - start) + 1):
        housekeeper.run(start + second)
        dispatch(ledger, start + second)


def test_nothing_is_replaced_before_its_time() -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [slot] = idle(ledger, 1)

    worker(ledger).run(slot.retire_at - 0.001)

    assert actions(ledger) == []


def test_a_replacement_is_opened_first_and_the_old_one_closed_after() -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [old] = idle(ledger, 1)
    due = old.retire_at

    worker(ledger).run(due)
    [new] = opened_by(ledger)
    assert new.replaces is old
    assert old.state is IDLE
    assert ledger.acquire(due) is old
    ledger.release(old, due)

    ledger.opened(new, due + 1)
    assert actions(ledger) == [Close(old, CloseReason.LIFETIME)]
    assert ledger.acquire(due + 1) is new
    assert new.replaces is None


def test_an_old_one_that_is_checked_out_is_closed_when_it_comes_back() -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [old] = checkout(ledger, 1)
    worker(ledger).run(old.retire_at)
    dispatch(ledger, old.retire_at)
    assert (ledger.open, ledger.idle) == (2, 1)

    ledger.release(old, old.retire_at)

    assert actions(ledger) == [Close(old, CloseReason.LIFETIME)]


def test_so_many_are_replaced_at_once_and_the_others_go_on_working() -> None:
    ledger = new_ledger(5, 5, recycle=60.0)
    old = idle(ledger, 5)
    oldest = sorted(old, key=lambda slot: slot.retire_at)
    housekeeper, due = worker(ledger), oldest[-1].retire_at

    housekeeper.run(due)
    new = opened_by(ledger)
    housekeeper.run(due)

    assert len(new) == REPLACEMENTS_AT_ONCE
    assert actions(ledger) == []
    assert [slot.state for slot in old] == [IDLE] * 5
    assert [slot.replaces for slot in new] == oldest[:2]


def test_all_that_are_due_are_replaced_in_the_end() -> None:
    ledger = new_ledger(5, 5, recycle=60.0)
    old = idle(ledger, 5)
    due = max(slot.retire_at for slot in old)

    run(worker(ledger), ledger, due, due + 4)

    assert ledger.idle == 5
    assert not set(old) & set(ledger)


def test_one_is_replaced_although_another_is_still_being_closed() -> None:
    ledger = new_ledger(2, 2, recycle=60.0)
    first, second = sorted(idle(ledger, 2), key=lambda slot: slot.retire_at)
    housekeeper = worker(ledger)
    housekeeper.run(first.retire_at)
    ledger.opened(opened_by(ledger)[0], first.retire_at)
    actions(ledger)
    assert first.state is CLOSING

    housekeeper.run(second.retire_at)

    [new] = opened_by(ledger)
    assert new.replaces is second


def test_replacing_keeps_to_the_number_of_parallel_connects() -> None:
    ledger = new_ledger(3, 3, recycle=60.0, connects_at_once=1)
    old = idle(ledger, 3)

    worker(ledger).run(max(slot.retire_at for slot in old))

    assert ledger.opening == 1


def test_without_room_the_old_one_is_closed_first_and_made_up_for() -> None:
    ledger = new_ledger(2, 0, recycle=60.0)
    old = min(idle(ledger, 2), key=lambda slot: slot.retire_at)
    housekeeper, due = worker(ledger), old.retire_at

    housekeeper.run(due)
    assert actions(ledger) == [Close(old, CloseReason.LIFETIME)]

    ledger.remove(old, due)
    housekeeper.run(due)
    assert len(opened_by(ledger)) == 1
    assert ledger.open == 2


def test_without_room_one_leaves_at_a_time() -> None:
    ledger = new_ledger(3, 0, recycle=60.0)
    old = idle(ledger, 3)
    housekeeper, due = worker(ledger), max(slot.retire_at for slot in old)

    housekeeper.run(due)
    housekeeper.run(due + 1)

    assert ledger.count(CLOSING) == 1
    assert ledger.idle == 2


def test_what_was_made_up_for_is_not_made_up_for_again() -> None:
    ledger = new_ledger(2, 0, recycle=60.0)
    old = min(idle(ledger, 2), key=lambda slot: slot.retire_at)
    housekeeper, due = worker(ledger), old.retire_at
    run(housekeeper, ledger, due, due + 1)
    [lost] = [slot for slot in ledger if slot.opened_at >= due]
    ledger.evict(lost, CloseReason.DEAD)

    run(housekeeper, ledger, due + 2, due + 3)

    assert ledger.open == 1


def test_a_long_lease_that_is_due_does_not_keep_the_others_from_being_replaced() -> None:
    ledger = new_ledger(2, 0, recycle=60.0)
    long, other = checkout(ledger, 2)
    ledger.release(other, NOW)
    housekeeper = worker(ledger)
    long.retire_at = NOW + 50
    housekeeper.run(NOW + 50)

    other.retire_at = NOW + 55
    housekeeper.run(NOW + 55)

    assert actions(ledger) == [Close(other, CloseReason.LIFETIME)]


def test_above_the_size_the_old_one_goes_without_a_replacement() -> None:
    ledger = new_ledger(1, 2, recycle=60.0)
    old = min(idle(ledger, 3), key=lambda slot: slot.retire_at)

    worker(ledger).run(old.retire_at)

    assert actions(ledger) == [Close(old, CloseReason.LIFETIME)]


def test_of_two_that_are_due_only_the_one_above_the_size_goes_without_a_replacement() -> None:
    ledger = new_ledger(1, 2, recycle=60.0)
    first, second = sorted(idle(ledger, 2), key=lambda slot: slot.retire_at)

    worker(ledger).run(second.retire_at)

    close, open_order = actions(ledger)
    assert close == Close(first, CloseReason.LIFETIME)
    assert open_order.slot.replaces is second


def test_a_failing_replacement_keeps_the_old_one_until_it_expires() -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [old] = idle(ledger, 1)
    housekeeper, due = worker(ledger), old.retire_at

    housekeeper.run(due)
    ledger.failed(opened_by(ledger)[0], due, NO, refused=False)
    housekeeper.run(due)
    assert actions(ledger) == []
    assert ledger.acquire(due) is old
    ledger.release(old, due)

    housekeeper.run(ledger.backoff.until)
    assert opened_by(ledger)[0].replaces is old

    assert ledger.acquire(old.expires_at) is None
    assert actions(ledger) == [Close(old, CloseReason.LIFETIME)]


def test_a_slot_gets_one_replacement_however_long_that_takes() -> None:
    ledger = new_ledger(1, 3, recycle=60.0)
    [old] = idle(ledger, 1)
    housekeeper = worker(ledger)
    housekeeper.run(old.retire_at)
    assert len(opened_by(ledger)) == 1

    housekeeper.run(old.expires_at)
    housekeeper.run(old.expires_at + 1)

    assert actions(ledger) == []


@pytest.mark.parametrize("state", [OPENING, CLOSING])
def test_an_order_under_way_is_not_given_again(state: object) -> None:
    ledger = new_ledger(2, 2, recycle=60.0)
    [slot] = idle(ledger, 1)
    housekeeper, due = worker(ledger), slot.retire_at
    housekeeper.run(due)
    if state is CLOSING:
        ledger.opened(opened_by(ledger)[0], due)
    actions(ledger)

    housekeeper.run(due)

    assert ledger.count(OPENING, CLOSING) == 1
    assert actions(ledger) == []


def test_pinging_belongs_to_the_same_run() -> None:
    ledger = new_ledger(1)
    [slot] = idle(ledger, 1)

    worker(ledger, keepalive=30.0).run(NOW + 30)

    assert actions(ledger) == [Ping(slot)]


@pytest.mark.parametrize(
    ("policy", "replaced"),
    [
        (HousekeeperPolicy(keepalive=0), 0),
        (HousekeeperPolicy(keepalive=120), 3),
        (HousekeeperPolicy(keepalive=0, min_idle=1), 3),
    ],
    ids=["asleep", "keepalive", "min_idle"],
)
def test_what_is_not_needed_goes_without_a_replacement_where_the_database_may_sleep(
    policy: HousekeeperPolicy, replaced: int
) -> None:
    ledger = new_ledger(3, 1, recycle=225.0)
    idle(ledger, 3)

    run(Housekeeper(ledger, policy), ledger, NOW, NOW + 230)

    assert ledger.tally.opened - 3 == replaced
    assert ledger.open == replaced


def test_what_is_needed_is_replaced_also_where_the_database_may_sleep() -> None:
    ledger = new_ledger(1, 1, recycle=225.0)
    idle(ledger, 1)
    housekeeper = Housekeeper(ledger, HousekeeperPolicy(keepalive=0))
    for second in range(0, 230, 30):
        run(housekeeper, ledger, NOW + second, NOW + second + 29)
        slot = ledger.acquire(NOW + second + 29)
        assert slot is not None
        ledger.release(slot, NOW + second + 29)

    assert ledger.tally.opened == 2
