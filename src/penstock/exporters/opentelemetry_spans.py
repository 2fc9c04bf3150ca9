"""Spans of statements and of checkouts for OpenTelemetry; they never contain a value.

Names and attributes follow the semantic conventions 1.44.0,
https://opentelemetry.io/docs/specs/semconv/database/.
"""

import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from sqlalchemy import Connection, Engine, ExceptionContext, ExecutionContext, event

from penstock.drivers.sql_text import shape
from penstock.pool.events import CheckedOut, CheckoutRejected, PoolEvent

COLLECTION = "db.collection.name"
NAMESPACE = "db.namespace"
OPERATION = "db.operation.name"
BATCH_SIZE = "db.operation.batch.size"
QUERY_SUMMARY = "db.query.summary"
QUERY_TEXT = "db.query.text"
RETURNED_ROWS = "db.response.returned_rows"
STATUS_CODE = "db.response.status_code"
SYSTEM = "db.system.name"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
EXCEPTION = "exception"
EXCEPTION_TYPE = "exception.type"
EXCEPTION_STACKTRACE = "exception.stacktrace"

LONGEST_TEXT = 2000
"""Characters of a statement that a span has."""
SEARCHED_TEXT = 10_000
"""Characters of a statement that are searched for its table."""
CACHE_SIZE = 500
"""Statements whose description is cached, as many as SQLAlchemy keeps compiled."""

_QUOTED_NAME = r'"(?:[^"]|"")*"|`[^`]*`'
_WORD = re.compile(rf"[()]|(?:{_QUOTED_NAME}|[\w$])(?:\.?(?:{_QUOTED_NAME}|[\w$]))*")

_BEFORE_THE_TABLE = {
    "SELECT": "FROM",
    "INSERT": "INTO",
    "UPDATE": "UPDATE",
    "DELETE": "FROM",
    "MERGE": "INTO",
    "COPY": "COPY",
}
"""Keywords that precede the table, by operation."""


@dataclass(frozen=True, slots=True)
class Described:
    """The description of a statement in its span.

    Args:
        operation: Its first keyword, such as ``SELECT``; empty when there is none.
        table: First table that it reads or writes; empty when none was found.
        text: The statement on one line, with ``?`` in place of each value.
    """

    operation: str
    table: str
    text: str

    def name(self, batch: int) -> str:
        """Return the span's name, such as ``SELECT users``; empty when nothing is known.

        Args:
            batch: Number of parameter sets in a batch; 0 for a single statement.
        """
        words = ("BATCH" if batch > 1 else "", self.operation, self.table)
        return " ".join(word for word in words if word)

    def attributes(self, batch: int) -> dict[str, str | int]:
        """Return the span's attributes.

        Args:
            batch: Number of parameter sets in a batch; 0 for a single statement.
        """
        known: dict[str, str | int] = {QUERY_TEXT: self.text}
        if name := self.name(batch):
            known[QUERY_SUMMARY] = name
        if self.operation:
            known[OPERATION] = f"BATCH {self.operation}" if batch > 1 else self.operation
        if self.table:
            known[COLLECTION] = self.table
        if batch > 1:
            known[BATCH_SIZE] = batch
        return known


def describer(system: str) -> Callable[[str], Described]:
    """Return a cached function that describes the statements of one database.

    Args:
        system: Database system, such as ``postgresql``, whose rules for literals apply.
    """
    is_mysql = system in {"mysql", "mariadb"}

    @lru_cache(maxsize=CACHE_SIZE)
    def described(sql: str) -> Described:
        text = shape(sql, is_mysql=is_mysql, longest=SEARCHED_TEXT)
        operation, table = _summary(text)
        return Described(operation, table, text[:LONGEST_TEXT])

    return described


def _summary(text: str) -> tuple[str, str]:
    """Return the operation of a statement and its first table."""
    words = _outer_words(text)
    operation = next(words, "").strip("(")
    if operation.upper() == "WITH":
        operation = next((word for word in words if word.upper() in _BEFORE_THE_TABLE), operation)
    marker = _BEFORE_THE_TABLE.get(operation.upper())
    return operation, "" if marker is None else _word_after(marker, operation, words)


def _word_after(marker: str, before: str, words: Iterator[str]) -> str:
    for word in words:
        if before.upper() == marker and word.upper() != "ONLY":
            return word.strip("(")  # a subquery, not a table
        if before.upper() == "DISTINCT" and word.upper() == "FROM":
            before = ""  # the comparison IS DISTINCT FROM
        elif word.upper() != "ONLY":
            before = word
    return ""


def _outer_words(text: str) -> Iterator[str]:
    """Yield the words outside of parentheses, and each outermost opening parenthesis."""
    depth = 0
    for match in _WORD.finditer(text):
        word = match[0]
        if word == ")":
            depth -= 1
            continue
        if depth == 0:
            yield word
        if word == "(":
            depth += 1


class StatementSpans:
    """Starts and ends the spans of one database's statements.

    Args:
        tracer: Starts the spans, as children of the current span.
        attributes: Attributes of each span, the system among them.
    """

    def __init__(self, tracer: Tracer, attributes: Mapping[str, str | int]) -> None:
        self._tracer = tracer
        self._attributes = attributes
        self._system = str(attributes[SYSTEM])
        self._describe = describer(self._system)

    def begin(self, sql: str, batch: int = 0) -> Span:
        """Start a span.

        Args:
            sql: The statement; its literals are left out.
            batch: Number of parameter sets in a batch; 0 for a single statement.
        """
        described = self._describe(sql)
        return self._tracer.start_span(
            described.name(batch) or self._system,
            kind=SpanKind.CLIENT,
            attributes={**self._attributes, **described.attributes(batch)},
        )

    @staticmethod
    def succeed(span: Span, rows: int | None) -> None:
        """End the span of a statement that succeeded.

        Args:
            span: The span from :meth:`begin`.
            rows: Number of rows that the statement returned; None when it returns no rows.
        """
        if rows is not None:
            span.set_attribute(RETURNED_ROWS, rows)
        span.end()

    @staticmethod
    def fail(span: Span, error: BaseException) -> None:
        """End the span of a statement that failed.

        The error's message is left out, because it may quote rows of the database.

        Args:
            span: The span from :meth:`begin`.
            error: The driver's error; its SQLSTATE becomes an attribute.
        """
        cause = _drivers_own(error)
        kind = f"{type(cause).__module__}.{type(cause).__qualname__}".removeprefix("builtins.")
        sqlstate = getattr(cause, "sqlstate", None)
        if sqlstate:
            span.set_attribute(STATUS_CODE, sqlstate)
        span.set_attribute(ERROR_TYPE, sqlstate or kind)
        stack = "".join(traceback.format_tb(cause.__traceback__))
        span.add_event(EXCEPTION, {EXCEPTION_TYPE: kind, EXCEPTION_STACKTRACE: stack})
        span.set_status(Status(StatusCode.ERROR, kind))
        span.end()

    @contextmanager
    def of(self, sql: str, batch: int = 0) -> Iterator[Span]:
        """Start a span and yield it to a block, which ends it by :meth:`succeed`.

        An error in the block ends the span and is raised again.

        Args:
            sql: The statement; its literals are left out.
            batch: Number of parameter sets in a batch; 0 for a single statement.
        """
        span = self.begin(sql, batch)
        try:
            yield span
        except BaseException as error:
            self.fail(span, error)
            raise


def _drivers_own(error: BaseException) -> BaseException:
    """Return the driver's error behind the error of SQLAlchemy's adapter."""
    is_adapted = type(error).__module__.startswith("sqlalchemy.")
    return error.__cause__ if is_adapted and error.__cause__ else error


class SessionSpans:
    """Makes a span of each statement of an engine's sessions and connections.

    Args:
        spans: Starts and ends the spans.
    """

    def __init__(self, spans: StatementSpans) -> None:
        self._spans = spans
        self._begun: WeakKeyDictionary[ExecutionContext, Span] = WeakKeyDictionary()
        self._events: dict[str, Callable[..., None]] = {
            "before_cursor_execute": self._before,
            "after_cursor_execute": self._after,
            "handle_error": self._failed,
        }

    def listen_to(self, engine: Engine) -> None:
        """Start making spans of an engine's statements."""
        for name, listener in self._events.items():
            event.listen(engine, name, listener)

    def leave(self, engine: Engine) -> None:
        """Stop making spans of an engine's statements."""
        for name, listener in self._events.items():
            event.remove(engine, name, listener)

    def _before(
        self,
        _connection: Connection,
        _cursor: Any,
        statement: str,
        parameters: Any,
        context: ExecutionContext | None,
        executemany: bool,
    ) -> None:
        if context is None:
            return
        batch = len(parameters) if executemany and isinstance(parameters, list) else 0
        self._begun[context] = self._spans.begin(statement, batch)

    def _after(
        self,
        _connection: Connection,
        cursor: Any,
        _statement: str,
        _parameters: Any,
        context: ExecutionContext | None,
        _executemany: bool,
    ) -> None:
        span = self._taken(context)
        if span is not None:
            rows = cursor.rowcount if cursor.description else -1
            self._spans.succeed(span, rows if rows >= 0 else None)

    def _failed(self, failure: ExceptionContext) -> None:
        span = self._taken(failure.execution_context)
        if span is not None:
            self._spans.fail(span, failure.original_exception)

    def _taken(self, context: ExecutionContext | None) -> Span | None:
        return None if context is None else self._begun.pop(context, None)


CHECKOUT = "penstock checkout"
"""Name of the span of a checkout, for which the conventions have none."""


class PoolSpans:
    """Makes a span of each checkout that waited or failed, in the caller's task.

    Checking out an idle connection takes microseconds and has no span.

    Args:
        tracer: Starts the spans.
        attributes: Attributes of each span.
        clock: Returns Unix time in nanoseconds.
    """

    def __init__(
        self,
        tracer: Tracer,
        attributes: Mapping[str, str | int],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._tracer = tracer
        self._attributes = attributes
        self._clock = clock

    def __call__(self, event: PoolEvent) -> None:
        """Make a span of a checkout that has ended."""
        match event:
            case CheckedOut(waited) if waited > 0.0:
                self._span(waited)
            case CheckoutRejected(why, waited):
                self._span(waited, why.value)
            case _:
                pass

    def _span(self, seconds: float, error: str | None = None) -> None:
        ended = self._clock()
        span = self._tracer.start_span(
            CHECKOUT, attributes=self._attributes, start_time=ended - int(seconds * 1e9)
        )
        if error is not None:
            span.set_attribute(ERROR_TYPE, error)
            span.set_status(Status(StatusCode.ERROR, f"No connection from the pool: {error}"))
        span.end(ended)
