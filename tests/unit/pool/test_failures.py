"""Attempts to connect that fail: who learns it, and when the next one is made."""

import pytest
from tests.unit.pool.callers import NOW, actions, ask, checkout, dispatch, idle, new_ledger

from penstock.pool.ledger import Ledger
from penstock.pool.queue import Rejection, RejectReason
from penstock.pool.slot import LONGEST_DELAY_REFUSED, CloseReason, Open, Slot, Tally

NO = ConnectionError("no")
FAILED = Rejection(RejectReason.FAILED, NO)


def fail(
    ledger: Ledger, now: float = NOW, *, refused: bool = False, transient: bool = False
) -> None:
    """Let one of the ordered attempts fail."""
    order = ledger.actions.popleft()
    assert isinstance(order, Open)
    ledger.failed(order.slot, now, NO, refused=refused, transient=transient)


def opened_before(size: int = 1) -> Ledger:
    """Return a pool that has reached its server, whose connections are gone."""
    ledger = new_ledger(size)
    for slot in checkout(ledger, size):
        ledger.remove(slot, NOW)
    return ledger


def retry(ledger: Ledger) -> float:
    """Let the next attempt be ordered, and return when."""
    now = ledger.backoff.until
    ledger.open_for_waiters(now)
    return now


def ordered(ledger: Ledger) -> list[Slot]:
    return [order.slot for order in actions(ledger) if isinstance(order, Open)]


def test_where_nothing_else_can_come_everybody_learns_it() -> None:
    ledger = new_ledger(1)
    callers = [ask(ledger) for _ in range(3)]

    fail(ledger)

    assert [caller.answers for caller in callers] == [[FAILED]] * 3
    assert ledger.open == 0
    assert ledger.tally == Tally(open_failures=1)


def test_where_something_is_checked_out_the_oldest_learns_it() -> None:
    ledger = new_ledger(2)
    [slot] = checkout(ledger, 1)
    first, second = ask(ledger), ask(ledger)

    fail(ledger)
    assert (first.answers, second.answers) == ([FAILED], [])

    ledger.release(slot, NOW)
    assert second.slot is slot


def test_while_other_attempts_can_serve_everybody_nobody_learns_it() -> None:
    ledger = new_ledger(3)
    first, second, third = ask(ledger), ask(ledger), ask(ledger)
    ledger.waiters.withdraw(third)

    fail(ledger)
    dispatch(ledger)

    assert first.slot is not second.slot


def test_what_is_only_being_closed_serves_nobody() -> None:
    ledger = new_ledger(2)
    [slot] = checkout(ledger, 1)
    waiting = ask(ledger)
    ledger.close_connection(slot, CloseReason.DEAD)

    fail(ledger)

    assert waiting.answers == [FAILED]


def test_an_attempt_that_nobody_asked_for_fails_unheard_while_there_are_others() -> None:
    ledger = new_ledger(2)
    checkout(ledger, 1)
    ledger.add_connection(NOW, for_housekeeping=True)
    waiting = ask(ledger)

    fail(ledger)

    assert waiting.answers == []
    assert ledger.tally.open_failures == 1


def test_the_next_attempt_is_made_when_the_delay_is_over() -> None:
    ledger = new_ledger(2)
    checkout(ledger, 1)
    ask(ledger)
    fail(ledger)
    waiting = ask(ledger)
    assert ordered(ledger) == []

    ledger.open_for_waiters(ledger.backoff.until - 0.001)
    assert ordered(ledger) == []

    ledger.open_for_waiters(ledger.backoff.until)
    dispatch(ledger)
    assert waiting.slot


def test_a_connection_that_opens_ends_the_delay_for_those_who_wait() -> None:
    ledger = new_ledger(3)
    callers = [ask(ledger) for _ in range(4)]
    fail(ledger)
    [first, second] = ordered(ledger)

    ledger.opened(first, NOW)
    assert ledger.opening == 2
    assert callers[0].answers == [FAILED]

    ledger.opened(second, NOW)
    dispatch(ledger)
    assert len({caller.slot for caller in callers[1:]}) == 3


def test_a_refusing_server_is_not_asked_again_for_everybody_who_comes() -> None:
    ledger = new_ledger(2)
    ask(ledger)
    fail(ledger, refused=True)

    late = ask(ledger, NOW + 0.4)

    assert late.answers == [FAILED]
    assert ordered(ledger) == []
    assert ledger.waiters.tally.not_admitted == 1


def test_a_refusing_server_is_asked_again_when_the_delay_is_over() -> None:
    ledger = new_ledger(2)
    ask(ledger)
    fail(ledger, refused=True)

    later = ask(ledger, NOW + LONGEST_DELAY_REFUSED)
    dispatch(ledger)

    assert later.slot


def test_while_something_is_checked_out_one_may_wait_though_the_server_refuses() -> None:
    ledger = new_ledger(2)
    [slot] = checkout(ledger, 1)
    ask(ledger)
    fail(ledger, refused=True)

    waiting = ask(ledger, NOW + 0.1)
    ledger.release(slot, NOW + 0.2)

    assert waiting.slot is slot


def test_who_waits_learns_it_when_a_refusing_server_has_cut_the_last_connection() -> None:
    ledger = new_ledger(2)
    [slot] = checkout(ledger, 1)
    ask(ledger)
    fail(ledger, refused=True)
    waiting = ask(ledger, NOW + 0.1)

    ledger.remove(slot, NOW + 0.2)

    assert waiting.answers == [FAILED]


# What may pass by itself.


def test_a_transient_failure_leaves_those_who_wait_in_the_queue_for_the_next_attempt() -> None:
    ledger = opened_before()
    callers = [ask(ledger) for _ in range(3)]

    fail(ledger, transient=True)
    fail(ledger, retry(ledger), transient=True)
    now = retry(ledger)
    dispatch(ledger, now)

    assert callers[0].slot
    assert not any(caller.answers for caller in callers[1:])


def test_in_a_pool_that_was_never_connected_a_transient_failure_is_told_at_once() -> None:
    ledger = new_ledger(1)
    callers = [ask(ledger) for _ in range(3)]

    fail(ledger, transient=True)

    assert [caller.answers for caller in callers] == [[FAILED]] * 3


def test_in_a_pool_that_is_closed_a_transient_failure_is_told_at_once() -> None:
    ledger = opened_before()
    callers = [ask(ledger) for _ in range(3)]
    ledger.close()

    fail(ledger, transient=True)

    assert [caller.answers for caller in callers] == [[FAILED]] * 3


@pytest.mark.parametrize("refused", [True, False])
def test_after_transient_failures_another_one_is_told_at_once(refused: bool) -> None:
    ledger = opened_before()
    callers = [ask(ledger) for _ in range(3)]
    fail(ledger, transient=True)

    fail(ledger, retry(ledger), refused=refused)

    assert [caller.answers for caller in callers] == [[FAILED]] * 3


def test_whose_deadline_passes_while_attempts_fail_learns_why_they_do() -> None:
    ledger = opened_before()
    first, second = ask(ledger), ask(ledger)
    fail(ledger, transient=True)

    ledger.expire(first)
    retry(ledger)
    ledger.expire(second)

    assert (first.answers, second.answers) == ([FAILED], [FAILED])


def test_whose_deadline_passes_before_the_next_attempt_learns_why_none_is_made() -> None:
    ledger = opened_before()
    ask(ledger)
    fail(ledger, transient=True)

    late = ask(ledger, NOW + 0.001)
    ledger.expire(late)

    assert late.answers == [FAILED]


def test_a_failure_of_long_ago_is_no_reason() -> None:
    ledger = opened_before()
    ask(ledger)
    fail(ledger, transient=True)

    late = ask(ledger, NOW + 60.0)
    ledger.expire(late)

    assert late.why is RejectReason.CONNECTING


def test_where_all_connections_are_checked_out_a_failure_is_no_reason() -> None:
    ledger = new_ledger(2)
    checkout(ledger, 1)
    waiting = ask(ledger)
    fail(ledger, transient=True)
    ledger.resize(1, 0, NOW)

    ledger.expire(waiting)

    assert waiting.why is RejectReason.WAITING


def test_attempts_are_repeated_for_nobody_for_longer_than_it_wants() -> None:
    ledger = opened_before()
    patient, impatient, newcomer = ask(ledger), ask(ledger, retry_for=5.0), None
    fail(ledger, transient=True)
    newcomer = ask(ledger, NOW + 4.0, retry_for=5.0)

    fail(ledger, NOW + 4.9, transient=True)
    assert impatient.answers == []
    ledger.open_for_waiters(NOW + 6.0)
    fail(ledger, NOW + 6.0, transient=True)

    assert impatient.answers == [FAILED]
    assert (patient.answers, newcomer.answers) == ([], [])


def test_what_was_waited_for_before_the_first_failure_does_not_count() -> None:
    ledger = new_ledger(1)
    [slot] = checkout(ledger, 1)
    waiting = ask(ledger, retry_for=5.0)
    ledger.remove(slot, NOW + 60.0)

    fail(ledger, NOW + 60.0, transient=True)

    assert waiting.answers == []


def test_who_does_not_want_a_repetition_is_not_told_while_other_attempts_may_serve_it() -> None:
    ledger = opened_before(2)
    first, second = ask(ledger, retry_for=0.0), ask(ledger, retry_for=0.0)

    fail(ledger, transient=True)
    assert (first.answers, second.answers) == ([FAILED], [])

    dispatch(ledger)
    assert second.slot


@pytest.mark.parametrize("refused", [True, False])
def test_a_failing_replacement_leaves_the_old_one_in_use(refused: bool) -> None:
    ledger = new_ledger(1, 1, recycle=60.0)
    [old] = idle(ledger, 1)
    ledger.add_connection(NOW, for_housekeeping=True, replaces=old)

    fail(ledger, refused=refused)

    assert old.retire_at == NOW
    assert ledger.acquire(NOW) is old
    assert old.eviction is None
