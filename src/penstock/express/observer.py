"""What is counted, timed, logged and traced of the express lane's statements."""

from collections.abc import Callable, Coroutine, Sized
from contextlib import AbstractContextManager
from functools import partial
from time import monotonic
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.express import protocol
from penstock.express.lease import rows_of
from penstock.express.protocol import Answer
from penstock.express.work import Use
from penstock.pool.record import Record
from penstock.telemetry.statement_watch import StatementWatch

_BATCHES = frozenset({protocol.execute_many, protocol.fetch_many})
"""What sends a statement for several sets of values."""


class Spans(Protocol):
    """Makes the spans of statements."""

    def of(self, sql: str, batch: int = 0) -> AbstractContextManager[Any]:
        """Give a span for the length of a block, which ends it where it fails.

        Args:
            sql: The statement.
            batch: For how many sets of values it is run; 0 for one.
        """
        ...

    def succeed(self, span: Any, rows: int | None) -> None:
        """End a span whose block did not fail.

        Args:
            span: The span.
            rows: How many the statement returned; None where it returns none.
        """
        ...


class Observer:
    """Observes the statements of one engine's express lane.

    Args:
        engine: Whose logger is used.

    Attributes:
        logger: SQLAlchemy's, of the engine.
        watch: Counts the statements of a request and reports slow ones; None for none.
        spans: What makes spans of the statements; the first makes the outermost.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.logger = engine.sync_engine.logger
        self.watch: StatementWatch | None = None
        self.spans: tuple[Spans, ...] = ()

    def add_spans(self, spans: Spans) -> Callable[[], None]:
        """Make a span of each statement from now on, retries included.

        The wait for a connection is not within the span.

        Args:
            spans: Makes them.

        Returns:
            What ends that.
        """
        self.spans = (*self.spans, spans)
        return partial(self._remove, spans)

    def _remove(self, spans: Spans) -> None:
        self.spans = tuple(other for other in self.spans if other is not spans)

    def traced(self, use: Use) -> Use:
        """Return what does the same within a span, or itself where there are none.

        Args:
            use: Sends a statement and returns the answer.
        """
        if not self.spans or use is protocol.learn:  # which runs nothing yet
            return use
        is_batch = use in _BATCHES
        for spans in reversed(self.spans):
            use = _within_span(spans, use, is_batch=is_batch)
        return use

    def count(self, sql: str) -> None:
        """Count a statement that is about to run, if a request runs it."""
        if self.watch is not None:
            self.watch.count(sql)

    def report_slow(self, sql: str, seconds: float, answer: Any = None) -> None:
        """Report a statement if it was slow.

        Args:
            sql: The statement.
            seconds: What it took.
            answer: The server's; None where there was none.
        """
        if self.watch is not None and seconds > self.watch.slow_after:
            self.watch.slow(sql, seconds, rows_of(answer))

    def time_lease(self, record: Record, sql: str, answer: Any = None) -> None:
        """Report a statement if it was slow, timed from its connection's checkout.

        That moment is known, so that no statement need be timed by itself.

        Args:
            record: Of the connection.
            sql: The statement.
            answer: The server's; None where there was none.
        """
        self.report_slow(sql, monotonic() - record.slot.checked_out_at, answer)

    async def timed(self, sql: str, answering: Coroutine[Any, Any, Any]) -> Any:
        """Await an answer, and report the statement if it was slow.

        Args:
            sql: The statement.
            answering: Returns the answer.
        """
        began, answer = monotonic(), None
        try:
            answer = await answering
        finally:
            self.report_slow(sql, monotonic() - began, answer)
        return answer


def _within_span(spans: Spans, use: Use, *, is_batch: bool) -> Use:
    async def traced(driver: Any, plan: Any, sql: str, arguments: Any) -> Any:
        with spans.of(sql, len(arguments) if is_batch else 0) as span:
            answer = await use(driver, plan, sql, arguments)
        spans.succeed(span, _returned(answer))
        return answer

    return traced


def _returned(answer: Any) -> int | None:
    """Return how many rows came; None where it was a command's tag, or a cursor."""
    records = answer.records if isinstance(answer, Answer) else answer
    return len(records) if isinstance(records, Sized) and not isinstance(records, str) else None
