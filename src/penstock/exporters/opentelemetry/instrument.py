"""Turning OpenTelemetry on for one database, and off again."""

from contextlib import ExitStack
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import TracerProvider, get_tracer_provider
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.database import Database
from penstock.exporters.opentelemetry import conventions as names
from penstock.exporters.opentelemetry.conventions import attributes_of, pool_name_of
from penstock.exporters.opentelemetry.pool import MeteredPool, PoolSpans, meters_of
from penstock.exporters.opentelemetry.statements import SessionSpans, StatementSpans
from penstock.express import DriverLane
from penstock.pool import PenstockPool

__all__ = ["Instrumentation", "instrument"]


class Instrumentation:
    """What :func:`instrument` has turned on; as a context manager, for the length of a block.

    Args:
        undo: Turns it off.
    """

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo

    def remove(self) -> None:
        """Turn it off; nothing where it is off already.

        What was counted so far goes on being exported by its provider.
        """
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def instrument(
    database: Database,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    *,
    pool_name: str | None = None,
) -> Instrumentation:
    """Export the numbers of a database's pool, and a span for each of its statements.

    Args:
        database: Open or not; once for each, or everything is told twice.
        meter_provider: Where the numbers go; None for the global one.
        tracer_provider: Where the spans go; None for the global one.
        pool_name: What the pool is called; None for ``address:port/database``, which is the same
            for two pools of one database.

    Returns:
        What turns it off again.
    """
    engine = database.engine
    place = attributes_of(engine.url)
    name = pool_name or pool_name_of(place)
    own_version = version("penstock")
    meters = meters_of(meter_provider or get_meter_provider(), own_version)
    tracer = (tracer_provider or get_tracer_provider()).get_tracer(
        "penstock", own_version, names.SCHEMA
    )
    with ExitStack() as undo:
        if isinstance(engine.pool, PenstockPool):  # in serverless there is none
            metered = MeteredPool(lambda: _pool_of(engine), name, meters)
            meters.add(metered)
            undo.callback(meters.remove, metered)
            _trace_checkouts(engine, PoolSpans(tracer, {**place, names.POOL_NAME: name}), undo)
        _trace_statements(database, StatementSpans(tracer, place), undo)
        return Instrumentation(undo.pop_all())


def _pool_of(engine: AsyncEngine) -> Any:
    return engine.pool


def _trace_checkouts(engine: AsyncEngine, spans: PoolSpans, undo: ExitStack) -> None:
    # The listeners go on to the pool that replaces this one.
    listeners = _pool_of(engine).listeners
    listeners.add(spans)
    undo.callback(listeners.remove, spans)


def _trace_statements(database: Database, spans: StatementSpans, undo: ExitStack) -> None:
    sessions, engine = SessionSpans(spans), database.engine.sync_engine
    sessions.listen_to(engine)
    undo.callback(sessions.leave, engine)
    lane: Any = database.lane  # the readers' own is another one within a test
    if isinstance(lane, DriverLane):
        undo.callback(lane.observer.add_spans(spans))
