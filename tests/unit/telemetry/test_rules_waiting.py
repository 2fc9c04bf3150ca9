"""What is said about those who wait for a connection, and when it is not said."""

from dataclasses import replace
from typing import Any

import pytest
from tests.told import advised, numbers
from tests.unit.telemetry.test_rules import (
    NOW,
    Stretch,
    finding,
    history,
    reading,
    said,
    worker,
)

from penstock.findings import Severity, bounded
from penstock.telemetry.reading import LeaseSample
from penstock.telemetry.rules.pool import LARGEST_POOL, needed_connections
from penstock.telemetry.schema import Sample

CHECKED_OUT: dict[str, Any] = {"checked_in": 0, "checked_out": 50}
QUICK = CHECKED_OUT | {"checkouts": 100, "waits": 50, "wait_seconds": 5.0, "wait_longest": 0.4}
SLOW = CHECKED_OUT | {
    "checkouts": 50,
    "checkins": 50,
    "hold_seconds": 50.0,
    "waits": 50,
    "wait_seconds": 40.0,
    "wait_longest": 1.1,
    "waiting": 30,
}
NOBODY: dict[str, Any] = {}
FULL = CHECKED_OUT | {"waiting": 10, "wait_longest": 0.2, "checkins": 100, "hold_seconds": 50.0}


def latency(*stretches: Stretch) -> bool:
    return said(reading(worker(*stretches)), "checkout-latency") is not None


def test_long_waits_for_two_minutes_are_found() -> None:
    found = finding(reading(worker((121, SLOW))), "checkout-latency")

    assert found.severity is Severity.CRITICAL
    assert numbers(found.evidence) == ["120 s", "0.80 s", "1.10 s", "50", "50"]
    # (50 checked out + 30 waiting) / 0.8 = 100, which is 50 above the limit.
    assert advised(found.remedy) == {"pool_size": "70"}
    assert "1.000 s" in numbers(found.remedy)


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(300, QUICK), (30, SLOW)], id="a burst"),
        pytest.param([(300, QUICK), (119, SLOW)], id="not yet two minutes"),
        pytest.param([(120, SLOW)], id="not yet two minutes since the start"),
        pytest.param([(300, SLOW), (31, NOBODY)], id="over"),
        pytest.param([(300, SLOW), (13, QUICK)], id="one second in nine was quick"),
        pytest.param([(100, SLOW), (31, NOBODY), (100, SLOW)], id="a pause of half a minute"),
        pytest.param([(900, QUICK)], id="waits, and short ones"),
        pytest.param([(900, NOBODY)], id="no requests"),
    ],
)
def test_shorter_or_rarer_long_waits_are_not(stretches: list[Stretch]) -> None:
    assert not latency(*stretches)


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(300, SLOW), (12, QUICK)], id="one second in ten was quick"),
        pytest.param([(100, SLOW), (29, NOBODY), (100, SLOW)], id="a pause"),
        pytest.param([(200, SLOW), (20, NOBODY)], id="a pause just now"),
        pytest.param([(1, SLOW), (20, NOBODY)] * 10, id="one caller every twenty seconds"),
        pytest.param(
            [(130, CHECKED_OUT | {"waiting": 1, "wait_longest": 0.6})],
            id="no request was served",
        ),
    ],
)
def test_pauses_do_not_hide_long_waits(stretches: list[Stretch]) -> None:
    assert latency(*stretches)


def test_missing_seconds_do_not_hide_long_waits() -> None:
    kept = [sample for sample in history((300, SLOW)) if int(sample.at) % 7]

    assert said(reading(worker(samples=kept)), "checkout-latency")


def test_one_worker_that_waits_is_found_beside_one_that_does_not() -> None:
    found = finding(reading(worker((300, QUICK)), worker((300, SLOW), pid=2)), "checkout-latency")

    assert numbers(found.evidence)[1:3] == ["1", "2"]


def test_waiting_beside_free_connections_is_no_matter_of_the_size() -> None:
    found = finding(reading(worker((150, SLOW | {"checked_out": 10}))), "checkout-latency")

    assert advised(found.remedy) == {"min_idle": "20"}


def test_waiting_for_a_pool_without_a_limit_is_no_matter_of_the_size() -> None:
    found = finding(reading(worker((150, SLOW | {"limit": 0, "size": 0}))), "checkout-latency")

    assert numbers(found.evidence)[-1] == "50"
    assert advised(found.remedy) == {"min_idle": "1"}


def test_a_pool_that_is_exhausted_for_five_samples_is_found() -> None:
    found = finding(reading(worker((60, {}), (5, FULL))), "pool-exhausted")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence) == ["50", "5 s", "10", "0.20 s"]
    assert advised(found.remedy) == {"pool_size": "45"}


def test_a_pool_that_is_exhausted_while_a_request_waits_for_long_is_critical() -> None:
    found = finding(reading(worker((5, FULL | {"wait_longest": 0.6}))), "pool-exhausted")

    assert found.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(60, {}), (4, FULL)], id="four samples"),
        pytest.param([(4, FULL), (1, {})] * 20, id="peaks"),
        pytest.param([(300, CHECKED_OUT)], id="no request waits"),
        pytest.param([(300, FULL | {"checked_out": 49})], id="one is left"),
        pytest.param([(300, FULL | {"limit": 0})], id="no limit"),
        pytest.param([(300, FULL), (56, {})], id="a minute ago"),
    ],
)
def test_a_pool_that_is_full_for_a_moment_is_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "pool-exhausted") is None


def test_samples_that_are_missing_break_a_run() -> None:
    apart = [sample for sample in history((60, FULL)) if int(sample.at) % 8 < 4]

    assert said(reading(worker(samples=apart)), "pool-exhausted") is None


def test_one_sample_that_is_missing_breaks_none() -> None:
    seconds = history((6, FULL))

    assert said(reading(worker(samples=seconds[:3] + seconds[4:])), "pool-exhausted")


def test_an_exhausted_pool_is_not_larger_than_the_server_allows() -> None:
    full = FULL | {"server_limit": 100.0}

    (raised, refused) = (
        finding(reading(worker((9, full))), "pool-exhausted"),
        finding(reading(worker((9, full)), worker((9, full), pid=2)), "pool-exhausted"),
    )

    # 80 % of 97 are 77, of which the limit is 50; of two workers each can have 38.
    assert advised(raised.remedy) == {"pool_size": "45"}
    assert "pool_size" not in refused.remedy


def test_an_exhausted_pool_takes_nothing_from_others() -> None:
    full = FULL | {"checked_in": 0, "server_limit": 200.0}

    (raised, refused) = (
        finding(reading(worker((9, full | {"server_connections": used}))), "pool-exhausted")
        for used in (100.0, 160.0)
    )

    # 80 % of 197 are 157. Beside 50 of others 107 remain; beside 110 only 47, of which it has 50.
    assert advised(raised.remedy) == {"pool_size": "45"}
    assert "pool_size" not in refused.remedy
    # 50 connections serve 100 in a second, 50 in half of it.
    assert advised(refused.remedy) == {"max_waiting": "50"}


def test_rejections_in_ten_of_thirty_seconds_are_found() -> None:
    shed = FULL | {"shed": 2, "checkouts": 1000}

    found = finding(reading(worker((50, {"checkouts": 1000}), (10, shed))), "shedding")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence)[:5] == ["20", "60020", "0.0", "10", "30"]
    # 50 checked out, 10 waiting and 2 x 0.5 s rejected, at 80 %.
    assert advised(found.remedy) == {"pool_size": "47"}


def test_one_rejection_in_a_hundred_is_found() -> None:
    found = finding(
        reading(worker((55, {"checkouts": 10}), (5, FULL | {"timeouts": 2}))), "shedding"
    )

    assert numbers(found.evidence)[:3] == ["10", "560", "1.8"]


def test_one_rejection_in_ten_is_critical() -> None:
    found = finding(reading(worker((60, FULL | {"timeouts": 2, "checkouts": 10}))), "shedding")

    assert found.severity is Severity.CRITICAL


def test_rejections_beside_free_connections_are_no_matter_of_the_size() -> None:
    found = finding(reading(worker((60, {"timeouts": 2, "checkouts": 10}))), "shedding")

    assert advised(found.remedy) == {"min_idle": "20"}


@pytest.mark.parametrize(
    "stretches",
    [
        pytest.param([(51, {"checkouts": 1000}), (9, {"shed": 1})], id="nine seconds"),
        pytest.param([(59, {"checkouts": 1000}), (1, {"shed": 900})], id="one second"),
        pytest.param([(56, {"checkouts": 1}), (4, {"timeouts": 5})], id="four seconds"),
        pytest.param([(55, {"checkouts": 1}), (5, {"timeouts": 1})], id="five of sixty"),
        pytest.param([(55, {"checkouts": 18}), (5, {"shed": 2})], id="one in a hundred"),
        pytest.param([(60, {"rejected": 5})], id="rejected because the pool is closed"),
        pytest.param([(60, {"shed": 5}), (61, {})], id="a minute ago"),
    ],
)
def test_a_few_rejections_are_not(stretches: list[Stretch]) -> None:
    assert said(reading(worker(*stretches)), "shedding") is None


def test_a_number_is_bounded_whatever_it_is() -> None:
    assert [bounded(number, 1, 9) for number in (float("nan"), 1e999, -1e999, 2.1)] == [9, 9, 1, 3]


def test_long_leases_are_not_taken_for_the_few_short_ones_that_have_ended() -> None:
    long = FULL | {"checkins": 1, "hold_seconds": 0.001}

    found = finding(reading(worker((9, long))), "pool-exhausted")

    assert "50.000 s" in numbers(found.remedy)


def test_where_no_lease_has_ended_their_length_is_not_said() -> None:
    found = finding(reading(worker((9, FULL | {"checkins": 0}))), "pool-exhausted")

    assert not [number for number in numbers(found.remedy) if number.endswith(" s")]


def test_what_is_wanted_is_what_was_used_and_asked_for() -> None:
    busy = Sample(0.0, limit=10, checked_out=8)

    assert needed_connections([busy], 1.0) == 10
    assert needed_connections([busy, Sample(1.0)], 1.0) == 5
    assert needed_connections([replace(busy, shed=8)], 2.0) == 30
    assert needed_connections([Sample(0.0, checked_out=10**6)], 1.0) == LARGEST_POOL


@pytest.mark.parametrize("seconds", range(6, 60))
def test_leases_of_six_seconds_are_reported_as_such_from_the_first_that_ends(seconds: int) -> None:
    full = CHECKED_OUT | {
        "checked_out": 5,
        "limit": 5,
        "size": 5,
        "waiting": 10,
        "wait_longest": 3.0,
    }
    back = full | {"checkins": 5, "hold_seconds": 30.0}
    rejected = {"shed": 2, "rejected": 2}
    stretches = [(1, (back if second % 6 == 5 else full) | rejected) for second in range(seconds)]
    given = reading(worker(*stretches))

    assert "6.000 s" in numbers(finding(given, "pool-exhausted").remedy)
    if seconds >= 10:
        assert "6.000 s" in numbers(finding(given, "shedding").remedy)


def test_who_holds_the_connections_is_reported_before_the_size() -> None:
    leases = [
        LeaseSample("GET /hold", NOW - 5.0, "idle in transaction", is_overdue=False, statement="")
    ]
    leases += [LeaseSample("GET /b", NOW - 9.0, "running", is_overdue=False, statement="")]
    held = replace(
        worker((121, SLOW | {"rejected": 9, "shed": 9})), leases=tuple(2 * leases[:1] + leases)
    )

    for name in ("checkout-latency", "pool-exhausted", "shedding"):
        found = finding(reading(held), name)
        assert numbers(found.evidence)[-3:] == ["3", "50", "5.0 s"]
        assert "GET /hold" in found.evidence
        assert "GET /b" not in found.evidence
        assert not found.remedy.partition(". ")[0].count("pool_size")
