"""The queue: first come, first served, and everybody is answered once."""

import pytest
from tests.unit.pool.askers import NOW, Asker, refused

from penstock.pool.admission import PACE_SAMPLES, AdmissionPolicy
from penstock.pool.refusal import Refusal, Refused
from penstock.pool.slot import LENT, OPENING, Slot
from penstock.pool.waiters import Waiters, WaitersTally

LATE = Refusal(Refused.WAITING)


def join(waiters: Waiters, asker: Asker, now: float = NOW) -> Refused | None:
    """Queue up where no connection can be opened: everybody in the queue is served before."""
    return refused(waiters.join(asker, len(waiters), now))


def queue_of(*askers: Asker, policy: AdmissionPolicy | None = None) -> Waiters:
    waiters = Waiters(policy or AdmissionPolicy())
    for asker in askers:
        assert join(waiters, asker) is None
    return waiters


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


def test_a_waiter_whose_turn_comes_too_late_is_shed_and_the_next_is_served() -> None:
    policy = AdmissionPolicy(codel_target=0.005, codel_interval=0.1)
    askers = [Asker() for _ in range(3)]
    waiters = queue_of(*askers[:2], policy=policy)
    waiters.hand_over(Slot(NOW), NOW + 0.09)
    join(waiters, askers[2], NOW + 0.3)

    assert waiters.hand_over(Slot(NOW), NOW + 0.305)
    assert askers[1].why is Refused.SHED
    assert askers[2].slot
    assert waiters.tally == WaitersTally(queued=3, handed_over=2, refused=1)


def test_whoever_cannot_be_served_in_time_is_turned_away() -> None:
    waiters = queue_of(*[Asker() for _ in range(PACE_SAMPLES + 2)])
    now = NOW
    for _ in range(PACE_SAMPLES):
        now += 2.0
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
