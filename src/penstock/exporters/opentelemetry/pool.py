"""The pool's numbers as instruments, and a span for each checkout that took its time or failed."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from weakref import WeakKeyDictionary

from opentelemetry.metrics import (
    CallbackOptions,
    Histogram,
    Meter,
    MeterProvider,
    Observation,
)
from opentelemetry.trace import Status, StatusCode, Tracer

from penstock.exporters.opentelemetry import conventions as names
from penstock.pool import PenstockPool, PoolSnapshot
from penstock.pool.events import (
    CheckedIn,
    CheckedOut,
    CheckoutRejected,
    ConnectionOpened,
    PoolEvent,
)
from penstock.pool.queue import RejectReason
from penstock.telemetry.field import Field
from penstock.telemetry.schema import COUNTERS, HISTOGRAMS, SAMPLE

__all__ = ["CHECKOUT", "MeteredPool", "PoolMeters", "PoolSpans", "meters_of"]

_TIMED_OUT = (RejectReason.WAITING, RejectReason.CONNECTING, RejectReason.SUSPENDED)

Observe = Callable[[PoolSnapshot, PenstockPool], Iterable[tuple[int, dict[str, str]]]]
"""Returns numbers, and the attributes that tell several of them apart."""
_Observed = tuple[str, str, str, Observe]
"""An instrument's name, unit and description, and the numbers that it shows."""


class MeteredPool:
    """A pool that is looked at, and that tells what happens in it.

    Args:
        pool: Gives the pool of this moment, which ``engine.dispose()`` replaces.
        name: What the pool is called.
        meters: Where to.
    """

    def __init__(self, pool: Callable[[], PenstockPool], name: str, meters: "PoolMeters") -> None:
        self.pool = pool
        self.attributes = {names.POOL_NAME: name}
        self._meters = meters

    def __call__(self, event: PoolEvent) -> None:
        """Record an event, as a listener of the pool."""
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
        """Look at the pool, from an exporter's thread."""
        pool = self.pool()
        for number, more in observe(pool.snapshot(), pool):
            yield Observation(number, self.attributes | more)


class PoolMeters:
    """The instruments of one provider, for all of its pools.

    Args:
        meter: Makes them.

    Attributes:
        pools: Those that are looked at.
        wait_time: From the asking to the checkout.
        use_time: From the checkout to the return.
        create_time: What opening a connection took.
        timeouts: Callers whose ``pool_timeout`` passed.
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
        def look(_: CallbackOptions) -> Iterable[Observation]:
            return [each for pool in self.pools for each in pool.observed(observe)]

        return look

    def add(self, pool: MeteredPool) -> None:
        """Look at a pool, and listen to it."""
        pool.pool().listeners.add(pool)
        self.pools += (pool,)

    def remove(self, pool: MeteredPool) -> None:
        """Look at the pool no more."""
        pool.pool().listeners.remove(pool)
        self.pools = tuple(known for known in self.pools if known is not pool)


def _times(meter: Meter, field: Field) -> Histogram:
    return meter.create_histogram(
        field.metric,
        field.unit,
        field.description,
        explicit_bucket_boundaries_advisory=names.BUCKETS,
    )


def _states(seen: PoolSnapshot, _: PenstockPool) -> Iterator[tuple[int, dict[str, str]]]:
    for field in _STATES:
        yield getattr(seen, field.name), {names.STATE: field.state}


def _observed(name: str, *, is_sent: Callable[[int], object] = lambda _: True) -> _Observed:
    """Return an instrument that shows one number of the pool.

    Args:
        name: Of the number.
        is_sent: Returns whether a value is sent.
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
        names.IDLE_MIN,
        "{connection}",
        "Idle connections that the pool keeps ready (min_idle).",
        lambda _, pool: [(pool.policy.min_idle, {})],
    ),
    _observed("waiting"),
)

# A provider calls for good what was once given to its instruments, and no second one: what it
# calls has to be found again, for another pool or for the next application of a test.
_KNOWN: "WeakKeyDictionary[MeterProvider, PoolMeters]" = WeakKeyDictionary()


def meters_of(provider: MeterProvider, version: str) -> PoolMeters:
    """Return the instruments of a provider, made when they are first asked for.

    Args:
        provider: Whose.
        version: Of what is instrumented.
    """
    known = _KNOWN.get(provider)
    if known is None:
        meter = provider.get_meter("penstock", version, names.SCHEMA)
        known = _KNOWN[provider] = PoolMeters(meter)
    return known


CHECKOUT = "penstock checkout"
"""The span's name: the conventions have none."""


class PoolSpans:
    """Listens to a pool, in the task of whoever asks for a connection.

    A connection that was idle is checked out within microseconds: there is no span of it.

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
            span.set_attribute(names.ERROR_TYPE, error)
            span.set_status(Status(StatusCode.ERROR, f"No connection from the pool: {error}"))
        span.end(ended)
