"""What is said about statements, and when it is not said."""

from dataclasses import replace

from tests.told import advised, numbers
from tests.unit.telemetry.test_rules import NOW, finding, reading, said, worker

from penstock.findings import Severity
from penstock.telemetry.reading import Reading, StatementUse
from penstock.telemetry.schema import Histogram

USE = StatementUse(
    statement="SELECT items.id FROM items WHERE items.order_id = $1",
    route="GET /orders",
    calls=0,
    seconds=0.0,
    longest=0.0,
    rows=0,
    most_in_request=37,
    last_at=NOW - 5,
)
SLOW = replace(USE, most_in_request=0, calls=100, seconds=60.0, longest=2.5, rows=100)


def ran(*uses: StatementUse, hold: float = 100.0) -> Reading:
    return reading(replace(worker(), statements=uses, histograms={"hold": Histogram(seconds=hold)}))


def test_a_statement_that_a_request_repeats_is_found() -> None:
    found = finding(ran(USE), "n-plus-one")

    assert found.severity is Severity.WARNING
    assert numbers(found.evidence.replace(USE.statement, "")) == ["37"]
    assert USE.route in found.evidence
    assert USE.statement in found.evidence
    assert "37" in numbers(found.remedy)
    assert "selectinload()" in found.remedy


def test_the_one_that_is_repeated_most_stands_for_the_others() -> None:
    more = replace(USE, statement="SELECT 1", most_in_request=90)

    found = finding(ran(USE, more), "n-plus-one")

    assert numbers(found.evidence) == ["90", "1", "1"]
    assert "SELECT 1" in found.evidence
    assert USE.statement not in found.evidence


def test_a_statement_that_a_request_runs_a_few_times_is_not() -> None:
    assert said(ran(replace(USE, most_in_request=9)), "n-plus-one") is None
    assert said(ran(replace(USE, most_in_request=10)), "n-plus-one")


def test_a_statement_that_was_repeated_long_ago_is_not() -> None:
    assert said(ran(replace(USE, last_at=NOW - 900)), "n-plus-one") is None


def test_a_slow_statement_that_takes_most_of_the_time_is_found() -> None:
    found = finding(ran(SLOW), "slow-statement")

    assert found.severity is Severity.INFO
    told = found.evidence.replace(SLOW.statement, "")
    assert numbers(told) == ["60 s", "100 s", "100", "0.60 s", "2.50 s"]
    assert SLOW.route in found.evidence
    assert SLOW.statement in found.evidence
    assert "60%" in found.remedy
    assert advised(found.remedy)["command_timeout"] == "3"


def test_a_slow_statement_that_is_one_of_many_is_not() -> None:
    assert said(ran(SLOW, hold=120.0), "slow-statement") is None
    assert said(ran(replace(SLOW, calls=9)), "slow-statement") is None
    assert said(ran(replace(SLOW, seconds=59.0), hold=59.0), "slow-statement") is None
    assert said(ran(replace(SLOW, last_at=NOW - 900)), "slow-statement") is None
