"""How many reads of a statement may leave together, by what is known of its answers."""

import pytest

from penstock.express import pace
from penstock.express.pace import FIRST, LONGEST_REST, MOST, MOST_BYTES, REST, SLOW_BATCHES, Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as its only item."""
    now = [100.0]
    monkeypatch.setattr(pace, "monotonic", lambda: now[0])
    return now


def known(alone: float) -> Pace:
    """Of a statement that takes so many seconds alone."""
    found = Pace()
    for _ in range(100):
        found.note(alone)
    return found


def test_nothing_leaves_together_before_a_read_was_answered() -> None:
    assert Pace().most() == 0


def test_batches_grow_while_they_are_fast(clock: list[float]) -> None:
    found = known(0.0003)
    sizes = [found.most()]
    while sizes[-1] < MOST:
        found.note_batch(0.0005, sizes[-1], 100)
        sizes.append(found.most())
    assert sizes == [FIRST * 2**n for n in range(len(sizes))]


@pytest.mark.parametrize("seconds", [0.002, 0.005, 0.05])
def test_a_slow_statement_stays_out_for_longer_and_longer(
    clock: list[float], seconds: float
) -> None:
    found = known(seconds)
    for _ in range(SLOW_BATCHES):
        assert found.most() == FIRST
        found.note_batch(FIRST * seconds, FIRST, 100)
    rest = REST
    while rest <= 2 * LONGEST_REST:
        assert found.most() == 0
        clock[0] += 0.9 * min(rest, LONGEST_REST)
        assert found.most() == 0
        clock[0] += 0.2 * min(rest, LONGEST_REST)
        assert found.most() == FIRST  # one more try
        found.note_batch(FIRST * seconds, FIRST, 100)
        rest *= 2


@pytest.mark.parametrize("lag", [0.001, 0.01, 0.1])
def test_a_busy_client_does_not_take_its_own_delay_for_the_servers(lag: float) -> None:
    found = known(lag + 0.0002)
    for _ in range(10):
        found.note_batch(lag + found.most() * 0.0001, found.most(), 100)
    assert found.most() == MOST


def test_one_good_batch_after_a_rest_begins_anew(clock: list[float]) -> None:
    found = known(0.0003)
    found.rest()
    found.rest()
    clock[0] += 3 * REST
    found.note_batch(0.001, FIRST, 100)
    assert found.most() == 2 * FIRST
    found.rest()
    clock[0] += 1.1 * REST
    assert found.most() == FIRST


@pytest.mark.parametrize("size", [1, 1000, 100_000, MOST_BYTES, 100 * MOST_BYTES])
def test_large_answers_leave_few_together(size: int) -> None:
    found = known(0.0003)
    for _ in range(10):
        found.note_batch(0.0005, 1, size)
    assert found.most() == min(MOST, MOST_BYTES // size)


def test_what_the_driver_does_not_keep_stays_out() -> None:
    found = known(0.0003)
    found.is_kept = False
    assert found.most() == 0
