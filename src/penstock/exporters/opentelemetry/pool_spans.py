"""A span for each checkout that took its time, or that came to nothing."""

import time
from collections.abc import Callable, Mapping

from opentelemetry.trace import Status, StatusCode, Tracer

from penstock.exporters.opentelemetry import conventions as names
from penstock.pool.events import CheckedOut, CheckoutRefused, PoolEvent

__all__ = ["CHECKOUT", "PoolSpans"]

CHECKOUT = "penstock checkout"
"""The span's name: the conventions have none."""


class PoolSpans:
    """Listens to a pool, in the task of whoever asks for a connection.

    A connection that was idle is lent within microseconds: there is no span of it.

    Args:
        tracer: Makes the spans.
        attributes: Which each of them has.
        clock: Nanoseconds of Unix time.
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
        """Make a span of an event, which is over."""
        match event:
            case CheckedOut(waited) if waited > 0.0:
                self._span(waited)
            case CheckoutRefused(why, waited):
                self._span(waited, why.value)
            case _:
                pass

    def _span(self, seconds: float, error: str | None = None) -> None:
        ended = self._clock()
        span = self._tracer.start_span(
            CHECKOUT, attributes=self._attributes, start_time=ended - int(seconds * 1e9)
        )
        if error is not None:
            span.set_attribute(names.ERROR_TYPE, error)
            span.set_status(Status(StatusCode.ERROR, f"No connection from the pool: {error}"))
        span.end(ended)
