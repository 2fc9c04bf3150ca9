"""Metrics of the pool and spans of statements for OpenTelemetry; needs the extra ``otel``.

Names follow the semantic conventions 1.44.0, https://opentelemetry.io/docs/specs/semconv/database/:
those of spans are stable, those of connection pools are still in development.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from operator import attrgetter
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

try:
    from opentelemetry.metrics import (
        CallbackOptions,
        Histogram,
        Meter,
        MeterProvider,
        Observation,
        get_meter_provider,
    )
    from opentelemetry.trace import TracerProvider, get_tracer_provider
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "penstock.exporters.opentelemetry needs OpenTelemetry's packages, which are not "
        "installed. Install them with\n  pip install 'penstock[otel]'",
        name=error.name,
    ) from error

from penstock.database import Database
from penstock.engine.address import DEFAULT_PORTS, hosts_of
from penstock.exporters.opentelemetry_spans import (
    NAMESPACE,
    SERVER_ADDRESS,
    SERVER_PORT,
    SYSTEM,
    PoolSpans,
    SessionSpans,
    StatementSpans,
)
from penstock.express import DriverLane
from penstock.pool import PenstockPool, PoolSnapshot
from penstock.pool.events import (
    CheckedIn,
    CheckedOut,
    CheckoutRejected,
    ConnectionOpened,
    PoolEvent,
)
from penstock.pool.queue import RejectReason
from penstock.telemetry.schema import COUNTERS, HISTOGRAMS, SAMPLE, Field

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
POOL_NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
IDLE_MIN = "db.client.connection.idle.min"

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""Upper bounds in seconds that the conventions recommend for ``db.client.operation.duration``; they
recommend none for the durations of a pool."""


class Instrumentation:
    """The instrumentation of one database, which :func:`instrument` returns.

    As a context manager it removes itself at the end of the block.

    Args:
        undo: Removes it.
    """

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo

    def remove(self) -> None:
        """Remove the instrumentation; a second call does nothing.

        The meter provider continues to export what was counted so far.
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
    """Export the metrics of a database's pool, and a span for each of its statements.

    Args:
        database: The database, open or not. Instrument it once: a second instrumentation exports
            everything twice.
        meter_provider: Receives the metrics; None for the global provider.
        tracer_provider: Receives the spans; None for the global provider.
        pool_name: Name of the pool; None for ``address:port/database``, which is the same for two
            pools of one database.

    Returns:
        The instrumentation, which can be removed.
    """
    engine = database.engine
    place = attributes_of(engine.url)
    name = pool_name or pool_name_of(place)
    own_version = version("penstock")
    meters = meters_of(meter_provider or get_meter_provider(), own_version)
    tracer = (tracer_provider or get_tracer_provider()).get_tracer("penstock", own_version, SCHEMA)
    with ExitStack() as undo:
        if isinstance(engine.pool, PenstockPool):  # serverless has no pool
            metered = MeteredPool(lambda: _pool_of(engine), name, meters)
            meters.add(metered)
            undo.callback(meters.remove, metered)
            _trace_checkouts(engine, PoolSpans(tracer, {**place, POOL_NAME: name}), undo)
        _trace_statements(database, StatementSpans(tracer, place), undo)
        return Instrumentation(undo.pop_all())


def _pool_of(engine: AsyncEngine) -> Any:
    return engine.pool


def _trace_checkouts(engine: AsyncEngine, spans: PoolSpans, undo: ExitStack) -> None:
    # The listeners move on to the pool that replaces this one.
    listeners = _pool_of(engine).listeners
    listeners.add(spans)
    undo.callback(listeners.remove, spans)


def _trace_statements(database: Database, spans: StatementSpans, undo: ExitStack) -> None:
    sessions, engine = SessionSpans(spans), database.engine.sync_engine
    sessions.listen_to(engine)
    undo.callback(sessions.leave, engine)
    lane: Any = database.lane  # within a test, readers have another one
    if isinstance(lane, DriverLane):
        undo.callback(lane.observer.add_spans(spans))


def attributes_of(url: URL) -> dict[str, str | int]:
    """Return the attributes of a database that each of its spans has.

    Args:
        url: URL of the engine.
    """
    system = url.get_backend_name()
    attributes: dict[str, str | int] = {SYSTEM: system}
    if url.database:
        attributes[NAMESPACE] = url.database
    if system in DEFAULT_PORTS:
        (address, port), *_ = hosts_of(url)
        attributes[SERVER_ADDRESS] = address
        if port is not None:  # a Unix socket has none
            attributes[SERVER_PORT] = port
    return attributes


def pool_name_of(attributes: dict[str, str | int]) -> str:
    """Return the pool's default name by the conventions: ``address:port/database``.

    Args:
        attributes: Attributes from :func:`attributes_of`.
    """
    address = attributes.get(SERVER_ADDRESS, attributes[SYSTEM])
    port = attributes.get(SERVER_PORT)
    database = attributes.get(NAMESPACE, "")
    return f"{address}{'' if port is None else f':{port}'}/{database}"


_TIMED_OUT = (RejectReason.WAITING, RejectReason.CONNECTING, RejectReason.SUSPENDED)

Observe = Callable[[PoolSnapshot, PenstockPool], Iterable[tuple[int, dict[str, str]]]]
"""Returns numbers, and the attributes that tell several of them apart."""
_Observed = tuple[str, str, str, Observe]
"""An instrument's name, unit and description, and the numbers that it shows."""


class MeteredPool:
    """A pool whose numbers are observed and whose events are recorded.

    Args:
        pool: Returns the current pool, which ``engine.dispose()`` replaces.
        name: Name of the pool.
        meters: Instruments that record its events.
    """

    def __init__(self, pool: Callable[[], PenstockPool], name: str, meters: "PoolMeters") -> None:
        self.pool = pool
        self.attributes = {POOL_NAME: name}
        self._meters = meters

    def __call__(self, event: PoolEvent) -> None:
        """Record an event of the pool."""
        meters, attributes = self._meters, self.attributes
        match event:
            case CheckedOut(waited):
                meters.wait_time.record(waited, attributes)
            case CheckedIn(held):
                meters.use_time.record(held, attributes)
            case ConnectionOpened(seconds):
                meters.create_time.record(seconds, attributes)
            case CheckoutRejected(why) if why in _TIMED_OUT:
                meters.timeouts.add(1, attributes)
            case _:
                pass

    def observed(self, observe: Observe) -> Iterator[Observation]:
        """Yield the pool's current numbers, in an exporter's thread.

        Args:
            observe: Reads the numbers of one instrument.
        """
        pool = self.pool()
        for number, more in observe(pool.snapshot(), pool):
            yield Observation(number, self.attributes | more)


class PoolMeters:
    """The instruments of one provider, for all of its pools.

    Args:
        meter: Creates the instruments.

    Attributes:
        pools: Pools that are observed.
        wait_time: Time from requesting a connection to its checkout.
        use_time: Time from the checkout to the return.
        create_time: Time to open a connection.
        timeouts: Callers that got no connection within ``pool_timeout``.
    """

    def __init__(self, meter: Meter) -> None:
        self.pools: tuple[MeteredPool, ...] = ()
        self.wait_time = _times(meter, HISTOGRAMS["wait"])
        self.use_time = _times(meter, HISTOGRAMS["hold"])
        self.create_time = _times(meter, HISTOGRAMS["create"])
        timeouts = COUNTERS["timeouts"]
        self.timeouts = meter.create_counter(timeouts.metric, timeouts.unit, timeouts.description)
        for name, unit, description, observe in _OBSERVED:
            meter.create_observable_up_down_counter(
                name, [self._callback(observe)], unit, description
            )

    def _callback(self, observe: Observe) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observations(_: CallbackOptions) -> Iterable[Observation]:
            return [each for pool in self.pools for each in pool.observed(observe)]

        return observations

    def add(self, pool: MeteredPool) -> None:
        """Observe a pool, and record its events."""
        pool.pool().listeners.add(pool)
        self.pools += (pool,)

    def remove(self, pool: MeteredPool) -> None:
        """Stop observing a pool."""
        pool.pool().listeners.remove(pool)
        self.pools = tuple(known for known in self.pools if known is not pool)


def _times(meter: Meter, field: Field) -> Histogram:
    return meter.create_histogram(
        field.metric,
        field.unit,
        field.description,
        explicit_bucket_boundaries_advisory=BUCKETS,
    )


def _states(seen: PoolSnapshot, _: PenstockPool) -> Iterator[tuple[int, dict[str, str]]]:
    for field in _STATES:
        yield getattr(seen, field.name), {STATE: field.state}


def _observed(name: str, *, is_sent: Callable[[int], object] = lambda _: True) -> _Observed:
    """Return an instrument that shows one number of the pool.

    Args:
        name: Name of the number in a sample.
        is_sent: Returns whether a value is exported.
    """
    field, value = SAMPLE[name], attrgetter(name)

    def observe(seen: PoolSnapshot, _: PenstockPool) -> Iterator[tuple[int, dict[str, str]]]:
        if is_sent(value(seen)):
            yield value(seen), {}

    return field.metric, field.unit, field.description, observe


_STATES = [field for field in SAMPLE.values() if field.state]
_OBSERVED: tuple[_Observed, ...] = (
    (_STATES[0].metric, _STATES[0].unit, "Open connections by state.", _states),
    _observed("limit", is_sent=bool),
    _observed("size", is_sent=bool),
    (
        IDLE_MIN,
        "{connection}",
        "Idle connections that the pool keeps ready (min_idle).",
        lambda _, pool: [(pool.policy.min_idle, {})],
    ),
    _observed("waiting"),
)

# A provider keeps the first callback of an instrument for good and ignores a second one, so its
# instruments are shared by all pools, and by the applications of several tests.
_KNOWN: "WeakKeyDictionary[MeterProvider, PoolMeters]" = WeakKeyDictionary()


def meters_of(provider: MeterProvider, version: str) -> PoolMeters:
    """Return the instruments of a provider, which are created at the first call.

    Args:
        provider: The meter provider.
        version: Version of the instrumenting package.
    """
    known = _KNOWN.get(provider)
    if known is None:
        meter = provider.get_meter("penstock", version, SCHEMA)
        known = _KNOWN[provider] = PoolMeters(meter)
    return known
