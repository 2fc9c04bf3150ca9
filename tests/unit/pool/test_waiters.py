"""The queue: first come, first served, and everybody is answered once."""

import math

import pytest
from tests.unit.pool.callers import NOW, Caller, refused

from penstock.pool.queue import (
    PACE_SAMPLES,
    AdmissionPolicy,
    Rejection,
    RejectReason,
    Waiters,
    WaitersTally,
)
from penstock.pool.slot import CHECKED_OUT, OPENING, Slot

LATE = Rejection(RejectReason.WAITING)


def join(waiters: Waiters, caller: Caller, now: float = NOW) -> RejectReason | None:
    """Queue up where no connection can be opened: everybody in the queue is served before."""
    return refused(waiters.join(caller, len(waiters), now))


def queue_of(*callers: Caller, policy: AdmissionPolicy | None = None) -> Waiters:
    waiters = Waiters(policy or AdmissionPolicy())
    for caller in callers:
        assert join(waiters, caller) is None
    return waiters


def run_loop(waiters: Waiters, now: float, seconds: float) -> float:
    """Let time pass while the event loop runs; returns when it is over."""
    for quarter in range(round(4 * seconds)):
        waiters.heartbeat(now + quarter / 4)
    return now + seconds


def test_a_slot_goes_to_the_oldest_waiter() -> None:
    first, second = Caller(), Caller()
    waiters, slot = queue_of(first, second), Slot(NOW)

    assert waiters.hand_over(slot, NOW + 1)
    assert first.slot is slot
    assert second.answers == []
    assert (slot.state, slot.checked_out_at) == (CHECKED_OUT, NOW + 1)
    assert waiters.tally == WaitersTally(queued=2, handed_over=1)


def test_a_waiter_that_has_gone_is_passed_over_and_counts_as_withdrawn() -> None:
    gone, staying = Caller(gone=True), Caller()
    waiters, slot = queue_of(gone, staying), Slot(NOW)

    assert waiters.hand_over(slot, NOW)
    assert gone.answers == []
    assert staying.slot is slot
    assert waiters.tally == WaitersTally(queued=2, handed_over=1, withdrawn=1)


def test_a_slot_that_nobody_wants_stays_what_it_was() -> None:
    waiters, slot = queue_of(Caller(gone=True), Caller(gone=True)), Slot(NOW)

    assert not waiters.hand_over(slot, NOW + 1)
    assert len(waiters) == 0
    assert slot.state is OPENING
    assert math.isnan(slot.checked_out_at)
    assert waiters.tally == WaitersTally(queued=2, withdrawn=2)


def test_a_waiter_that_withdraws_is_not_answered() -> None:
    first, second = Caller(), Caller()
    waiters = queue_of(first, second)

    assert waiters.withdraw(first)
    assert waiters.hand_over(Slot(NOW), NOW)
    assert first.answers == []
    assert second.slot
    assert waiters.tally == WaitersTally(queued=2, handed_over=1, withdrawn=1)


def test_a_waiter_that_was_answered_cannot_withdraw() -> None:
    lucky, unlucky = Caller(), Caller()
    waiters = queue_of(lucky, unlucky)
    waiters.hand_over(Slot(NOW), NOW)
    waiters.reject(unlucky, LATE)

    assert not waiters.withdraw(lucky)
    assert not waiters.withdraw(unlucky)
    assert waiters.tally == WaitersTally(queued=2, handed_over=1, rejected=1)


def test_a_waiter_that_was_answered_is_not_refused() -> None:
    caller = Caller()
    waiters = queue_of(caller)
    waiters.hand_over(Slot(NOW), NOW)

    waiters.reject(caller, LATE)

    assert caller.slot
    assert waiters.tally == WaitersTally(queued=1, handed_over=1)


def test_a_refusal_can_go_to_anybody_to_the_oldest_or_to_all() -> None:
    callers = [Caller() for _ in range(5)]
    waiters = queue_of(*callers)

    waiters.reject(callers[2], LATE)
    assert [len(caller.answers) for caller in callers] == [0, 0, 1, 0, 0]

    waiters.reject_oldest(LATE)
    assert [len(caller.answers) for caller in callers] == [1, 0, 1, 0, 0]

    waiters.reject_all(LATE)
    assert [caller.answers for caller in callers] == [[LATE]] * 5
    assert waiters.tally == WaitersTally(queued=5, rejected=5)


def test_a_full_queue_turns_away_and_does_not_count_it_as_queued() -> None:
    waiters = queue_of(Caller(), Caller(), policy=AdmissionPolicy(max_waiting=2))
    late = Caller()

    assert join(waiters, late) is RejectReason.FULL
    assert late.answers == []
    assert len(waiters) == 2
    assert waiters.tally == WaitersTally(queued=2, not_admitted=1)


def test_where_a_connection_can_be_opened_one_may_wait_for_it_though_the_queue_is_full() -> None:
    waiters = queue_of(policy=AdmissionPolicy(max_waiting=0))

    assert waiters.join(Caller(), -1, NOW) is None
    assert join(waiters, Caller()) is RejectReason.FULL


CODEL = AdmissionPolicy(codel_target=0.005, codel_interval=0.1)


def overloaded(seconds: float = 0.3) -> tuple[Waiters, list[Caller], float]:
    """Return a queue to which two come for each that is served, who waits, and the time."""
    waiters, waiting, now = queue_of(policy=CODEL), [], NOW
    for _ in range(round(100 * seconds)):
        now += 0.01
        waiters.heartbeat(now)
        for _ in range(2):
            waiting.append(Caller())
            assert join(waiters, waiting[-1], now) is None
        waiters.hand_over(Slot(now), now, may_shed=False)
    return waiters, [caller for caller in waiting if not caller.answers], now


def test_in_a_queue_that_stands_the_oldest_are_shed_a_few_at_a_time() -> None:
    waiters, waiting, now = overloaded()
    slot = Slot(now)

    assert waiters.hand_over(slot, now)

    assert [caller.why for caller in waiting[:2]] == [RejectReason.SHED, RejectReason.SHED]
    assert waiting[2].slot is slot
    assert not any(caller.answers for caller in waiting[3:])
    assert waiters.tally.rejected == 2


def test_where_other_connections_may_serve_them_nobody_is_shed() -> None:
    waiters, waiting, now = overloaded()

    assert waiters.hand_over(Slot(now), now, may_shed=False)

    assert waiting[0].slot
    assert waiters.tally.rejected == 0


def test_the_last_waiter_is_served_however_late() -> None:
    waiters, waiting, now = overloaded()
    for caller in waiting[:-1]:
        waiters.withdraw(caller)

    assert waiters.hand_over(Slot(now), now)

    assert waiting[-1].slot


def test_where_all_behind_have_gone_the_oldest_is_not_shed_but_served() -> None:
    waiters, waiting, now = overloaded()
    for caller in waiting[2:]:
        caller.gone = True

    assert waiters.hand_over(Slot(now), now)

    assert waiting[0].slot
    assert list(waiters.queue) == [waiting[1]]
    assert waiters.tally.rejected == 0


def test_a_stall_of_the_loop_is_not_held_against_who_waited() -> None:
    waiters, now = queue_of(policy=CODEL), NOW
    waiting = [Caller() for _ in range(20)]
    for caller in waiting:
        join(waiters, caller, now)

    for step in range(20):
        now = NOW + 6.0 + step * 0.001
        join(waiters, Caller(), now)
        waiters.hand_over(Slot(now), now)

    assert all(caller.slot for caller in waiting)
    assert waiters.tally.rejected == 0


def test_a_stall_of_the_loop_does_not_make_the_queue_unreachable() -> None:
    waiters = queue_of(*[Caller() for _ in range(300)])
    for turn in range(PACE_SAMPLES):
        now = NOW + turn * 0.001 if turn < PACE_SAMPLES / 2 else NOW + 6.0 + turn * 0.001
        waiters.hand_over(Slot(now), now)

    assert join(waiters, Caller(now + 30.0), now) is None


def test_whoever_cannot_be_served_in_time_is_turned_away() -> None:
    waiters = queue_of(*[Caller() for _ in range(PACE_SAMPLES + 2)])
    now = NOW
    for _ in range(PACE_SAMPLES):
        now = run_loop(waiters, now, 2.0)
        waiters.hand_over(Slot(now), now)

    assert join(waiters, Caller(now + 5.9), now) is RejectReason.DEADLINE_UNREACHABLE
    assert join(waiters, Caller(now + 6.1), now) is None


def test_the_first_of_a_busy_period_is_not_judged_by_the_pace_of_the_last_one() -> None:
    waiters = queue_of(*[Caller() for _ in range(PACE_SAMPLES)])
    for turn in range(PACE_SAMPLES):
        waiters.hand_over(Slot(NOW), NOW + 2.0 * (turn + 1))
    assert len(waiters) == 0

    assert join(waiters, Caller(NOW + 3601.0), NOW + 3600.0) is None


@pytest.mark.parametrize("count", [1, 5])
def test_the_queue_has_a_length(count: int) -> None:
    assert len(queue_of(*[Caller() for _ in range(count)])) == count
