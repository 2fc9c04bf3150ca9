"""Remedies that hold when they are followed, and loads that fit nowhere."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import Severity
from penstock.errors import SettingsError
from penstock.planner import Limit, Plan, plan, shown, shown_rate, shown_share

ABOUT_SIZES = {
    "plan-utilisation",
    "plan-wait",
    "connection-budget",
    "database-cores",
    "deadlock-floor",
}
CROWDED = {
    "rate": 5000,
    "query_time": "20ms",
    "workers": 4,
    "instances": 4,
    "max_connections": 100,
    "cores": 4,
    "memory": "8GB",
}

fleets = st.fixed_dictionaries(
    {
        "query_time": st.floats(0.0005, 0.2),
        "workers": st.integers(1, 12),
        "instances": st.integers(1, 5),
        "max_connections": st.one_of(st.none(), st.integers(20, 600)),
        "cores": st.one_of(st.none(), st.integers(1, 64)),
        "memory": st.one_of(st.none(), st.integers(2**28, 2**35)),
        "proxy": st.sampled_from([(), ("pgbouncer",)]),
    }
)
loads = st.tuples(fleets, st.floats(0.01, 20_000)).map(lambda both: both[0] | {"rate": both[1]})
sizes: st.SearchStrategy[dict[str, int]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"pool_size": st.integers(1, 80), "max_overflow": st.integers(0, 20)}),
)


def wrong(made: Plan) -> set[str]:
    return {each.id for each in made.findings if each.severity is not Severity.INFO}


def followed(asked: dict[str, Any], made: Plan) -> list[dict[str, Any]]:
    """The inputs after each of the remedies about sizes, by what the texts say."""
    ways: list[dict[str, Any]] = []
    for finding in made.findings:
        if finding.id not in ABOUT_SIZES:
            continue
        if size := re.search(r"Set pool_size \+ max_overflow to (\d+)", finding.remedy):
            ways.append({"pool_size": int(size[1]), "max_overflow": 0})
    if (short := made.shortfall) is not None:
        free = {"pool_size": None, "max_overflow": None}
        if short.max_connections or short.cores:
            server = {"max_connections": short.max_connections, "cores": short.cores}
            ways.append(free | {name: x for name, x in server.items() if x})
        if short.pgbouncer:
            ways.append(free | {"proxy": ("pgbouncer",)})
        ways += [
            free | {name: value}
            for name in ("workers", "rate", "query_time")
            if (value := getattr(short, name))
        ]
    return [asked | way for way in ways]


@settings(deadline=None, max_examples=40)
@given(asked=loads, size=sizes)
def test_no_remedy_that_is_followed_makes_a_finding_that_takes_it_back(
    asked: dict[str, Any], size: dict[str, int]
) -> None:
    made = plan(asked | size)

    for each in followed(asked | size, made):
        assert not wrong(plan(each)) & ABOUT_SIZES, each


@settings(deadline=None, max_examples=40)
@given(asked=loads)
def test_what_is_proposed_passes_its_own_checks_unless_the_load_does_not_fit(
    asked: dict[str, Any],
) -> None:
    made = plan(asked)

    assert bool(wrong(made) & ABOUT_SIZES) is (made.shortfall is not None)
    if made.pgbouncer is not None and made.inputs.server and not made.shortfall:
        assert made.pgbouncer.max_connections <= made.inputs.server.max_connections
    # A work_mem that is chosen fits, unless none does.
    assert "plan-memory" not in wrong(made) or made.memory.work_mem == 64 * 1024


@settings(deadline=None, max_examples=25)
@given(asked=fleets, p99=st.floats(0.001, 2.0), size=sizes)
def test_backwards_and_forwards_have_the_same_verdict(
    asked: dict[str, Any], p99: float, size: dict[str, int]
) -> None:
    try:
        back = plan({**asked, **size, "p99": p99})
    except SettingsError:
        return
    fixed = {"pool_size": back.pool_size, "max_overflow": back.max_overflow}
    forth = plan({**asked, **fixed, "rate": back.rate})

    assert forth.findings == back.findings
    assert forth.predicted == back.predicted
    assert back.predicted.response_p99 <= p99
    assert not wrong(back) & (ABOUT_SIZES - {"connection-budget"})
    # Only sizes that were given can be more than the server has room for.
    assert size or "connection-budget" not in wrong(back)


def test_a_load_that_fits_nowhere_is_told_what_it_takes() -> None:
    made = plan(CROWDED)

    assert made.pgbouncer is None
    assert made.shortfall is not None
    assert (made.shortfall.max_connections, made.shortfall.cores) == (301, 62)
    for finding in made.findings:
        assert "pool_size" not in finding.remedy
        assert "PgBouncer" not in finding.remedy
    assert "plan-memory" not in wrong(made)


def test_no_size_in_between_is_proposed_that_breaks_a_goal() -> None:
    asked = {"rate": 3350, "query_time": "10ms", "max_connections": 57}
    made = plan({**asked, "pool_size": 40, "max_overflow": 5})

    assert made.shortfall is not None
    assert made.shortfall.connections is not None
    assert made.shortfall.connections >= 33.5 / 0.75
    assert not any("Set pool_size" in each.remedy for each in made.findings)


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ({"pool_size": 5, "max_overflow": 0}, Limit.WAIT),
        ({"pool_size": 5, "max_overflow": 0, "wait": "1s"}, Limit.UTILISATION),
        ({"pool_size": 2, "max_overflow": 0, "wait": "1s", "p99": "19ms"}, Limit.P99),
        ({"cores": 2}, Limit.CORES),
        ({"max_connections": 100}, Limit.BUDGET),
        ({}, Limit.POOL),
    ],
)
def test_what_bounds_the_largest_rate_is_told(asked: dict[str, Any], limit: Limit) -> None:
    made = plan({"p99": "50ms", "query_time": "4ms", "workers": 4, **asked})

    assert made.limit is limit
    assert made.document()["limit"] == limit
    assert wrong(made) == set()


def test_the_remedy_is_what_would_be_planned_with_its_true_figures() -> None:
    asked = {"rate": 5000, "query_time": "20ms", "workers": 4, "instances": 4}
    chosen = plan(asked)
    found = plan({**asked, "pool_size": 3, "max_overflow": 0}).findings[0]

    assert found.id == "plan-utilisation"
    assert f"to {chosen.connections}, of which" in found.remedy
    assert f"{chosen.predicted.queue.utilisation:.0%}" in found.remedy


def test_an_impossible_load_is_told_so() -> None:
    made = plan({"rate": 1_000_000, "query_time": "1h"})

    assert made.shortfall is not None
    assert made.shortfall.connections is None
    assert made.findings[0].id == "plan-utilisation"
    assert made.findings[0].severity is Severity.CRITICAL
    assert "Set pool_size" not in " ".join(each.remedy for each in made.findings)
    assert max(made.pool_size, made.max_overflow) <= 1000


def test_a_load_that_no_pooler_has_connections_for_is_told_so() -> None:
    made = plan(
        {
            "rate": 3847,
            "query_time": 1.33,
            "workers": 29,
            "instances": 18,
            "utilisation": 0.05,
            "proxy": "pgbouncer",
        }
    )

    assert wrong(made) == {"connection-budget"}
    assert made.shortfall is not None


def test_times_from_few_checkouts_are_a_warning() -> None:
    asked = {"rate": 10, "query_time": 0.01}

    assert wrong(plan({**asked, "sample": 12})) == {"plan-sample"}
    assert wrong(plan({**asked, "sample": 1000})) == set()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "< 1 us"),
        (1.45e-58, "< 1 us"),
        (9.996e-7, "1 us"),
        (0.000274, "274 us"),
        (0.0009999, "1 ms"),
        (0.00784, "7.84 ms"),
        (0.9999, "1 s"),
        (3600, "3,600 s"),
    ],
)
def test_durations_are_shown_as_people_write_them(seconds: float, text: str) -> None:
    assert shown(seconds) == text


@given(st.floats(0, 1e12))
def test_no_number_is_shown_with_an_exponent(number: float) -> None:
    for text in (shown(number), shown_rate(number), shown_share(number)):
        assert not re.search(r"\de[+-]?\d", text)


def test_rates_are_shown_as_people_write_them() -> None:
    assert [shown_rate(each) for each in (10_000, 999.96, 3749, 36.0, 1 / 60, 1e-9)] == [
        "10,000",
        "1,000",
        "3,749",
        "36",
        "0.017",
        "< 0.001",
    ]
