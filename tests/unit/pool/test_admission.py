"""Who may wait: bounded queues, CoDel, and the pace of a queue."""

import math

import pytest

from penstock.pool.admission import PACE_SAMPLES, Admission, AdmissionPolicy
from penstock.pool.refusal import Refused

TARGET, INTERVAL = 0.005, 0.1
CODEL = AdmissionPolicy(codel_target=TARGET, codel_interval=INTERVAL)


def paced(pace: float, *, hand_overs: int = PACE_SAMPLES) -> Admission:
    """Return the admission of a queue that has been busy for so many hand-overs since 0."""
    admission = Admission(AdmissionPolicy())
    admission.busy(0.0)
    for turn in range(hand_overs):
        admission.handed_over((turn + 1) * pace)
    return admission


def test_without_a_policy_any_number_may_wait() -> None:
    assert Admission(AdmissionPolicy()).refuses(1_000_000, 0.0, 0.001) is None


@pytest.mark.parametrize(
    ("waiting", "answer"), [(0, None), (2, None), (3, Refused.FULL), (4, Refused.FULL)]
)
def test_max_waiting_is_the_length_of_the_queue(waiting: int, answer: Refused | None) -> None:
    admission = Admission(AdmissionPolicy(max_waiting=3))
    assert admission.refuses(waiting, 0.0, math.inf) is answer


def test_with_max_waiting_0_nobody_waits() -> None:
    assert Admission(AdmissionPolicy(max_waiting=0)).refuses(0, 0.0, math.inf) is Refused.FULL


def test_who_would_be_served_too_late_is_told_at_once() -> None:
    admission = paced(2.0)
    now = 2.0 * PACE_SAMPLES

    assert admission.refuses(4, now, 9.9) is Refused.HOPELESS
    assert admission.refuses(4, now, 10.1) is None


def test_who_has_no_deadline_is_never_too_late() -> None:
    assert paced(2.0).refuses(1_000_000, 2.0 * PACE_SAMPLES, math.inf) is None


def test_a_few_hand_overs_say_nothing_of_the_pace() -> None:
    few = paced(2.0, hand_overs=PACE_SAMPLES - 1)
    assert few.refuses(1000, 2.0 * PACE_SAMPLES, 1.0) is None
    assert paced(2.0).refuses(1000, 2.0 * PACE_SAMPLES, 1.0) is Refused.HOPELESS


def test_the_pace_is_that_of_the_newest_hand_overs() -> None:
    admission = paced(2.0)
    start = 2.0 * PACE_SAMPLES
    for turn in range(PACE_SAMPLES):
        admission.handed_over(start + (turn + 1) * 0.01)
    now = start + PACE_SAMPLES * 0.01

    assert admission.refuses(9, now, 0.15) is None
    assert admission.refuses(9, now, 0.05) is Refused.HOPELESS


def test_after_a_stall_the_queue_is_not_called_hopeless() -> None:
    admission = paced(0.001)
    stall = 5.0
    start = PACE_SAMPLES * 0.001 + stall
    for turn in range(10):
        admission.handed_over(start + turn * 0.001)

    # A hundred wait, and will be served within a tenth of a second.
    assert admission.refuses(100, start + 0.01, 30.0) is None


def test_a_queue_in_which_nothing_moves_becomes_hopeless() -> None:
    admission = paced(0.001)

    assert admission.refuses(100, 1.0, 30.0) is None
    assert admission.refuses(100, 20.0, 30.0) is Refused.HOPELESS


def test_the_pace_is_forgotten_when_the_queue_was_empty() -> None:
    admission = paced(2.0)

    admission.busy(3600.0)

    assert admission.refuses(1000, 3600.0, 1.0) is None


def test_without_a_target_nobody_is_shed() -> None:
    admission = Admission(AdmissionPolicy())

    assert not any(admission.sheds(60.0, now) for now in range(100))


def test_nobody_is_shed_within_the_first_interval() -> None:
    admission = standing_since(10.0)

    assert not any(admission.sheds(1.0, 10.0 + step * 0.01) for step in range(11))


def test_after_an_interval_of_late_hand_overs_waiters_are_shed() -> None:
    admission = standing_since(10.0)

    assert admission.sheds(1.0, 10.11)
    assert admission.sheds(1.0, 10.12)


def test_while_waiters_are_shed_those_who_have_just_come_are_served() -> None:
    admission = standing_since(10.0)

    assert not admission.sheds(2 * TARGET, 10.12)
    assert admission.sheds(2.1 * TARGET, 10.13)


def test_one_hand_over_in_time_means_that_the_queue_is_not_standing() -> None:
    admission = standing_since(10.0)
    assert not admission.sheds(TARGET, 10.05)

    assert not admission.sheds(1.0, 10.15)
    assert admission.sheds(1.0, 10.16)


def test_shedding_stops_with_the_first_hand_over_in_time() -> None:
    admission = standing_since(10.0)
    assert admission.sheds(1.0, 10.11)
    assert not admission.sheds(TARGET, 10.15)

    assert not admission.sheds(1.0, 10.16)


def test_shedding_stops_when_the_queue_was_empty() -> None:
    admission = standing_since(10.0)
    assert admission.sheds(1.0, 10.11)

    admission.busy(11.0)

    assert not admission.sheds(1.0, 11.1)


def standing_since(moment: float) -> Admission:
    """Return the admission of a queue that began to fill at that moment."""
    admission = Admission(CODEL)
    admission.busy(moment)
    return admission
