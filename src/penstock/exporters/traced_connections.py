"""The express lane's connections, with a span of each statement that runs on them."""

from collections.abc import AsyncIterator, Callable, Sequence, Sized
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from penstock.context import Settings
from penstock.drivers.driver import BeginOptions
from penstock.express import DriverLane, protocol
from penstock.express.compiled import Plan
from penstock.express.connections import Connections, Fetch, Run, Then, Use
from penstock.express.lease import Lease
from penstock.express.protocol import Answer
from penstock.telemetry import StatementWatch

__all__ = ["Spans", "TracedConnections"]


class Spans(Protocol):
    """Makes the spans of statements."""

    def of(self, sql: str, batch: int = 0) -> AbstractContextManager[Any]:
        """Give a span for the length of a block, which ends it where it fails.

        Args:
            sql: The statement.
            batch: How many sets of values it is run for, where that are several.
        """
        ...

    def succeed(self, span: Any, rows: int | None) -> None:
        """End a span whose block did not fail.

        Args:
            span: The span.
            rows: How many the statement returned; None where it returns none.
        """
        ...


class TracedConnections:
    """Connections that make a span of each statement sent on them, retries included.

    The wait for a connection is not within the span.

    Args:
        connections: The express lane's own.
        spans: Begins and ends the spans.
    """

    def __init__(self, connections: Connections, spans: Spans) -> None:
        self.untraced = connections
        self.is_confinable: Callable[[], bool] = connections.is_confinable
        self._spans = spans

    @classmethod
    def trace(cls, lane: DriverLane, spans: Spans) -> Callable[[], None]:
        """Have the statements of a lane traced.

        Args:
            lane: Whose statements.
            spans: As for the class.

        Returns:
            What ends that.
        """
        traced: Any = cls(lane.connections, spans)  # it does the same
        lane.connections = traced
        return partial(_untrace, lane, traced)

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
        lease: Lease,
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
                if use is protocol.fetch and apart is None and self.watch is not None:
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
        if use is protocol.learn:
            return await use(driver, plan, sql, arguments)  # runs nothing yet
        batch = len(arguments) if use in {protocol.execute_many, protocol.fetch_many} else 0
        with self._spans.of(sql, batch) as span:
            answer = await use(driver, plan, sql, arguments)
        self._spans.succeed(span, _rows(answer))
        return answer


def _untrace(lane: DriverLane, traced: TracedConnections) -> None:
    outer: Any = lane.connections
    if outer is traced:
        lane.connections = traced.untraced
        return
    while outer.untraced is not traced:  # which came later, and stays
        outer = outer.untraced
    outer.untraced = traced.untraced


def _rows(answer: Any) -> int | None:
    """Return how many rows came; None where it was a command's tag, or a cursor."""
    records = answer.records if isinstance(answer, Answer) else answer
    return len(records) if isinstance(records, Sized) and not isinstance(records, str) else None
