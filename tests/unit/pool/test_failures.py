"""Attempts to connect that fail: who learns it, and when the next one is made."""

import pytest
from tests.unit.pool.askers import NOW, ask, carry_out, idle, lend, new_ledger, orders

from penstock.pool.ledger import Ledger, Tally
from penstock.pool.lifetime import LONGEST_DELAY_REFUSED
from penstock.pool.orders import Open
from penstock.pool.refusal import Refusal, Refused
from penstock.pool.slot import CloseReason, Slot

NO = ConnectionError("no")
FAILED = Refusal(Refused.FAILED, NO)


def fail(ledger: Ledger, *, times: int = 1, refused: bool = False) -> None:
    """Let so many of the ordered attempts fail."""
    for _ in range(times):
        order = ledger.orders.popleft()
        assert isinstance(order, Open)
        ledger.failed(order.slot, NOW, NO, refused=refused)


def ordered(ledger: Ledger) -> list[Slot]:
    return [order.slot for order in orders(ledger) if isinstance(order, Open)]


def test_where_nothing_else_can_come_everybody_learns_it() -> None:
    ledger = new_ledger(1)
    askers = [ask(ledger) for _ in range(3)]

    fail(ledger)

    assert [asker.answers for asker in askers] == [[FAILED]] * 3
    assert ledger.open == 0
    assert ledger.tally == Tally(open_failures=1)


def test_where_something_is_lent_the_oldest_learns_it() -> None:
    ledger = new_ledger(2)
    [slot] = lend(ledger, 1)
    first, second = ask(ledger), ask(ledger)

    fail(ledger)
    assert (first.answers, second.answers) == ([FAILED], [])

    ledger.give_back(slot, NOW)
    assert second.slot is slot


def test_while_other_attempts_can_serve_everybody_nobody_learns_it() -> None:
    ledger = new_ledger(3)
    first, second, third = ask(ledger), ask(ledger), ask(ledger)
    ledger.waiters.withdraw(third)

    fail(ledger)
    carry_out(ledger)

    assert first.slot is not second.slot


def test_what_is_only_being_closed_serves_nobody() -> None:
    ledger = new_ledger(2)
    [slot] = lend(ledger, 1)
    waiting = ask(ledger)
    ledger.discard(slot, CloseReason.DEAD)

    fail(ledger)

    assert waiting.answers == [FAILED]


def test_an_attempt_that_nobody_asked_for_fails_unheard_while_there_are_others() -> None:
    ledger = new_ledger(2)
    lend(ledger, 1)
    ledger.order_open(NOW, for_upkeep=True)
    waiting = ask(ledger)

    fail(ledger)

    assert waiting.answers == []
    assert ledger.tally.open_failures == 1


def test_the_next_attempt_is_made_when_the_delay_is_over() -> None:
    ledger = new_ledger(2)
    lend(ledger, 1)
    ask(ledger)
    fail(ledger)
    waiting = ask(ledger)
    assert ordered(ledger) == []

    ledger.open_for_waiters(ledger.backoff.until - 0.001)
    assert ordered(ledger) == []

    ledger.open_for_waiters(ledger.backoff.until)
    carry_out(ledger)
    assert waiting.slot


def test_a_connection_that_opens_ends_the_delay_for_those_who_wait() -> None:
    ledger = new_ledger(3)
    askers = [ask(ledger) for _ in range(4)]
    fail(ledger)
    [first, second] = ordered(ledger)

    ledger.opened(first, NOW)
    assert ledger.opening == 2
    assert askers[0].answers == [FAILED]

    ledger.opened(second, NOW)
    carry_out(ledger)
    assert len({asker.slot for asker in askers[1:]}) == 3


def test_a_refusing_server_is_not_asked_again_for_everybody_who_comes() -> None:
    ledger = new_ledger(2)
    ask(ledger)
    fail(ledger, refused=True)

    late = ask(ledger, NOW + 0.4)

    assert late.answers == [FAILED]
    assert ordered(ledger) == []
    assert ledger.waiters.tally.turned_away == 1


def test_a_refusing_server_is_asked_again_when_the_delay_is_over() -> None:
    ledger = new_ledger(2)
    ask(ledger)
    fail(ledger, refused=True)

    later = ask(ledger, NOW + LONGEST_DELAY_REFUSED)
    carry_out(ledger)

    assert later.slot


def test_while_something_is_lent_one_may_wait_though_the_server_refuses() -> None:
    ledger = new_ledger(2)
    [slot] = lend(ledger, 1)
    ask(ledger)
    fail(ledger, refused=True)

    waiting = ask(ledger, NOW + 0.1)
    ledger.give_back(slot, NOW + 0.2)

    assert waiting.slot is slot


def test_who_waits_learns_it_when_a_refusing_server_has_cut_the_last_connection() -> None:
    ledger = new_ledger(2)
    [slot] = lend(ledger, 1)
    ask(ledger)
    fail(ledger, refused=True)
    waiting = ask(ledger, NOW + 0.1)

    ledger.vacate(slot, NOW + 0.2)

    assert waiting.answers == [FAILED]


@pytest.mark.parametrize("refused", [True, False])
def test_a_failing_replacement_leaves_the_old_one_in_use(refused: bool) -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [old] = idle(ledger, 1)
    ledger.order_open(NOW, for_upkeep=True, replaces=old)

    fail(ledger, refused=refused)

    assert old.retire_at == NOW
    assert ledger.borrow(NOW) is old
    assert old.doomed is None
