"""Statements that are slow, and those that one request runs again and again."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import Protocol

from penstock.drivers.sql_text import shape
from penstock.log_limit import LogLimit
from penstock.pool.lease import holder_route

__all__ = [
    "RequestStatements",
    "StatementSink",
    "StatementWatch",
    "report_repeated",
    "request_statements",
]

_logger = logging.getLogger("penstock.slow_queries")

REPEATED = 10
"""How often one request runs a statement before that is remarkable."""
DISTINCT = 200
"""Statements that are counted in one request; what is repeated in a loop comes long before."""
NO_ROUTE = "(no route)"

RequestStatements = dict["StatementWatch", dict[str, int]]
request_statements: ContextVar[RequestStatements | None] = ContextVar(
    "request_statements", default=None
)
"""How often the request that is running has run each statement, of each database; an empty
dictionary at its beginning, and None outside requests."""


class StatementSink(Protocol):
    """Who keeps what is found."""

    def slow(self, statement: str, route: str, seconds: float, rows: int) -> None:
        """Record a statement that took longer than the threshold.

        Args:
            statement: Its shape, without values.
            route: Who ran it, or ``(no route)``.
            seconds: What it took.
            rows: What it returned or changed, as far as that is known.
        """

    def repeated(self, statement: str, route: str, times: int) -> None:
        """Record a statement that one request ran remarkably often.

        Args:
            statement: As above.
            route: Of the request.
            times: How often.
        """


class StatementWatch:
    """Logs the slow statements of one database, and tells of them and of repeated ones.

    Args:
        threshold: Seconds above which a statement is slow; None if none is.
        sink: Who is told; None for the log alone.
        clock: Gives seconds; for the limit of the log.

    Attributes:
        slow_after: The threshold, or infinity: whoever times a statement compares with it.
        is_mysql: Whether the statements are written for MySQL or MariaDB.
    """

    def __init__(
        self,
        threshold: float | None,
        sink: StatementSink | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.slow_after = inf if threshold is None else threshold
        self.is_mysql = False
        self._sink = sink
        self._log_limit = LogLimit(clock)

    def count(self, statement: str) -> None:
        """Count a statement that is about to run, if a request runs it."""
        request = request_statements.get()
        if request is None:
            return
        counts = request.get(self)
        if counts is None:
            counts = request[self] = {}
        if statement in counts:
            counts[statement] += 1
        elif len(counts) < DISTINCT:
            counts[statement] = 1

    def slow(self, statement: str, seconds: float, rows: int) -> None:
        """Report a statement that took longer than ``slow_after``. It raises nothing.

        Args:
            statement: As it was sent.
            seconds: What it took.
            rows: What it returned or changed; 0 where that is not known.
        """
        find_route = holder_route.get()
        try:
            route = NO_ROUTE if find_route is None else find_route()
            text = shape(statement, is_mysql=self.is_mysql)
            self._log(text, route, seconds, rows)
            if self._sink is not None:
                self._sink.slow(text, route, seconds, rows)
        except Exception:
            _logger.exception("A slow statement could not be reported")

    def _log(self, text: str, route: str, seconds: float, rows: int) -> None:
        left_out = self._log_limit.passes()
        if left_out is None:
            return
        if left_out:
            _logger.warning("%d slow statements were left out of this log", left_out)
        _logger.warning("%s took %.0f ms, %d rows: %s", route, 1000 * seconds, rows, text)

    def request_ended(self, counts: Mapping[str, int], route: Callable[[], str]) -> None:
        """Report what a request has run ten times or more. It raises nothing.

        Args:
            counts: How often it has run each statement.
            route: Returns the request's route.
        """
        if self._sink is None or sum(counts.values()) < REPEATED:
            return
        shapes: Counter[str] = Counter()
        for statement, times in counts.items():
            shapes[shape(statement, is_mysql=self.is_mysql)] += times
        try:
            for text, times in shapes.items():
                if times >= REPEATED:
                    self._sink.repeated(text, route(), times)
        except Exception:
            _logger.exception("A repeated statement could not be reported")


def report_repeated(
    statements: Mapping[StatementWatch, Mapping[str, int]], route: Callable[[], str]
) -> None:
    """Report what a request ran again and again until its response left. It raises nothing.

    Args:
        statements: What ``request_statements`` has held until then.
        route: Returns the request's route; called only when there is something to report.
    """
    for watch, counts in statements.items():
        watch.request_ended(counts, route)
