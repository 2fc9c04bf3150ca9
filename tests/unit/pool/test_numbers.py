"""The books in the terms in which others read them."""

import math
from typing import Any, NoReturn

import pytest
from tests.told import numbers
from tests.unit.pool.callers import NOW, ask, checkout, dispatch, idle, new_ledger

from penstock import PenstockPool
from penstock.errors import SettingsError
from penstock.pool.events import PoolSnapshot
from penstock.pool.ledger import Ledger
from penstock.pool.policy import check_size
from penstock.pool.slot import CloseReason, Open, Slot


def refuse_to_connect() -> NoReturn:
    """Open nothing: a pool that is refused is not asked for any."""
    raise AssertionError


def fail(ledger: Ledger, error: Exception) -> None:
    """Let the attempt fail that is ordered."""
    order = ledger.actions.popleft()
    assert isinstance(order, Open)
    ledger.failed(order.slot, NOW, error, refused=False)


def test_a_fresh_pool_has_nothing() -> None:
    assert new_ledger(3, 2).snapshot() == PoolSnapshot(
        size=3, limit=5, checked_in=0, checked_out=0, overflow=0
    )


def test_every_slot_is_read_by_what_is_done_with_it() -> None:
    ledger = new_ledger(6, 4)
    slots = checkout(ledger, 6)
    ledger.recover(slots[0])
    ledger.close_connection(slots[1], CloseReason.DEAD)
    for slot in slots[2:4]:
        ledger.release(slot, NOW)
    ledger.ping(slots[2])
    ledger.add_connection(NOW)

    assert ledger.snapshot() == PoolSnapshot(
        size=6,
        limit=10,
        checked_in=2,
        checked_out=2,
        overflow=1,
        opening=1,
        invalid=2,
        opened_total=6,
    )


def test_those_who_wait_and_those_who_were_refused_are_counted() -> None:
    ledger = new_ledger(1, 0)
    checkout(ledger, 1)
    late, _, _ = ask(ledger), ask(ledger), ask(ledger)
    ledger.expire(late)
    ledger.close()
    ask(ledger)

    snapshot = ledger.snapshot()

    assert snapshot.waiting == 2
    assert snapshot.rejected_total == 2
    assert snapshot.closed


def test_what_was_opened_and_closed_is_counted() -> None:
    ledger = new_ledger(3, 0)
    idle(ledger, 3)
    ledger.dispose()
    dispatch(ledger)

    snapshot = ledger.snapshot()

    assert (snapshot.opened_total, snapshot.closed_total) == (3, 3)


def test_the_newest_failure_is_told_while_it_lasts() -> None:
    ledger = new_ledger(1, 0)
    ledger.add_connection(NOW)
    fail(ledger, OSError("no route to host"))

    failing = ledger.snapshot()
    ledger.add_connection(NOW + 10)
    dispatch(ledger, NOW + 10)

    assert failing.last_open_error == "OSError: no route to host"
    assert failing.open_failures_total == 1
    assert ledger.snapshot().last_open_error is None
    assert ledger.snapshot().open_failures_total == 1


def test_a_suspended_pool_says_so() -> None:
    ledger = new_ledger()
    ledger.suspend()

    assert ledger.snapshot().suspended


@pytest.mark.parametrize(("size", "overflow"), [(0, 10), (5, -1)])
def test_a_pool_without_limit_has_limit_0(size: int, overflow: int) -> None:
    ledger = new_ledger(size, overflow)
    slots: list[Slot] = checkout(ledger, 12)

    snapshot = ledger.snapshot()

    assert ledger.limit == math.inf
    assert (snapshot.limit, snapshot.checked_out, snapshot.utilisation) == (0, len(slots), 0.0)
    assert numbers(str(snapshot))[0] == "12"


def test_the_utilisation_is_the_checked_out_share_of_the_limit() -> None:
    ledger = new_ledger(3, 1)
    checkout(ledger, 3)

    assert ledger.snapshot().utilisation == 0.75


@pytest.mark.parametrize(("size", "overflow"), [(0, 0), (5, -1), (1, 0), (100, 100)])
def test_a_size_is_accepted(size: int, overflow: int) -> None:
    check_size(size, overflow)


@pytest.mark.parametrize(
    ("size", "overflow", "message"),
    [
        (-1, 0, "pool_size=-1: 0 (no limit) or more is accepted"),
        (1, -2, "max_overflow=-2: -1 (no limit) or more is accepted"),
        ("5", 0, "pool_size='5': 0 (no limit) or more is accepted"),
        (None, 0, "pool_size=None: 0 (no limit) or more is accepted"),
        (1, "5", "max_overflow='5': -1 (no limit) or more is accepted"),
    ],
)
def test_a_wrong_size_is_refused_by_name(size: Any, overflow: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_size(size, overflow)

    assert str(caught.value) == message


@pytest.mark.parametrize("value", ["3600", None, True, math.nan])
def test_a_wrong_lifetime_is_refused_before_it_opens_connections(value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        PenstockPool(refuse_to_connect, recycle=value)

    assert str(caught.value) == f"pool_recycle={value!r}: a number is accepted, -1 for never"


@pytest.mark.parametrize("value", ["30", -1, True, math.nan])
def test_a_wrong_timeout_is_refused_by_name(value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        PenstockPool(refuse_to_connect, timeout=value)

    assert str(caught.value) == (
        f"pool_timeout={value!r}: None (no limit) or 0 or more is accepted"
    )
