"""A span for each statement, without any value of its parameters or errors."""

import re
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
from penstock.exporters.opentelemetry import conventions as names

__all__ = ["LONGEST_TEXT", "Described", "SessionSpans", "StatementSpans", "describer"]

LONGEST_TEXT = 2000
"""Characters of a statement that are kept."""
LOOKED_AT = 10_000
"""Characters in which its table is looked for."""
REMEMBERED = 500
"""Statements that are described once, as many as SQLAlchemy keeps compiled."""

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
"""By what a statement does, the word that its table follows."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a span says of its statement.

    Args:
        operation: Such as ``SELECT``; empty where there is no word.
        table: That it reads or writes first; empty where none was found.
        text: On one line, with ``?`` in the place of each value.
    """

    operation: str
    table: str
    text: str

    def name(self, batch: int) -> str:
        """Return the span's name, such as ``SELECT users``; empty where nothing is known.

        Args:
            batch: How many statements there are in one; 0 for the one.
        """
        words = ("BATCH" if batch > 1 else "", self.operation, self.table)
        return " ".join(word for word in words if word)

    def attributes(self, batch: int) -> dict[str, str | int]:
        """Return the span's attributes, as above."""
        known: dict[str, str | int] = {names.QUERY_TEXT: self.text}
        if name := self.name(batch):
            known[names.QUERY_SUMMARY] = name
        if self.operation:
            known[names.OPERATION] = f"BATCH {self.operation}" if batch > 1 else self.operation
        if self.table:
            known[names.COLLECTION] = self.table
        if batch > 1:
            known[names.BATCH_SIZE] = batch
        return known


def describer(system: str) -> Callable[[str], Described]:
    """Return what describes the statements of one database, and remembers the recent ones.

    Args:
        system: Such as ``postgresql``: where a literal ends is not the same for all.
    """
    is_mysql = system in {"mysql", "mariadb"}

    @lru_cache(maxsize=REMEMBERED)
    def described(sql: str) -> Described:
        text = shape(sql, is_mysql=is_mysql, longest=LOOKED_AT)
        operation, table = _summary(text)
        return Described(operation, table, text[:LONGEST_TEXT])

    return described


def _summary(text: str) -> tuple[str, str]:
    """Return what a statement does, and the first table that it does it to."""
    words = _outer_words(text)
    operation = next(words, "").strip("(")
    if operation.upper() == "WITH":
        operation = next((word for word in words if word.upper() in _BEFORE_THE_TABLE), operation)
    marker = _BEFORE_THE_TABLE.get(operation.upper())
    return operation, "" if marker is None else _word_after(marker, operation, words)


def _word_after(marker: str, before: str, words: Iterator[str]) -> str:
    for word in words:
        if before.upper() == marker and word.upper() != "ONLY":
            return word.strip("(")  # a subquery is no table
        if before.upper() == "DISTINCT" and word.upper() == "FROM":
            before = ""  # of a comparison: IS DISTINCT FROM
        elif word.upper() != "ONLY":
            before = word
    return ""


def _outer_words(text: str) -> Iterator[str]:
    """Return the words outside of parentheses, and each parenthesis that opens there."""
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
    """Begins and ends the spans of one database's statements.

    Args:
        tracer: Makes them, below the span that is current.
        attributes: Which each of them has, the system among them.
    """

    def __init__(self, tracer: Tracer, attributes: Mapping[str, str | int]) -> None:
        self._tracer = tracer
        self._attributes = attributes
        self._system = str(attributes[names.SYSTEM])
        self._describe = describer(self._system)

    def begin(self, sql: str, batch: int = 0) -> Span:
        """Begin a span.

        Args:
            sql: The statement; what is literal in it is left out.
            batch: How many sets of values it is run for, where that are several.
        """
        described = self._describe(sql)
        return self._tracer.start_span(
            described.name(batch) or self._system,
            kind=SpanKind.CLIENT,
            attributes={**self._attributes, **described.attributes(batch)},
        )

    @staticmethod
    def succeed(span: Span, rows: int | None) -> None:
        """End a span.

        Args:
            span: From :meth:`begin`.
            rows: How many the statement returned; None where it returns none.
        """
        if rows is not None:
            span.set_attribute(names.RETURNED_ROWS, rows)
        span.end()

    @staticmethod
    def fail(span: Span, error: BaseException) -> None:
        """End a span whose statement has failed.

        An error's message is left out: it may quote a row that was there already.

        Args:
            span: As above.
            error: The driver's, whose SQLSTATE is told if it has one.
        """
        cause = _drivers_own(error)
        kind = f"{type(cause).__module__}.{type(cause).__qualname__}".removeprefix("builtins.")
        sqlstate = getattr(cause, "sqlstate", None)
        if sqlstate:
            span.set_attribute(names.STATUS_CODE, sqlstate)
        span.set_attribute(names.ERROR_TYPE, sqlstate or kind)
        stack = "".join(traceback.format_tb(cause.__traceback__))
        span.add_event(
            names.EXCEPTION, {names.EXCEPTION_TYPE: kind, names.EXCEPTION_STACKTRACE: stack}
        )
        span.set_status(Status(StatusCode.ERROR, kind))
        span.end()

    @contextmanager
    def of(self, sql: str, batch: int = 0) -> Iterator[Span]:
        """Give a span for the length of a block, which ends it where it does not fail.

        Args:
            sql: As for :meth:`begin`, as is the last.
            batch: As above.
        """
        span = self.begin(sql, batch)
        try:
            yield span
        except BaseException as error:
            self.fail(span, error)
            raise


def _drivers_own(error: BaseException) -> BaseException:
    """Return the error that SQLAlchemy's adapter of a driver has put into its own words."""
    is_adapted = type(error).__module__.startswith("sqlalchemy.")
    return error.__cause__ if is_adapted and error.__cause__ else error


class SessionSpans:
    """Listens to an engine's cursors.

    Args:
        spans: Begins and ends the spans.
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
        """Make a span of each statement from now on."""
        for name, listener in self._events.items():
            event.listen(engine, name, listener)

    def leave(self, engine: Engine) -> None:
        """Make no more of them."""
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
