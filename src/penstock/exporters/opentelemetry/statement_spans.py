"""A span for each statement; it never has a value, neither of a parameter nor of an error."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from penstock.exporters.opentelemetry import conventions as names
from penstock.exporters.opentelemetry.statements import describer

__all__ = ["StatementSpans"]


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
