"""The queue: first come, first served, and everybody is answered once."""

import pytest
from tests.unit.pool.askers import NOW, Asker, refused

from penstock.pool.queue import (
    PACE_SAMPLES,
    AdmissionPolicy,
    Refusal,
    Refused,
    Waiters,
    WaitersTally,
)
from penstock.pool.slot import LENT, OPENING, Slot

LATE = Refusal(Refused.WAITING)


def join(waiters: Waiters, asker: Asker, now: float = NOW) -> Refused | None:
    """Queue up where no connection can be opened: everybody in the queue is served before."""
    return refused(waiters.join(asker, len(waiters), now))


def queue_of(*askers: Asker, policy: AdmissionPolicy | None = None) -> Waiters:
    waiters = Waiters(policy or AdmissionPolicy())
    for asker in askers:
        assert join(waiters, asker) is None
    return waiters


def run_loop(waiters: Waiters, now: float, seconds: float) -> float:
    """Let time pass while the event loop runs; returns when it is over."""
    for quarter in range(round(4 * seconds)):
        waiters.heartbeat(now + quarter / 4)
    return now + seconds


def test_a_slot_goes_to_the_oldest_waiter() -> None:
    first, second = Asker(), Asker()
    waiters, slot = queue_of(first, second), Slot(NOW)

    assert waiters.hand_over(slot, NOW + 1)
    assert first.slot is slot
    assert second.answers == []
    assert (slot.state, slot.lent_at) == (LENT, NOW + 1)
    assert waiters.tally == WaitersTally(queued=2, handed_over=1)


def test_a_waiter_that_has_gone_is_passed_over_and_counts_as_withdrawn() -> None:
    gone, staying = Asker(gone=True), Asker()
    waiters, slot = queue_of(gone, staying), Slot(NOW)

    assert waiters.hand_over(slot, NOW)
    assert gone.answers == []
    assert staying.slot is slot
    assert waiters.tally == WaitersTally(queued=2, handed_over=1, withdrawn=1)


def test_a_slot_that_nobody_wants_stays_what_it_was() -> None:
    waiters, slot = queue_of(Asker(gone=True), Asker(gone=True)), Slot(NOW)

    assert not waiters.hand_over(slot, NOW + 1)
    assert len(waiters) == 0
    assert (slot.state, slot.lent_at) == (OPENING, NOW)
    assert waiters.tally == WaitersTally(queued=2, withdrawn=2)


def test_a_waiter_that_withdraws_is_not_answered() -> None:
    first, second = Asker(), Asker()
    waiters = queue_of(first, second)

    assert waiters.withdraw(first)
    assert waiters.hand_over(Slot(NOW), NOW)
    assert first.answers == []
    assert second.slot
    assert waiters.tally == WaitersTally(queued=2, handed_over=1, withdrawn=1)


def test_a_waiter_that_was_answered_cannot_withdraw() -> None:
    lucky, unlucky = Asker(), Asker()
    waiters = queue_of(lucky, unlucky)
    waiters.hand_over(Slot(NOW), NOW)
    waiters.refuse(unlucky, LATE)

    assert not waiters.withdraw(lucky)
    assert not waiters.withdraw(unlucky)
    assert waiters.tally == WaitersTally(queued=2, handed_over=1, refused=1)


def test_a_waiter_that_was_answered_is_not_refused() -> None:
    asker = Asker()
    waiters = queue_of(asker)
    waiters.hand_over(Slot(NOW), NOW)

    waiters.refuse(asker, LATE)

    assert asker.slot
    assert waiters.tally == WaitersTally(queued=1, handed_over=1)


def test_a_refusal_can_go_to_anybody_to_the_oldest_or_to_all() -> None:
    askers = [Asker() for _ in range(5)]
    waiters = queue_of(*askers)

    waiters.refuse(askers[2], LATE)
    assert [len(asker.answers) for asker in askers] == [0, 0, 1, 0, 0]

    waiters.refuse_oldest(LATE)
    assert [len(asker.answers) for asker in askers] == [1, 0, 1, 0, 0]

    waiters.refuse_all(LATE)
    assert [asker.answers for asker in askers] == [[LATE]] * 5
    assert waiters.tally == WaitersTally(queued=5, refused=5)


def test_a_full_queue_turns_away_and_does_not_count_it_as_queued() -> None:
    waiters = queue_of(Asker(), Asker(), policy=AdmissionPolicy(max_waiting=2))
    late = Asker()

    assert join(waiters, late) is Refused.FULL
    assert late.answers == []
    assert len(waiters) == 2
    assert waiters.tally == WaitersTally(queued=2, turned_away=1)


def test_where_a_connection_can_be_opened_one_may_wait_for_it_though_the_queue_is_full() -> None:
    waiters = queue_of(policy=AdmissionPolicy(max_waiting=0))

    assert waiters.join(Asker(), -1, NOW) is None
    assert join(waiters, Asker()) is Refused.FULL


CODEL = AdmissionPolicy(codel_target=0.005, codel_interval=0.1)


def overloaded(seconds: float = 0.3) -> tuple[Waiters, list[Asker], float]:
    """Return a queue to which two come for each that is served, who waits, and the time."""
    waiters, waiting, now = queue_of(policy=CODEL), [], NOW
    for _ in range(round(100 * seconds)):
        now += 0.01
        waiters.heartbeat(now)
        for _ in range(2):
            waiting.append(Asker())
            assert join(waiters, waiting[-1], now) is None
        waiters.hand_over(Slot(now), now, may_shed=False)
    return waiters, [asker for asker in waiting if not asker.answers], now


def test_in_a_queue_that_stands_the_oldest_are_shed_a_few_at_a_time() -> None:
    waiters, waiting, now = overloaded()
    slot = Slot(now)

    assert waiters.hand_over(slot, now)

    assert [asker.why for asker in waiting[:2]] == [Refused.SHED, Refused.SHED]
    assert waiting[2].slot is slot
    assert not any(asker.answers for asker in waiting[3:])
    assert waiters.tally.refused == 2


def test_where_other_connections_may_serve_them_nobody_is_shed() -> None:
    waiters, waiting, now = overloaded()

    assert waiters.hand_over(Slot(now), now, may_shed=False)

    assert waiting[0].slot
    assert waiters.tally.refused == 0


def test_the_last_waiter_is_served_however_late() -> None:
    waiters, waiting, now = overloaded()
    for asker in waiting[:-1]:
        waiters.withdraw(asker)

    assert waiters.hand_over(Slot(now), now)

    assert waiting[-1].slot


def test_where_all_behind_have_gone_the_oldest_is_not_shed_but_served() -> None:
    waiters, waiting, now = overloaded()
    for asker in waiting[2:]:
        asker.gone = True

    assert waiters.hand_over(Slot(now), now)

    assert waiting[0].slot
    assert list(waiters.queue) == [waiting[1]]
    assert waiters.tally.refused == 0


def test_a_standstill_of_the_loop_is_not_held_against_who_waited() -> None:
    waiters, now = queue_of(policy=CODEL), NOW
    waiting = [Asker() for _ in range(20)]
    for asker in waiting:
        join(waiters, asker, now)

    for step in range(20):
        now = NOW + 6.0 + step * 0.001
        join(waiters, Asker(), now)
        waiters.hand_over(Slot(now), now)

    assert all(asker.slot for asker in waiting)
    assert waiters.tally.refused == 0


def test_a_standstill_of_the_loop_does_not_make_the_queue_hopeless() -> None:
    waiters = queue_of(*[Asker() for _ in range(300)])
    for turn in range(PACE_SAMPLES):
        now = NOW + turn * 0.001 if turn < PACE_SAMPLES / 2 else NOW + 6.0 + turn * 0.001
        waiters.hand_over(Slot(now), now)

    assert join(waiters, Asker(now + 30.0), now) is None


def test_whoever_cannot_be_served_in_time_is_turned_away() -> None:
    waiters = queue_of(*[Asker() for _ in range(PACE_SAMPLES + 2)])
    now = NOW
    for _ in range(PACE_SAMPLES):
        now = run_loop(waiters, now, 2.0)
        waiters.hand_over(Slot(now), now)

    assert join(waiters, Asker(now + 5.9), now) is Refused.HOPELESS
    assert join(waiters, Asker(now + 6.1), now) is None


def test_the_first_of_a_busy_period_is_not_judged_by_the_pace_of_the_last_one() -> None:
    waiters = queue_of(*[Asker() for _ in range(PACE_SAMPLES)])
    for turn in range(PACE_SAMPLES):
        waiters.hand_over(Slot(NOW), NOW + 2.0 * (turn + 1))
    assert len(waiters) == 0

    assert join(waiters, Asker(NOW + 3601.0), NOW + 3600.0) is None


@pytest.mark.parametrize("count", [1, 5])
def test_the_queue_has_a_length(count: int) -> None:
    assert len(queue_of(*[Asker() for _ in range(count)])) == count
