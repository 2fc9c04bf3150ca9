"""What becomes of a slow statement and of one that a request repeats."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from penstock.pool import Holder, current_holder
from penstock.telemetry.statement_watch import (
    DISTINCT,
    StatementWatch,
    report_repeated,
    request_statements,
)


class Reports:
    """A sink that keeps what is reported."""

    def __init__(self) -> None:
        self.slow_ones: list[tuple[str, str, float, int]] = []
        self.repeated_ones: list[tuple[str, str, int]] = []

    def slow(self, statement: str, route: str, seconds: float, rows: int) -> None:
        self.slow_ones.append((statement, route, seconds, rows))

    def repeated(self, statement: str, route: str, times: int) -> None:
        self.repeated_ones.append((statement, route, times))


class Failing(Reports):
    """A sink that cannot keep anything."""

    def slow(self, statement: str, route: str, seconds: float, rows: int) -> None:
        raise OSError

    def repeated(self, statement: str, route: str, times: int) -> None:
        raise OSError


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def request(route: str) -> Iterator[None]:
    """Be a request, as the middleware makes one known."""
    statements: dict[StatementWatch, dict[str, int]] = {}
    token, holder = request_statements.set(statements), current_holder.set(Holder(lambda: route))
    yield
    request_statements.reset(token)
    current_holder.reset(holder)
    report_repeated(statements, lambda: route)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_slow_statement_is_a_line_and_is_reported_without_its_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reported = Reports()
    watch = StatementWatch(0.1, reported)

    with request("GET /users/{id}"):
        watch.slow("SELECT *\nFROM users WHERE name = 'secret' AND id = $1", 0.3124, 7)

    text = "SELECT * FROM users WHERE name = ? AND id = ?"
    assert reported.slow_ones == [(text, "GET /users/{id}", 0.3124, 7)]
    assert caplog.record_tuples == [
        (
            "penstock.slow_queries",
            logging.WARNING,
            f"GET /users/{{id}} took 312 ms, 7 rows: {text}",
        )
    ]


def test_outside_requests_there_is_no_route() -> None:
    reported = Reports()
    StatementWatch(0.1, reported).slow("SELECT", 0.2, 0)

    assert reported.slow_ones == [("SELECT", "(no route)", 0.2, 0)]


def test_nothing_is_slow_where_the_threshold_is_off() -> None:
    assert StatementWatch(None).slow_after == float("inf")
    assert StatementWatch(0.5).slow_after == 0.5


def test_a_storm_of_slow_statements_is_ten_lines_a_second_and_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reported, clock = Reports(), Clock()
    watch = StatementWatch(0.1, reported, clock)

    for _ in range(1000):
        watch.slow("SELECT", 0.2, 1)
    assert len(lines(caplog)) == 10
    clock.now += 1.0
    watch.slow("SELECT", 0.2, 1)

    assert lines(caplog)[10:] == [
        "990 slow statements were not logged",
        "(no route) took 200 ms, 1 rows: SELECT",
    ]
    assert len(reported.slow_ones) == 1001


def test_what_a_request_repeats_is_reported_once_with_its_route() -> None:
    reported = Reports()
    watch = StatementWatch(None, reported)

    with request("GET /orders"):
        watch.count("SELECT a FROM orders")
        for number in range(12):
            watch.count(f"SELECT b FROM users WHERE id = {number}")
        for _ in range(9):
            watch.count("SELECT c FROM teams")

    assert reported.repeated_ones == [("SELECT b FROM users WHERE id = ?", "GET /orders", 12)]


def test_nothing_is_reported_of_nine_or_of_what_runs_outside_requests() -> None:
    reported = Reports()
    watch = StatementWatch(None, reported)

    with request("GET /"):
        for _ in range(9):
            watch.count("SELECT 1")
    for _ in range(12):
        watch.count("SELECT 1")

    assert reported.repeated_ones == []


def test_each_database_reports_its_own_statements() -> None:
    one, two = Reports(), Reports()
    watches = StatementWatch(None, one), StatementWatch(None, two)

    with request("GET /"):
        for _ in range(6):
            for watch in watches:
                watch.count("SELECT a")
        for _ in range(10):
            watches[1].count("SELECT b")

    assert one.repeated_ones == []
    assert two.repeated_ones == [("SELECT b", "GET /", 10)]


def test_the_statements_of_one_request_are_counted_up_to_a_bound() -> None:
    watch, statements = StatementWatch(None, Reports()), dict[StatementWatch, dict[str, int]]()
    token = request_statements.set(statements)

    for number in range(10 * DISTINCT):
        watch.count(f"SELECT a{number}")
    watch.count("SELECT a0")
    request_statements.reset(token)

    assert len(statements[watch]) == DISTINCT == 200
    assert statements[watch]["SELECT a0"] == 2


def test_a_sink_that_fails_breaks_no_statement_and_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = StatementWatch(0.1, Failing())

    with request("GET /"):
        watch.slow("SELECT 1", 0.2, 1)
        for _ in range(10):
            watch.count("SELECT 1")

    assert lines(caplog)[1:] == [
        "Could not report a slow statement",
        "Could not report a repeated statement",
    ]


def test_mysqls_quotes_are_those_of_a_text() -> None:
    reported = Reports()
    watch = StatementWatch(0.1, reported)
    watch.is_mysql = True

    watch.slow('SELECT "secret"', 0.2, 1)

    assert reported.slow_ones[0][0] == "SELECT ?"
