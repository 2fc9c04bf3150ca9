"""What is said about connections that end too early, or cannot be opened, and when it is not."""

from dataclasses import replace

import pytest
from tests.told import advised, numbers
from tests.unit.telemetry.test_rules import NOW, Stretch, finding, reading, said, worker

from penstock.findings import Severity
from penstock.telemetry.reading import WorkerReading
from penstock.telemetry.schema import BOUNDS, Histogram, bucket_of

DEATH = (1, {"died": 1, "closed": 1})
BRIEF = (1, {"short_lived": 8, "closed": 8, "opened": 8, "checked_out": 30})
FAILURE = (1, {"open_failures": 2, "checked_in": 0})


def test_connections_found_dead_again_and_again_are_found() -> None:
    found = finding(reading(worker((200, {}), *[DEATH, (30, {})] * 3)), "stale-connections")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence) == ["3", "3", "5", "62 s", "20", "2000 s"]
    assert advised(found.remedy) == {"pool_recycle": "1500", "keepalive": "120"}


def test_connections_that_die_soon_are_replaced_soon() -> None:
    dying = [
        (9, {"checked_in": 4, "checked_out": 0}),
        (1, {"died": 1, "closed": 1, "checked_in": 4}),
    ]

    found = finding(reading(worker(*dying * 30)), "stale-connections")

    # Thirty of some four in 300 s: one of them lives for 42 s.
    assert advised(found.remedy) == {"pool_recycle": "32", "keepalive": "16"}


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([DEATH, (30, {}), DEATH, (30, {})], id="two"),
        pytest.param([(300, {}), (1, {"died": 20, "closed": 20}), (9, {})], id="a restart"),
        pytest.param([*[DEATH, (9, {})] * 3, (100, {})], id="a slow restart"),
        pytest.param([*[DEATH, (30, {})] * 3, (300, {})], id="long ago"),
        pytest.param([DEATH, (30, {"closed": 1})] * 3, id="few of those closed"),
        pytest.param([(300, {"closed": 1})], id="replaced in time"),
    ],
)
def test_connections_that_die_by_accident_are_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "stale-connections") is None


def test_a_storm_of_short_lived_connections_is_found() -> None:
    found = finding(reading(worker((50, {}), *[BRIEF, (2, {})] * 3)), "short-lived-connections")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence) == ["24", "20", "30"]
    assert advised(found.remedy) == {"pool_size": "30", "overflow_idle": "60"}


def test_a_pool_that_is_large_enough_is_not_to_be_larger() -> None:
    brief = (3, {"short_lived": 8})

    found = finding(reading(worker((50, {}), brief)), "short-lived-connections")

    assert advised(found.remedy) == {"overflow_idle": "60", "pool_recycle": "60"}


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(3, {"short_lived": 6})], id="fewer than the pool has"),
        pytest.param([(3, {"short_lived": 3, "size": 2})], id="fewer than ten"),
        pytest.param([(2, {"short_lived": 20}), (9, {})], id="the pool was made smaller"),
        pytest.param([(3, {"short_lived": 20}), (60, {})], id="a minute ago"),
        pytest.param([(60, {"short_lived": 20, "size": 0, "limit": 0})], id="no pool"),
        pytest.param([(60, {"closed": 20})], id="old ones"),
    ],
)
def test_a_few_short_lived_connections_are_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "short-lived-connections") is None


def test_opening_more_than_the_pool_keeps_is_found() -> None:
    found = finding(reading(worker((60, {}), (7, {"opened": 3, "closed": 3}))), "connect-storm")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence) == ["21", "10 s", "20"]
    assert advised(found.remedy) == {"overflow_idle": "60", "pool_recycle": "600"}


def test_a_storm_of_more_than_pool_size_asks_for_a_larger_one() -> None:
    busy = {"opened": 10, "checked_in": 0, "checked_out": 31}

    found = finding(reading(worker((1, {}), (9, busy), (1, busy))), "connect-storm")

    assert advised(found.remedy)["pool_size"] == "31"


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(60, {}), (4, {"opened": 5})], id="as many as the pool has"),
        pytest.param([(60, {}), (1, {"opened": 30, "checked_out": 32})], id="a burst"),
        pytest.param([(5, {"opened": 1}), (5, {})] * 6, id="slowly"),
        pytest.param([(7, {"opened": 3}), (60, {})], id="a minute ago"),
        pytest.param([(60, {"opened": 50, "size": 0, "limit": 0})], id="no pool"),
        pytest.param([(1, {"opened": 50})], id="one sample"),
    ],
)
def test_connections_that_the_pool_needs_are_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "connect-storm") is None


def test_a_start_of_several_workers_is_no_storm() -> None:
    starting = [(1, {"checked_in": 0, "checked_out": 0}), (1, {"opened": 50}), (20, {"opened": 5})]

    workers = [worker(*starting, pid=pid, age=22.0) for pid in range(8)]

    assert said(reading(*workers), "connect-storm") is None


def test_attempts_that_fail_again_and_again_are_found() -> None:
    found = finding(reading(worker((300, {}), *[FAILURE, (4, {})] * 4)), "connect-storm")

    assert found.severity is Severity.CRITICAL
    assert numbers(found.evidence) == ["8", "120 s", "4", "0"]
    assert "set connect_timeout to 10" in found.remedy


def test_a_server_that_opens_slowly_is_given_three_times_as_long() -> None:
    counts = [0] * (len(BOUNDS) + 1)
    counts[bucket_of(8.0)] = 9
    slow = replace(worker(*[FAILURE, (4, {})] * 4), histograms={"create": Histogram(tuple(counts))})

    # The bucket of 8 s reaches to 8.4 s.
    assert "set connect_timeout to 26" in finding(reading(slow), "connect-storm").remedy


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([*[FAILURE, (4, {})] * 3], id="three"),
        pytest.param([(1, {"open_failures": 90}), (9, {})], id="all at once"),
        pytest.param([*[FAILURE] * 9, (9, {})], id="a restart"),
        pytest.param([*[FAILURE, (4, {"opened": 1})] * 4], id="as many succeed"),
        pytest.param([*[FAILURE, (4, {})] * 4, (120, {})], id="over"),
    ],
)
def test_attempts_that_fail_for_a_moment_are_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "connect-storm") is None


def unreachable(seconds: float, failures: int, *stretches: Stretch) -> WorkerReading:
    return replace(
        worker(*stretches),
        unreachable=NOW - seconds,
        failures=failures,
        fault="unreachable, ConnectionRefusedError",
    )


def test_a_server_that_cannot_be_reached_is_reported_without_traffic() -> None:
    found = finding(reading(worker(), unreachable(31.0, 3)), "server-unreachable")

    assert found.severity is Severity.CRITICAL
    assert numbers(found.evidence) == ["1", "2", "31 s", "3"]
    assert "(unreachable, ConnectionRefusedError)" in found.evidence


@pytest.mark.parametrize(("seconds", "failures"), [(9.0, 90), (60.0, 1), (NOW, 0)])
def test_a_restart_and_a_single_failure_are_no_unreachable_server(
    seconds: float, failures: int
) -> None:
    assert said(reading(unreachable(seconds, failures)), "server-unreachable") is None


def test_attempts_that_fail_are_reported_once() -> None:
    given = reading(unreachable(20.0, 5, (300, {}), *[FAILURE, (4, {})] * 4))

    assert said(given, "server-unreachable")
    assert said(given, "connect-storm") is None
