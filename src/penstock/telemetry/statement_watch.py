"""Statements as they run: slow ones, those that one request repeats, and the last of a lease."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import Any, Protocol

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.drivers.sql_text import shape
from penstock.log_limit import LogLimit
from penstock.pool.record import STATEMENT_KEY, current_route
from penstock.telemetry.reading import NO_ROUTE

_logger = logging.getLogger("penstock.slow_queries")

REPEATED = 10
"""Number of times that one request runs a statement before it is reported."""
DISTINCT = 200
"""Different statements that are counted in one request; a loop repeats one of the first."""
IDLE_IN_TRANSACTION_KEY = "penstock_idle_since"
"""Key in a connection's ``info`` of the monotonic time at which its last statement ended; infinity
while one runs."""

RequestStatements = dict["StatementWatch", dict[str, int]]
request_statements: ContextVar[RequestStatements | None] = ContextVar(
    "request_statements", default=None
)
"""How often the current request has run each statement, by database; empty at its start, and None
outside requests."""


class StatementSink(Protocol):
    """Receives slow and repeated statements."""

    def slow(self, statement: str, route: str, seconds: float, rows: int) -> None:
        """Record a statement that took longer than the threshold.

        Args:
            statement: Its shape, without values.
            route: The route that ran it, or ``(no route)``.
            seconds: Its duration.
            rows: Number of rows that it returned or changed; 0 when unknown.
        """

    def repeated(self, statement: str, route: str, times: int) -> None:
        """Record a statement that one request ran many times.

        Args:
            statement: Its shape, without values.
            route: The request's route.
            times: How often the request ran it.
        """


class StatementWatch:
    """Logs the slow statements of one database, and reports slow and repeated ones.

    Args:
        threshold: Seconds above which a statement is slow; None to report no slow statements.
        sink: Receives the reports; None to only log.
        clock: Returns seconds; for the rate limit of the log.

    Attributes:
        slow_after: The threshold in seconds, or infinity; code that times a statement compares
            its duration with it.
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

    def count(self, statement: str, request: RequestStatements | None = None) -> None:
        """Count a statement that is about to run; does nothing outside requests.

        Args:
            statement: The statement as it is sent.
            request: Where those of the current request are counted, if it is at hand.
        """
        request = request_statements.get() if request is None else request
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
        """Log and report a statement that took longer than ``slow_after``. It never raises.

        Args:
            statement: The statement as it was sent.
            seconds: Its duration.
            rows: Number of rows that it returned or changed; 0 when unknown.
        """
        find_route = current_route()
        try:
            route = NO_ROUTE if find_route is None else find_route()
            text = shape(statement, is_mysql=self.is_mysql)
            self._log(text, route, seconds, rows)
            if self._sink is not None:
                self._sink.slow(text, route, seconds, rows)
        except Exception:
            _logger.exception("Could not report a slow statement")

    def _log(self, text: str, route: str, seconds: float, rows: int) -> None:
        left_out = self._log_limit.passes()
        if left_out is None:
            return
        if left_out:
            _logger.warning("%d slow statements were not logged", left_out)
        _logger.warning("%s took %.0f ms, %d rows: %s", route, 1000 * seconds, rows, text)

    def request_ended(self, counts: Mapping[str, int], route: Callable[[], str]) -> None:
        """Report the statements that a request has run 10 times or more. It never raises.

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
            _logger.exception("Could not report a repeated statement")


def report_repeated(
    statements: Mapping[StatementWatch, Mapping[str, int]], route: Callable[[], str]
) -> None:
    """Report the statements that a request repeated before its response left. It never raises.

    Args:
        statements: The value of ``request_statements`` at that moment.
        route: Returns the request's route; called only when there is something to report.
    """
    for watch, counts in statements.items():
        watch.request_ended(counts, route)


def record_statements(engine: Engine) -> None:
    """Give the pool's report of a leak the last statement, without its values.

    Args:
        engine: Whose statements; nothing has run on it yet.
    """
    # The dialect's events: with a listener to one of the engine's, it takes a slower path.
    event.listen(engine, "do_execute", _record)
    event.listen(engine, "do_executemany", _record)
    event.listen(engine, "do_execute_no_params", _record_without_parameters)


def watch_statements(engine: AsyncEngine, watch: StatementWatch | None) -> None:
    """Time the statements of an engine, and count those of a request.

    Args:
        engine: Whose statements, and those of every engine made from it.
        watch: Counts and times statements, in place of the one before; None for none.
    """
    dialect: Any = engine.sync_engine.dialect
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        vars(dialect).pop(name, None)
    if watch is None:
        return
    watch.is_mysql = dialect.name in ("mysql", "mariadb")
    # In the place of the dialect's own: a listener to its events that executes a statement by
    # itself keeps it from all others.
    dialect.do_execute = _timed(dialect.do_execute, watch)
    dialect.do_executemany = _timed(dialect.do_executemany, watch)
    untimed = dialect.do_execute_no_params
    timed = _timed(lambda cursor, statement, _, context: untimed(cursor, statement, context), watch)
    dialect.do_execute_no_params = lambda cursor, statement, context=None: timed(
        cursor, statement, (), context
    )


def _timed(run: Callable[..., None], watch: StatementWatch) -> Callable[..., None]:
    def execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        info = _info(context)
        # The batches of one INSERT are no repetition.
        if context is None or context.execute_style is not ExecuteStyle.INSERTMANYVALUES:
            watch.count(statement)
        info[IDLE_IN_TRANSACTION_KEY] = inf
        began = monotonic()
        try:
            run(cursor, statement, parameters, context)
        finally:
            ended = info[IDLE_IN_TRANSACTION_KEY] = monotonic()
            if ended - began > watch.slow_after:
                watch.slow(statement, ended - began, _rows(cursor))

    return execute


def _info(context: Any) -> dict[Any, Any]:
    if context is None:
        return {}
    try:
        info: dict[Any, Any] = context.root_connection.connection.info
    except NotImplementedError:  # while the dialect looks at its first connection
        return {}
    return info


def _rows(cursor: Any) -> int:
    count: int = getattr(cursor, "rowcount", -1)
    # Not every driver counts what a SELECT returns; SQLAlchemy has read it all, or it is a stream.
    return count if count >= 0 else len(getattr(cursor, "_rows", ()))


def _record(_cursor: Any, statement: str, _parameters: Any, context: Any) -> None:
    _info(context)[STATEMENT_KEY] = statement


def _record_without_parameters(_cursor: Any, statement: str, context: Any) -> None:
    _info(context)[STATEMENT_KEY] = statement
