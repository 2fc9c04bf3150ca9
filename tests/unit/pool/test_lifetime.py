"""When connections retire, and how attempts to open one are kept apart."""

import math
from random import Random

import pytest
from tests.unit.pool.callers import dispatch, new_ledger

from penstock.pool.slot import (
    FIRST_DELAY,
    FIRST_DELAY_REFUSED,
    LONGEST_DELAY,
    LONGEST_DELAY_REFUSED,
    Backoff,
    Slot,
)

NO = ConnectionError("no")


def delays(backoff: Backoff, count: int, *, refused: bool = False) -> list[float]:
    """Fail so often, each time when the last delay is over, and return the delays."""
    now, waits = 100.0, []
    for _ in range(count):
        backoff.failed(now, NO, refused=refused)
        waits.append(backoff.until - now)
        now = backoff.until
    return waits


def opened(recycle: float, connections: int = 1) -> list[Slot]:
    """Open connections that live for so many seconds, at the time 500."""
    ledger = new_ledger(connections, recycle=recycle)
    for _ in range(connections):
        assert ledger.add_connection(500.0)
    dispatch(ledger, 500.0)
    return list(ledger)


def test_a_connection_retires_within_the_last_tenth_of_its_life() -> None:
    ages = [slot.retire_at - 500.0 for slot in opened(3600.0, 10_000)]

    assert 3240.0 <= min(ages) < 3245.0
    assert 3595.0 < max(ages) <= 3600.0
    assert sum(ages) / len(ages) == pytest.approx(3420.0, abs=5.0)
    assert len(set(ages)) == len(ages)


def test_a_connection_expires_at_the_end_of_its_life_without_jitter() -> None:
    assert {slot.expires_at for slot in opened(3600.0, 100)} == {4100.0}


def test_with_recycle_minus_1_connections_live_for_ever() -> None:
    [slot] = opened(-1)

    assert slot.retire_at == math.inf
    assert slot.expires_at == math.inf


@pytest.mark.parametrize(
    ("recycle", "limit", "lifetime"), [(-1, 60, 60), (30, 60, 30), (90, 60, 60)]
)
def test_the_shorter_of_two_limits_counts(recycle: float, limit: float, lifetime: float) -> None:
    ledger = new_ledger(1, recycle=recycle)
    ledger.age_limit = lambda: limit
    assert ledger.add_connection(500.0)
    dispatch(ledger, 500.0)
    [slot] = ledger

    assert slot.expires_at == 500.0 + lifetime
    assert 0.9 * lifetime < slot.retire_at - 500.0 <= lifetime


def test_with_recycle_0_connections_have_expired_when_they_are_opened() -> None:
    [slot] = opened(0)

    assert slot.retire_at == 500.0
    assert slot.expires_at == 500.0


def test_at_first_an_attempt_may_be_made_at_once() -> None:
    backoff = Backoff(Random(1))

    assert backoff.until == -math.inf
    assert backoff.last_error is None
    assert not backoff.refused


@pytest.mark.parametrize(
    ("refused", "first", "longest"),
    [
        (False, FIRST_DELAY, LONGEST_DELAY),
        (True, FIRST_DELAY_REFUSED, LONGEST_DELAY_REFUSED),
    ],
)
def test_delays_double_up_to_the_longest(refused: bool, first: float, longest: float) -> None:
    full = [min(longest, first * 2**turn) for turn in range(100)]

    waits = delays(Backoff(Random(1)), 100, refused=refused)

    assert full[-1] == longest
    assert all(
        0.5 * most - 1e-9 <= wait <= most + 1e-9 for wait, most in zip(waits, full, strict=True)
    )


@pytest.mark.parametrize("patience", [0.001, 0.5, 1.9, 2.0, 30.0])
def test_no_caller_waits_without_an_attempt(patience: float) -> None:
    waits = delays(Backoff(Random(1), patience), 100)

    assert max(waits) <= min(LONGEST_DELAY, patience / 2)


@pytest.mark.parametrize("patience", [0.5, None])
def test_a_server_that_said_no_is_asked_seldom_however_short_callers_wait(
    patience: float | None,
) -> None:
    assert delays(Backoff(Random(1), patience), 1, refused=True)[0] >= 0.5 * FIRST_DELAY_REFUSED


def test_the_longest_delay_is_reached_without_overflow() -> None:
    assert delays(Backoff(Random(1)), 3000)[-1] <= LONGEST_DELAY


def test_half_of_a_delay_is_random() -> None:
    firsts = [delays(Backoff(Random(seed)), 1)[0] for seed in range(1000)]

    assert min(firsts) == pytest.approx(0.5 * FIRST_DELAY, rel=0.02)
    assert max(firsts) == pytest.approx(FIRST_DELAY, rel=0.02)
    assert sum(firsts) / 1000 == pytest.approx(0.75 * FIRST_DELAY, rel=0.02)


def test_a_success_ends_the_delay_and_makes_the_next_one_short_again() -> None:
    backoff = Backoff(Random(1))
    delays(backoff, 10)

    backoff.succeeded()

    assert backoff.until == -math.inf
    assert not backoff.refused
    assert delays(backoff, 1)[0] <= FIRST_DELAY


def test_the_newest_error_is_known() -> None:
    backoff = Backoff(Random(1))
    backoff.failed(1.0, OSError("older"), refused=False)
    backoff.failed(2.0, NO, refused=True)

    assert backoff.last_error is NO
    assert backoff.refused


@pytest.mark.parametrize(("refused", "first"), [(True, FIRST_DELAY_REFUSED), (False, FIRST_DELAY)])
def test_a_failure_of_another_kind_counts_anew(refused: bool, first: float) -> None:
    backoff = Backoff(Random(1))
    delays(backoff, 10, refused=not refused)

    assert 0.5 * first <= delays(backoff, 1, refused=refused)[0] <= first
    assert backoff.refused is refused
