"""From the answers to queries to the results of checks."""

import pytest
from tests.unit.doctor.rows import HEALTHY

from penstock.doctor import CHECKS, Examination
from penstock.doctor.check import Row, Rows
from penstock.doctor.examination import Result, evaluate
from penstock.findings import Finding

SEES_ALL = {"sees_all_sessions": True, "role": "app"}
SEES_OWN = {"sees_all_sessions": False, "role": "app"}
BLOCKED = HEALTHY["blocked"]


def result(answer: Rows | str, server: Row = SEES_ALL, check: str = "blocked-session") -> Result:
    (only,) = evaluate([CHECKS[check]], {CHECKS[check].query: answer}, server)
    return only


def test_rows_without_a_fault_are_ok() -> None:
    assert result([BLOCKED]).status == "ok"
    assert result([BLOCKED]).finding is None


def test_a_query_without_an_answer_is_skipped_and_never_ok() -> None:
    assert result("no right").status == "skipped"
    assert result("no right").skipped == "no right"


def test_nothing_wrong_among_own_sessions_is_skipped_and_something_is_found() -> None:
    assert result([BLOCKED], SEES_OWN).status == "skipped"
    assert result([{**BLOCKED, "seconds": 2.0}], SEES_OWN).status == "warning"


def test_a_rule_that_cannot_know_is_skipped() -> None:
    assert result([], check="fsync-off").skipped == "this role sees no setting fsync on this server"


def test_what_is_found_is_a_finding_as_every_room_has_it() -> None:
    found = result([{**BLOCKED, "seconds": 2.0}])

    assert isinstance(found.finding, Finding)
    assert found.finding.id == "blocked-session"
    assert str(found.finding).startswith("blocked-session: 1 session blocked by a lock")


@pytest.mark.parametrize(
    ("seconds", "status"), [((0.0,), 0), ((2.0, 0.0), 1), ((2.0, 99.0, 0.0), 2)]
)
def test_the_exit_status_is_of_the_gravest_finding(seconds: tuple[float, ...], status: int) -> None:
    results = tuple(result([{**BLOCKED, "seconds": each}]) for each in seconds)

    assert Examination("PostgreSQL", 0.1, results).exit_status == status


def test_what_is_skipped_or_merely_told_is_no_failure() -> None:
    told = result([{**HEALTHY["connections"], "is_unnamed": True}], check="unnamed-application")

    assert told.status == "info"
    assert Examination("PostgreSQL", 0.1, (told, result("no right"))).exit_status == 0
