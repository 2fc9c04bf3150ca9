"""Who may wait: bounded queues, CoDel, the pace of a queue, and time that is not its own."""

import math

import pytest

from penstock.pool.queue import PACE_SAMPLES, Admission, AdmissionPolicy, QueueClock, RejectReason

TARGET, INTERVAL = 0.005, 0.1
CODEL = AdmissionPolicy(codel_target=TARGET, codel_interval=INTERVAL)


def paced(pace: float, *, hand_overs: int = PACE_SAMPLES) -> Admission:
    """Return the admission of a queue that has been busy for so many hand-overs since 0."""
    admission = Admission(AdmissionPolicy())
    admission.busy(0.0)
    for turn in range(hand_overs):
        admission.handed_over(0.0, (turn + 1) * pace)
    return admission


def test_without_a_policy_any_number_may_wait() -> None:
    assert Admission(AdmissionPolicy()).rejects(1_000_000, 0.0, 0.001) is None


@pytest.mark.parametrize(
    ("waiting", "answer"), [(0, None), (2, None), (3, RejectReason.FULL), (4, RejectReason.FULL)]
)
def test_max_waiting_is_the_length_of_the_queue(waiting: int, answer: RejectReason | None) -> None:
    admission = Admission(AdmissionPolicy(max_waiting=3))
    assert admission.rejects(waiting, 0.0, math.inf) is answer


def test_with_max_waiting_0_nobody_waits() -> None:
    assert Admission(AdmissionPolicy(max_waiting=0)).rejects(0, 0.0, math.inf) is RejectReason.FULL


def test_who_would_be_served_too_late_is_told_at_once() -> None:
    admission = paced(2.0)
    now = 2.0 * PACE_SAMPLES

    assert admission.rejects(4, now, 9.9) is RejectReason.DEADLINE_UNREACHABLE
    assert admission.rejects(4, now, 10.1) is None


def test_who_has_no_deadline_is_never_too_late() -> None:
    assert paced(2.0).rejects(1_000_000, 2.0 * PACE_SAMPLES, math.inf) is None


def test_a_few_hand_overs_say_nothing_of_the_pace() -> None:
    few = paced(2.0, hand_overs=PACE_SAMPLES - 1)
    assert few.rejects(1000, 2.0 * PACE_SAMPLES, 1.0) is None
    assert paced(2.0).rejects(1000, 2.0 * PACE_SAMPLES, 1.0) is RejectReason.DEADLINE_UNREACHABLE


def test_the_pace_is_that_of_the_newest_hand_overs() -> None:
    admission = paced(2.0)
    start = 2.0 * PACE_SAMPLES
    for turn in range(PACE_SAMPLES):
        admission.handed_over(0.0, start + (turn + 1) * 0.01)
    now = start + PACE_SAMPLES * 0.01

    assert admission.rejects(9, now, 0.15) is None
    assert admission.rejects(9, now, 0.05) is RejectReason.DEADLINE_UNREACHABLE


def test_after_a_stall_the_queue_is_not_called_unreachable() -> None:
    admission = paced(0.001)
    stall = 5.0
    start = PACE_SAMPLES * 0.001 + stall
    for turn in range(10):
        admission.handed_over(0.0, start + turn * 0.001)

    # A hundred wait, and will be served within a tenth of a second.
    assert admission.rejects(100, start + 0.01, 30.0) is None


def test_a_queue_in_which_nothing_moves_becomes_unreachable() -> None:
    admission = paced(0.001)

    assert admission.rejects(100, 1.0, 30.0) is None
    assert admission.rejects(100, 20.0, 30.0) is RejectReason.DEADLINE_UNREACHABLE


def test_the_pace_is_forgotten_when_the_queue_was_empty() -> None:
    admission = paced(2.0)

    admission.busy(3600.0)

    assert admission.rejects(1000, 3600.0, 1.0) is None


def test_who_has_a_connection_opened_is_never_turned_away() -> None:
    admission = Admission(AdmissionPolicy(max_waiting=0))
    assert admission.rejects(-1, 0.0, math.inf) is None


LATE, SOON = 1.0, 0.001
"""Seconds that a waiter has waited: far above the target, and below it."""


def run(
    admission: Admission, begin: float, seconds: float, *, came: int, served: int, waited: float
) -> None:
    """Let so many callers come and so many waiters be served in each two hundredth of a second."""
    for step in range(round(200 * seconds)):
        now = begin + (step + 0.5) / 200
        for _ in range(came):
            admission.rejects(0, now, math.inf)
        for _ in range(served):
            admission.handed_over(waited, now)


def standing(*, came: int = 2, served: int = 1, policy: AdmissionPolicy = CODEL) -> Admission:
    """Return the admission of a queue that has stood from 10.0 until 10.2."""
    admission = Admission(policy)
    admission.busy(10.0)
    run(admission, 10.0, 0.2, came=came, served=served, waited=LATE)
    return admission


def test_without_a_target_nobody_is_shed() -> None:
    assert standing(policy=AdmissionPolicy()).sheds(LATE, 10.2) == 0


def test_nobody_is_shed_within_the_first_interval() -> None:
    admission = Admission(CODEL)
    admission.busy(10.0)
    for step in range(10):
        run(admission, 10.0 + step / 100, 0.01, came=3, served=1, waited=LATE)
        assert admission.sheds(LATE, 10.0 + step / 100) == 0


def test_after_an_interval_of_late_hand_overs_waiters_are_shed() -> None:
    assert standing().sheds(LATE, 10.2) == 2


@pytest.mark.parametrize(
    ("came", "served", "shed"), [(1, 2, 0), (9, 10, 1), (1, 1, 1), (3, 2, 1), (2, 1, 2), (7, 2, 3)]
)
def test_no_more_are_shed_with_each_that_is_served_than_come_in_that_time(
    came: int, served: int, shed: int
) -> None:
    assert standing(came=came, served=served).sheds(LATE, 10.2) == shed


def test_who_came_in_a_burst_is_not_shed_however_late_it_is_served() -> None:
    admission = Admission(CODEL)
    admission.busy(10.0)
    run(admission, 10.0, 0.04, came=1000, served=1, waited=LATE)
    for step in range(4, 400):
        run(admission, 10.0 + step / 100, 0.01, came=0, served=1, waited=LATE)
        assert admission.sheds(LATE, 10.0 + step / 100) == 0


def test_where_nobody_is_served_and_nobody_comes_nothing_is_known_of_the_queue() -> None:
    assert standing().sheds(LATE, 20.0) == 0


def test_while_waiters_are_shed_those_who_have_just_come_are_served() -> None:
    admission = standing()

    assert admission.sheds(2 * TARGET, 10.2) == 0
    assert admission.sheds(2.1 * TARGET, 10.2) == 2


def test_one_hand_over_in_time_means_that_the_queue_is_not_standing() -> None:
    admission = standing()
    admission.handed_over(TARGET, 10.2)
    run(admission, 10.2, 0.09, came=2, served=1, waited=LATE)
    assert admission.sheds(LATE, 10.29) == 0

    run(admission, 10.29, 0.02, came=2, served=1, waited=LATE)
    assert admission.sheds(LATE, 10.31) > 0


def test_a_queue_that_has_just_stood_need_not_stand_for_another_interval() -> None:
    admission = standing()
    assert admission.sheds(LATE, 10.2) > 0

    admission.handed_over(SOON, 10.2)
    admission.busy(10.21)
    run(admission, 10.21, 0.05, came=2, served=1, waited=LATE)

    assert admission.sheds(LATE, 10.26) > 0


@pytest.mark.parametrize("quiet", [0.1, 0.3, 60.0])
def test_shedding_stops_when_hardly_anybody_comes(quiet: float) -> None:
    admission = standing()
    assert admission.sheds(LATE, 10.2) > 0

    begin = 10.2 + quiet
    admission.busy(begin)
    run(admission, begin, 0.03, came=2, served=1, waited=LATE)

    assert admission.sheds(LATE, begin + 0.03) == 0


def test_who_waits_when_checkout_is_resumed_is_not_judged_by_what_was() -> None:
    admission = standing()
    assert admission.sheds(LATE, 10.2) > 0

    admission.restart(10.2)
    run(admission, 10.2, 0.09, came=2, served=1, waited=LATE)

    assert admission.sheds(LATE, 10.29) == 0


def test_the_clock_of_a_queue_is_that_of_its_pool_while_the_loop_runs() -> None:
    clock = QueueClock(0.25)
    assert clock.start(10.0) == 10.0
    for step in range(9):
        now = 10.0 + step / 4
        clock.beat(now)
        assert (clock.at(now), clock.at(now + 0.2)) == (now, now + 0.2)


def test_the_clock_of_a_queue_stops_while_the_loop_stands_still() -> None:
    clock = QueueClock(0.25)
    clock.start(10.0)
    assert [clock.at(now) for now in (10.4, 10.6, 13.0, 16.0)] == [10.4, 10.5, 10.5, 10.5]

    clock.beat(16.0)
    assert [clock.at(now) for now in (16.25, 20.0)] == [10.75, 11.0]


def test_a_quiet_time_is_no_stall() -> None:
    clock = QueueClock(0.25)
    clock.start(10.0)
    assert clock.start(3600.0) == 3600.0


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        (AdmissionPolicy(), 0.25),
        (AdmissionPolicy(codel_target=0.5, codel_interval=5.0), 0.25),
        (CODEL, 0.025),
    ],
)
def test_the_heartbeat_sees_a_stall_that_is_short_against_the_interval(
    policy: AdmissionPolicy, seconds: float
) -> None:
    assert policy.heartbeat_interval == seconds
