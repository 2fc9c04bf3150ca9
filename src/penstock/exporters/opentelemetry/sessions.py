"""Spans of what runs through SQLAlchemy: sessions, and connections of the engine."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.trace import Span
from sqlalchemy import Connection, Engine, ExceptionContext, ExecutionContext, event

from penstock.exporters.opentelemetry.statement_spans import StatementSpans

__all__ = ["SessionSpans"]


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
