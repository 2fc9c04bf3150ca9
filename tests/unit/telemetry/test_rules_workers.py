"""What is said about workers, and when it is not said."""

from dataclasses import replace

import pytest
from tests.told import numbers
from tests.unit.telemetry.test_rules import (
    NOW,
    Stretch,
    finding,
    history,
    reading,
    said,
    worker,
)

from penstock.findings import Severity
from penstock.telemetry.reading import Reading


def rates(*checkouts: int, **more: int) -> Reading:
    return reading(
        *(
            worker((60, {"checkouts": each} | more), pid=pid)
            for pid, each in enumerate(checkouts, start=1)
        )
    )


def test_a_worker_that_does_most_is_found() -> None:
    found = finding(rates(210, 50, 40), "worker-imbalance")

    assert found.severity is Severity.INFO
    assert numbers(found.evidence) == ["300", "1", "210", "3", "40", "3", "100", "0"]
    assert "keepalive_requests 1000" in found.remedy


def test_a_worker_that_does_nothing_is_found() -> None:
    found = finding(rates(110, 10), "worker-imbalance")

    assert numbers(found.evidence) == ["120", "1", "110", "2", "10", "2", "60", "0"]


def test_it_matters_more_when_requests_wait() -> None:
    assert finding(rates(110, 10, waits=1), "worker-imbalance").severity is Severity.WARNING


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(rates(200, 50, 50), id="twice as much"),
        pytest.param(rates(105, 15), id="a quarter"),
        pytest.param(rates(99, 0), id="little traffic"),
        pytest.param(rates(900), id="one worker"),
        pytest.param(rates(0, 0), id="no traffic"),
    ],
)
def test_workers_that_are_busy_differently_are_not(given: Reading) -> None:
    assert said(given, "worker-imbalance") is None


def test_a_worker_that_has_just_started_is_not_compared() -> None:
    old = worker((60, {"checkouts": 500}))

    assert said(reading(old, worker((59, {}), pid=2, age=59.0)), "worker-imbalance") is None
    assert said(reading(old, worker((44, {}), pid=2)), "worker-imbalance") is None
    assert said(reading(old, worker((45, {}), pid=2)), "worker-imbalance")


def test_missing_seconds_do_not_count_as_idle() -> None:
    busy = [sample for sample in history((60, {"checkouts": 100})) if int(sample.at) % 4]
    given = reading(worker(samples=busy), worker((60, {"checkouts": 200}), pid=2))

    assert said(given, "worker-imbalance") is None


def test_a_loop_that_is_late_thrice_is_found() -> None:
    found = finding(reading(worker(*[(10, {}), (1, {"loop_late": 0.4})] * 3)), "event-loop-blocked")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence) == ["0.2 s", "3", "0.40 s"]
    assert "loop.slow_callback_duration to 0.2" in found.remedy


def test_a_loop_that_is_very_late_once_is_found() -> None:
    found = finding(
        reading(worker((9, {}), (1, {"loop_late": 1.6}), (9, {}))), "event-loop-blocked"
    )

    assert numbers(found.evidence) == ["0.2 s", "1", "1.60 s"]
    assert "loop.slow_callback_duration to 0.8" in found.remedy


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(2, {"loop_late": 1.0}), (9, {})], id="twice"),
        pytest.param([(60, {"loop_late": 0.2})], id="not more than that"),
        pytest.param([(9, {"loop_late": 5.0}), (60, {})], id="a minute ago"),
    ],
)
def test_a_loop_that_is_late_for_a_moment_is_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "event-loop-blocked") is None


def test_a_loop_that_is_late_at_the_start_is_not() -> None:
    imports = worker((9, {"loop_late": 3.0}), (20, {}), age=29.0)

    assert said(reading(imports), "event-loop-blocked") is None


def test_a_worker_of_which_nothing_is_heard_is_found() -> None:
    silent = [replace(sample, at=sample.at - 11) for sample in history((60, {}))]

    found = finding(reading(worker((60, {})), worker(samples=silent, pid=77)), "event-loop-blocked")

    assert found.severity is Severity.CRITICAL
    assert numbers(found.evidence) == ["1", "2", "77", "11 s"]
    assert "py-spy dump --pid 77" in found.remedy


def test_a_sample_that_is_late_is_no_silence() -> None:
    late = [replace(sample, at=NOW - 10) for sample in history((1, {}))]

    assert not said(reading(worker((60, {})), worker(samples=late, pid=7)), "event-loop-blocked")


def test_a_worker_that_was_lost_is_reported_for_15_minutes() -> None:
    def lost(*moments: float) -> Reading:
        gone = tuple((100 + number, at) for number, at in enumerate(moments))
        return replace(reading(worker((600, {}))), lost=gone)

    one = finding(lost(NOW - 12), "worker-lost")
    assert one.severity is Severity.WARNING
    assert numbers(one.evidence) == ["100", "12 s"]
    several = finding(lost(NOW - 900, NOW - 899, NOW - 5), "worker-lost")
    assert numbers(several.evidence) == ["102", "5 s", "2", "15"]
    assert said(lost(NOW - 900), "worker-lost") is None
    assert said(lost(), "worker-lost") is None
