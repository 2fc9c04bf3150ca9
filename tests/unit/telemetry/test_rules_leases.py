"""What is said about leases that do not end, and when it is not said."""

from dataclasses import replace
from typing import Any

import pytest
from tests.told import advised, numbers
from tests.unit.telemetry.test_rules import NOW, Stretch, finding, reading, said, worker

from penstock.findings import Severity
from penstock.telemetry.reading import LeaseSample, RouteUse
from penstock.telemetry.schema import BOUNDS, Counters, Histogram, bucket_of


def minutes(*lowest: int, hold: float = 0.0) -> list[Stretch]:
    """A minute with so many checked out at its lowest, and some more in every other second."""
    return [
        (2 - second % 2, {"checked_out": number + 3 * (second % 2), "hold_seconds": hold})
        for number in lowest
        for second in range(40)
    ]


def test_leases_that_do_not_come_back_are_found() -> None:
    leaking = [
        (60, {"checked_out": number, "checkouts": 2, "checkins": 1}) for number in (1, 2, 3, 4, 5)
    ]

    found = finding(reading(worker(*leaking)), "connection-leak")

    assert found.severity is Severity.WARNING
    # Worker 1 is missing 4 of 50 after 5 minutes.
    assert numbers(found.evidence) == ["1", "4", "50", "5", "600", "300"]
    assert advised(found.remedy) == {"leak_after": "10", "reclaim_leaks": "true"}


def test_a_leak_of_half_the_pool_is_critical() -> None:
    found = finding(reading(worker(*minutes(0, 10, 15, 20, 25))), "connection-leak")

    assert found.severity is Severity.CRITICAL


def test_a_lease_is_long_when_it_is_ten_times_as_long_as_usual() -> None:
    counts = [0] * (len(BOUNDS) + 1)
    counts[bucket_of(2.0)] = 100
    usual = replace(
        worker(*minutes(0, 1, 2, 3, 4)), histograms={"hold": Histogram(tuple(counts), 200.0)}
    )

    assert advised(finding(reading(usual), "connection-leak").remedy)["leak_after"] == "21"


def test_a_leak_under_load_is_found() -> None:
    # Ten are checked out on average to leases that end, and three at the lowest.
    under_load = minutes(3, 9, 15, 21, 27, hold=10.0)

    assert said(reading(worker(*under_load)), "connection-leak")


@pytest.mark.parametrize("missed", [{"waiting": 1}, {"rejected": 1}])
def test_a_pool_from_which_nothing_comes_back_to_those_who_ask_is_a_leak(
    missed: dict[str, int],
) -> None:
    empty = {"checked_in": 0, "checked_out": 50}

    found = finding(reading(worker((300, empty), (1, empty | missed))), "connection-leak")

    assert found.severity is Severity.CRITICAL
    assert "50 of 50" in found.evidence


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param(minutes(0, 1, 2, 3), id="four minutes"),
        pytest.param(minutes(0, 1, 0, 2, 3), id="they came back"),
        pytest.param(minutes(0, 0, 0, 20, 20), id="a jump"),
        pytest.param(minutes(0, 0, 0, 0, 1), id="one"),
        pytest.param(minutes(2, 2, 2, 2, 2), id="held for good"),
        pytest.param(minutes(4, 3, 2, 1, 0), id="fewer"),
        pytest.param(minutes(1, 5, 10, 15, 20, hold=20.0), id="more traffic"),
        pytest.param(minutes(1, 5, 10, 15, 20, hold=11.0), id="more traffic of long leases"),
        pytest.param([(301, {"checked_out": 50, "checkins": 9, "waiting": 1})], id="full, in use"),
        pytest.param([(301, {"checked_out": 50})], id="long jobs, and no other requests"),
        pytest.param([(301, {"limit": 1, "checked_out": 1})], id="the only one, to listen"),
    ],
)
def test_leases_that_come_back_are_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "connection-leak") is None


def test_a_minute_with_too_few_samples_says_nothing() -> None:
    leaking = worker(*minutes(0, 1, 2, 3, 4))
    kept = [sample for sample in leaking.history if int(sample.at) % 5 < 2]

    assert said(reading(worker(samples=kept)), "connection-leak") is None


def test_workers_that_end_and_start_are_no_leak() -> None:
    young = worker(*minutes(9, 9), pid=2, age=120.0)

    assert said(reading(worker(*minutes(0, 0, 0, 0, 0)), young), "connection-leak") is None


def lease(route: str, seconds: float, **more: Any) -> LeaseSample:
    held = {"state": "idle", "is_overdue": False, "statement": "", **more}
    return LeaseSample(route=route, since=NOW - seconds, **held)


def test_leaks_of_before_are_mentioned_without_a_route_that_may_have_nothing_to_do_with_them() -> (
    None
):
    reported = replace(
        worker((600, {})),
        counters=Counters(leaks=3),
        routes=(RouteUse("GET /a", 9, 9.0, 1.0), RouteUse("GET /report", 2, 100.0, 74.2)),
        leases=(lease("GET /report", 7.0),),
    )

    found = finding(reading(reported), "connection-leak")

    assert found.severity is Severity.INFO
    assert numbers(found.evidence)[0] == "3"
    assert "leak_after" in found.evidence
    assert "GET" not in found.evidence
    assert advised(found.remedy) == {"reclaim_leaks": "true"}


@pytest.mark.parametrize(
    ("count", "severity"), [(1, Severity.WARNING), (25, Severity.CRITICAL), (40, Severity.CRITICAL)]
)
def test_what_is_out_for_longer_than_leak_after_now_is_reported_by_its_route(
    count: int, severity: Severity
) -> None:
    leaked = [lease("GET /leak", 10.0 + number, is_overdue=True) for number in range(count)]
    out = (lease("GET /report", 900.0), *leaked, lease("GET /a", 0.1))
    holding = replace(
        worker((600, {"checked_out": count + 2})), counters=Counters(leaks=99), leases=out
    )

    found = finding(reading(holding), "connection-leak")

    assert found.severity is severity
    of_all = [str(count), str(count + 2)]
    assert numbers(found.evidence) == [*of_all, *of_all, f"{9.0 + count:.1f} s"]
    assert "leak_after" in found.evidence
    assert "GET /leak" in found.evidence
    assert "GET /report" not in found.evidence


def test_those_of_workers_that_have_ended_are_not() -> None:
    given = replace(reading(worker((600, {}))), ended_counters=Counters(leaks=3))

    assert said(given, "connection-leak") is None


def test_transactions_that_rest_for_ten_seconds_are_found() -> None:
    resting = replace(
        worker((50, {}), (10, {"idle_in_transaction": 2})),
        routes=(RouteUse("GET /report", 9, 99.0, 21.0),),
        leases=(
            lease("GET /report", 90.0, state="running"),
            lease("POST /orders", 21.0, state="idle in transaction"),
        ),
    )

    found = finding(reading(resting), "idle-in-transaction")

    assert found.severity is Severity.WARNING
    # Two, for more than 5 s, in 10 of 60 seconds; its route holds 1 of 2.
    assert numbers(found.evidence) == ["2", "5 s", "10", "60", "1", "2", "21.0 s"]
    assert "POST /orders" in found.evidence
    assert "GET /report" not in found.evidence
    assert advised(found.remedy) == {"idle_in_transaction_session_timeout": "15s"}


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(51, {}), (9, {"idle_in_transaction": 9})], id="nine seconds"),
        pytest.param([(60, {"idle_in_transaction": 9}), (51, {})], id="a minute ago"),
        pytest.param([(9, {"idle_in_transaction": 1}), (30, {})] * 4, id="now and then"),
    ],
)
def test_transactions_that_rest_for_a_moment_are_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "idle-in-transaction") is None
