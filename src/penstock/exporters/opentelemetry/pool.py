"""The pool's numbers as instruments, and a span for each checkout that took its time or failed."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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

__all__ = ["CHECKOUT", "MeteredPool", "PoolMeters", "PoolSpans", "meters_of"]

_TIMED_OUT = (RejectReason.WAITING, RejectReason.CONNECTING, RejectReason.SUSPENDED)

Observe = Callable[[PoolSnapshot, PenstockPool], Iterable[tuple[int, dict[str, str]]]]
"""Returns numbers, and what tells several of them apart."""


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
        self.wait_time = _times(meter, names.WAIT_TIME, "From the asking to the checkout.")
        self.use_time = _times(meter, names.USE_TIME, "From the checkout to the return.")
        self.create_time = _times(meter, names.CREATE_TIME, "What opening a connection took.")
        self.timeouts = meter.create_counter(
            names.TIMEOUTS, "{timeout}", "Callers whose pool_timeout passed."
        )
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


def _times(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, "s", description, explicit_bucket_boundaries_advisory=names.BUCKETS
    )


def _counts(seen: PoolSnapshot, _: PenstockPool) -> Iterator[tuple[int, dict[str, str]]]:
    yield seen.checked_in, {names.STATE: names.IDLE}
    yield seen.checked_out, {names.STATE: names.USED}


def _limit(seen: PoolSnapshot, _: PenstockPool) -> Iterator[tuple[int, dict[str, str]]]:
    if seen.limit:
        yield seen.limit, {}


def _size(seen: PoolSnapshot, _: PenstockPool) -> Iterator[tuple[int, dict[str, str]]]:
    if seen.size:
        yield seen.size, {}


_OBSERVED: tuple[tuple[str, str, str, Observe], ...] = (
    (names.COUNT, "{connection}", "Connections that are idle, and that are checked out.", _counts),
    (names.MAX, "{connection}", "Connections that may be open at once.", _limit),
    (names.IDLE_MAX, "{connection}", "Connections that are kept: pool_size.", _size),
    (
        names.IDLE_MIN,
        "{connection}",
        "Connections that are kept ready: min_idle.",
        lambda _, pool: [(pool.policy.min_idle, {})],
    ),
    (
        names.PENDING_REQUESTS,
        "{request}",
        "Callers that wait for a connection.",
        lambda seen, _: [(seen.waiting, {})],
    ),
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
