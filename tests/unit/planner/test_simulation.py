"""The simulation against queueing theory, an exact oracle, and cases that one can count."""

import heapq
import math
from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.planner import (
    Bursts,
    Constant,
    DatabaseModel,
    Durations,
    Exponential,
    FleetModel,
    Lognormal,
    PoolModel,
    Recorded,
    ScalabilityLaw,
    Simulated,
    Workload,
    poisson,
    simulate,
)
from penstock.pool.policy import PoolPolicy
from penstock.pool.queue import RejectReason

HOLD = 0.01


def erlang_c(connections: int, load: float) -> float:
    """Return the share of requests that wait, of Poisson arrivals and exponential holds."""
    blocked = 1.0
    for number in range(1, connections + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / connections * (1 - blocked))


def recorded(gaps: Sequence[float], holds: Sequence[float], **more: float) -> Workload:
    return Workload(Recorded(gaps), Recorded(holds), len(gaps), **more)  # type: ignore[arg-type]


# Against theory.


@pytest.mark.parametrize(("connections", "load"), [(2, 1), (5, 4), (10, 8), (14, 10)])
def test_exponential_holds_wait_as_erlang_c_says(connections: int, load: int) -> None:
    workload = Workload(poisson(load / HOLD), Exponential(HOLD), 80_000)

    found = simulate(workload, PoolModel(connections, timeout=None), seed=2)

    assert found.utilisation == pytest.approx(load / connections, rel=0.01)
    busy = found.utilisation * connections  # chance changes the load a little, the waits a lot
    waits = erlang_c(connections, busy)
    pace = (connections - busy) / HOLD
    assert found.wait_probability == pytest.approx(waits, abs=0.01)
    assert found.wait.mean == pytest.approx(waits / pace, rel=0.1)
    assert found.wait.p99 == pytest.approx(math.log(waits / 0.01) / pace, rel=0.1)


@pytest.mark.parametrize(
    ("hold", "second_moment"),
    [
        (Constant(HOLD), HOLD**2),
        (Exponential(HOLD), 2 * HOLD**2),
        (Lognormal(HOLD, 4 * HOLD), HOLD**2 * math.exp(0.7018**2)),
    ],
)
def test_one_connection_waits_as_pollaczek_and_khinchine_say(
    hold: Durations, second_moment: float
) -> None:
    rate = 0.7 / HOLD

    found = simulate(Workload(poisson(rate), hold, 60_000), PoolModel(1, timeout=None))

    assert found.wait_probability == pytest.approx(0.7, abs=0.01)
    assert found.wait.mean == pytest.approx(rate * second_moment / (2 * 0.3), rel=0.08)


@pytest.mark.parametrize("takes_turns", [False, True])
def test_workers_wait_each_for_their_own_pool(takes_turns: bool) -> None:
    workload = Workload(poisson(4 / HOLD), Exponential(HOLD), 50_000)
    fleet = FleetModel(2, 2, takes_turns=takes_turns)

    found = simulate(workload, PoolModel(2, timeout=None), fleet=fleet)

    if takes_turns:  # each worker's arrivals are more even than chance has them
        assert found.wait_probability < 0.25
    else:
        assert found.wait_probability == pytest.approx(erlang_c(2, 1), abs=0.015)
    assert found.peak_connections == found.connects == 8


# Against an oracle.

SECONDS = st.integers(0, 1000).map(lambda number: number / 100)
REQUESTS = st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=30)


def first_in_first_out(
    requests: Sequence[tuple[float, float]], connections: int, timeout: float
) -> list[float | None]:
    """Return what each request waits; None for one whose timeout passes."""
    free = [0.0] * connections
    waits: list[float | None] = []
    for arrived, (_, hold) in zip(accumulate(gap for gap, _ in requests), requests, strict=True):
        begins = max(arrived, free[0])
        if begins - arrived > timeout:
            waits.append(None)
        else:
            waits.append(begins - arrived)
            heapq.heapreplace(free, begins + hold)
    return waits


@settings(deadline=None)
@given(REQUESTS, st.integers(1, 4), st.sampled_from([0.505, 3.005, math.inf]))
def test_requests_are_served_in_their_order_and_wait_up_to_the_timeout(
    requests: list[tuple[float, float]], connections: int, timeout: float
) -> None:
    gaps, holds = zip(*requests, strict=True)
    pool = PoolModel(connections, timeout=None if timeout == math.inf else timeout)

    found = simulate(recorded([gap + 1e-3 for gap in gaps], holds), pool)

    shifted = [(gap + 1e-3, hold) for gap, hold in requests]
    expected = first_in_first_out(shifted, connections, timeout)
    served = sorted(wait for wait in expected if wait is not None)
    assert found.timeouts == len(expected) - len(served)
    assert found.answered == len(served)
    assert found.wait.longest == pytest.approx(served[-1], abs=1e-9)
    assert found.wait.mean == pytest.approx(math.fsum(served) / len(served), abs=1e-9)
    for share, wait in ((0.5, found.wait.p50), (0.95, found.wait.p95), (0.99, found.wait.p99)):
        assert wait == pytest.approx(served[math.ceil(share * len(served)) - 1], abs=1e-9)


POLICIES = st.builds(
    PoolPolicy,
    min_idle=st.integers(0, 3),
    max_waiting=st.none() | st.integers(0, 5),
    codel_target=st.none() | st.just(0.005),
    overflow_idle=st.sampled_from([0.5, 60.0]),
    connect_timeout=st.sampled_from([0.02, 5.0]),
    connect_retry=st.none() | st.just(0.1),
)
POOLS = st.builds(
    PoolModel,
    size=st.integers(0, 5),
    overflow=st.integers(-1, 3),
    timeout=st.sampled_from([None, 0.0, 0.05, 1.0]),
    recycle=st.sampled_from([-1.0, 0.3]),
    uses_lifo=st.booleans(),
    policy=POLICIES,
    starts_open=st.booleans(),
)
DATABASES = st.builds(
    DatabaseModel,
    connect=st.sampled_from([Constant(0.0), Exponential(0.01)]),
    round_trip=st.sampled_from([0.0, 0.001]),
    connect_failures=st.sampled_from([0.0, 0.3, 1.0]),
    breaks=st.sampled_from([0.0, 0.1]),
    law=st.none() | st.just(ScalabilityLaw(0.05, 0.002)),
)
WORKLOADS = st.builds(
    Workload,
    arrivals=st.sampled_from([poisson(200.0), Bursts(100.0, 5.0), Constant(0.004)]),
    hold=st.sampled_from([Constant(0.0), Exponential(0.02), Lognormal(0.02, 0.2)]),
    requests=st.integers(1, 300),
    deadline=st.none() | st.just(0.1),
    is_enforced=st.booleans(),
)
FLEETS = st.builds(FleetModel, st.integers(1, 2), st.integers(1, 2), st.booleans())


@settings(max_examples=100, deadline=None)
@given(WORKLOADS, POOLS, FLEETS, DATABASES, st.integers(0, 9))
def test_every_request_ends_once_and_every_run_can_be_repeated(
    workload: Workload, pool: PoolModel, fleet: FleetModel, database: DatabaseModel, seed: int
) -> None:
    found = simulate(workload, pool, fleet=fleet, database=database, seed=seed)

    assert found == simulate(workload, pool, fleet=fleet, database=database, seed=seed)
    rejected = sum(found.rejected.values())
    assert found.answered + found.failed + found.cut_off + rejected == workload.requests
    assert found.in_time <= found.answered
    if workload.deadline is not None and workload.is_enforced:
        assert found.in_time == found.answered
    assert 0 <= found.queued <= found.requests == workload.requests
    assert 0.0 <= found.utilisation <= 1.0 + 1e-9
    if pool.size and pool.overflow >= 0:
        most = (pool.size + pool.overflow) * fleet.instances * fleet.workers
        assert found.peak_connections <= most
        assert all(sample.checked_out <= sample.open <= most for sample in found.series)
    assert sum(sample.arrived for sample in found.series) == found.requests
    assert sum(sample.in_time for sample in found.series) == found.in_time
    assert sum(sample.rejected for sample in found.series) == rejected
    assert found.series[-1].waiting == found.series[-1].checked_out == 0


def test_another_seed_is_another_run() -> None:
    workload = Workload(poisson(200.0), Exponential(0.01), 100)

    assert simulate(workload, PoolModel(2), seed=1) != simulate(workload, PoolModel(2), seed=2)


# Cases that one can count.


@pytest.mark.parametrize(("ends", "times_out"), [(-1e-9, False), (1e-9, True)])
def test_a_wait_ends_exactly_at_the_timeout(ends: float, times_out: bool) -> None:
    found = simulate(recorded([0.0, 1.0], [1.5 + ends, 1.0]), PoolModel(1, timeout=0.5))

    assert found.timeouts == times_out
    assert found.wait.longest == (0.0 if times_out else pytest.approx(0.5, abs=2e-9))


def test_a_timeout_of_zero_waits_for_no_other_request() -> None:
    found = simulate(recorded([0.0, 0.5, 1.0], [1.0, 1.0, 1.0]), PoolModel(1, timeout=0.0))

    assert (found.answered, found.timeouts) == (2, 1)


@pytest.mark.parametrize("law", [None, ScalabilityLaw(0.0)])
def test_an_enforced_deadline_cuts_a_hold_off(law: ScalabilityLaw | None) -> None:
    database = DatabaseModel(law=law, round_trip=0.25)
    workload = recorded([1.0, 0.0], [1.0, 0.25], deadline=0.5)

    found = simulate(workload, PoolModel(1), database=database)

    assert (found.cut_off, found.timeouts, found.seconds) == (1, 1, 1.5)


def test_a_deadline_that_is_not_enforced_only_counts() -> None:
    workload = Workload(Recorded([1.0]), Recorded([1.0]), 1, deadline=0.5, is_enforced=False)

    found = simulate(workload, PoolModel(1))

    assert (found.answered, found.in_time, found.goodput) == (1, 0, 0.0)


def test_holds_slow_each_other_down_as_long_as_both_last() -> None:
    database = DatabaseModel(law=ScalabilityLaw(1.0))

    found = simulate(recorded([0.0, 0.5], [1.0, 1.0]), PoolModel(2), database=database)

    assert [found.response.p50, found.response.longest] == pytest.approx([1.5, 1.5])
    assert found.seconds == pytest.approx(2.0)


def test_a_connection_that_is_not_open_is_waited_for() -> None:
    pool = PoolModel(1, starts_open=False)

    found = simulate(recorded([1.0], [1.0]), pool, database=DatabaseModel(Constant(0.25)))

    assert (found.queued, found.connects, found.wait.mean) == (1, 1, 0.25)


def test_a_server_that_cannot_be_reached_rejects_every_request() -> None:
    pool, database = PoolModel(2, starts_open=False), DatabaseModel(connect_failures=1.0)

    found = simulate(Workload(poisson(10.0), Constant(0.01), 50), pool, database=database)

    assert found.rejected == {RejectReason.FAILED: 50}
    assert found.connects == 0 < found.connect_failures


def test_failed_connects_are_tried_again_until_each_request_is_served() -> None:
    database = DatabaseModel(connect_failures=0.5, breaks=0.2)

    found = simulate(Workload(poisson(50.0), Constant(0.01), 2000), PoolModel(2), database=database)

    assert not found.rejected
    assert found.failed == pytest.approx(400, abs=60)
    assert found.failed <= found.connects <= found.failed + 2
    assert found.connect_failures == pytest.approx(found.failed, rel=0.2)


def test_overflow_is_opened_in_a_burst_and_closed_after_it() -> None:
    gaps = [0.0] * 10 + [0.5] * 40
    pool = PoolModel(2, 3, policy=PoolPolicy(overflow_idle=2.0))

    found = simulate(recorded(gaps, [0.1] * 50), pool)

    assert found.peak_connections == found.connects == 5
    assert found.series[-1].open == 2


# FACTS of the field: what a queue policy is worth under 1.5 times the capacity, for 10 s.


def overloaded(pool: PoolModel, *, is_enforced: bool = True) -> tuple[float, Simulated]:
    workload = Workload(poisson(1500.0), Exponential(HOLD), 15_000, 0.5, is_enforced)
    found = simulate(workload, pool)
    meanwhile = [sample for sample in found.series if sample.arrived]
    return sum(sample.in_time for sample in meanwhile) / meanwhile[-1].at, found


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        (PoolPolicy(max_waiting=20), 0.07),
        (PoolPolicy(codel_target=0.005, codel_interval=0.1), 0.1),
    ],
)
def test_a_short_queue_serves_the_capacity_under_overload(policy: PoolPolicy, most: float) -> None:
    goodput, found = overloaded(PoolModel(10, policy=policy))

    assert goodput > 950
    assert found.response.p99 < most
    assert found.shed == pytest.approx(5000, rel=0.1)
    assert found.timeouts == found.cut_off == 0


def test_an_unbounded_queue_serves_hardly_a_request_in_time_under_overload() -> None:
    goodput, found = overloaded(PoolModel(10, timeout=None), is_enforced=False)

    assert goodput < 200
    assert found.answered == 15_000
    assert found.response.longest > 4
    assert max(sample.waiting for sample in found.series) > 4000


def test_a_deadline_keeps_the_goodput_but_not_the_latency_under_overload() -> None:
    goodput, found = overloaded(PoolModel(10))

    assert goodput > 950
    assert 0.4 < found.response.p99 <= 0.5
