"""Spans of what runs in the express lane."""

from collections.abc import AsyncIterator, Callable, Sequence, Sized
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from penstock.context import Settings
from penstock.drivers.driver import BeginOptions
from penstock.exporters.opentelemetry.statement_spans import StatementSpans
from penstock.express import messages
from penstock.express.connections import Connections, Fetch, Run, Then, Use
from penstock.express.loan import Loan
from penstock.express.messages import Answer
from penstock.express.plan import Plan
from penstock.telemetry import StatementWatch

__all__ = ["TracedConnections"]


class TracedConnections:
    """Connections that make a span of each statement sent on them, retries included.

    The wait for a connection is not within the span.

    Args:
        connections: The express lane's own.
        spans: Begins and ends the spans.
    """

    def __init__(self, connections: Connections, spans: StatementSpans) -> None:
        self.untraced = connections
        self.is_confinable: Callable[[], bool] = connections.is_confinable
        self._spans = spans

    @property
    def watch(self) -> StatementWatch | None:
        """As :class:`Connections` has it."""
        return self.untraced.watch

    @watch.setter
    def watch(self, watch: StatementWatch | None) -> None:
        self.untraced.watch = watch

    async def use(
        self,
        use: Use,
        plan: Any,
        sql: str,
        arguments: Sequence[Any],
        writes: bool,
        *,
        settings: Settings = (),
        asked_at: float | None = None,
        then: Then | None = None,
    ) -> Any:
        """As :meth:`Connections.use`."""
        return await self.untraced.use(
            partial(self._traced, use),
            plan,
            sql,
            arguments,
            writes,
            settings=settings,
            asked_at=asked_at,
            then=self._traced_then(then),
        )

    async def use_within(
        self,
        lease: Loan,
        use: Use,
        plan: Plan,
        sql: str,
        arguments: Any,
        *,
        settings: Settings,
        then: Then | None = None,
    ) -> Any:
        """As :meth:`Connections.use_within`."""
        return await self.untraced.use_within(
            lease,
            partial(self._traced, use),
            plan,
            sql,
            arguments,
            settings=settings,
            then=self._traced_then(then),
        )

    @asynccontextmanager
    async def transaction(self, sql: str, options: BeginOptions) -> AsyncIterator[Run]:
        """As :meth:`Connections.transaction`."""
        async with self.untraced.transaction(sql, options) as run:

            async def traced(
                use: Use,
                plan: Any,
                text: str,
                arguments: Any,
                *,
                apart: Settings | None = None,
                then: Then | None = None,
            ) -> Any:
                if use is messages.fetch and apart is None and self.watch is not None:
                    self.watch.count(text)  # which those below know by its name alone
                following = self._traced_then(then)
                use = partial(self._traced, use)
                return await run(use, plan, text, arguments, apart=apart, then=following)

            yield traced

    def _traced_then(self, then: Then | None) -> Then | None:
        """Return the same, with a span for each further statement."""
        if then is None:
            return None

        async def traced(fetch: Fetch, answer: Any) -> Any:
            async def spanned(plan: Plan, sql: str, arguments: Sequence[Any]) -> Any:
                with self._spans.of(sql, 0) as span:
                    records = await fetch(plan, sql, arguments)
                self._spans.succeed(span, _rows(records))
                return records

            return await then(spanned, answer)

        return traced

    async def _traced(self, use: Use, driver: Any, plan: Any, sql: str, arguments: Any) -> Any:
        if use is messages.learn:
            return await use(driver, plan, sql, arguments)  # runs nothing yet
        batch = len(arguments) if use in {messages.execute_many, messages.fetch_many} else 0
        with self._spans.of(sql, batch) as span:
            answer = await use(driver, plan, sql, arguments)
        self._spans.succeed(span, _rows(answer))
        return answer


def _rows(answer: Any) -> int | None:
    """Return how many rows came; None where it was a command's tag, or a cursor."""
    records = answer.records if isinstance(answer, Answer) else answer
    return len(records) if isinstance(records, Sized) and not isinstance(records, str) else None
