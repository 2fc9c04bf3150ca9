"""What happens in a pool, as events for its listeners."""

import logging
from dataclasses import dataclass
from typing import Protocol

from penstock.pool.queue import RejectReason
from penstock.pool.slot import CloseReason

__all__ = [
    "CheckedIn",
    "CheckedOut",
    "CheckoutRejected",
    "ConnectionClosed",
    "ConnectionOpened",
    "ConnectionRecovered",
    "LeakReport",
    "LeaseLeaked",
    "Listeners",
    "Meter",
    "NestedCheckoutSeen",
    "OpeningFailed",
    "Pinged",
    "PoolEvent",
    "PoolListener",
]


@dataclass(frozen=True, slots=True)
class LeakReport:
    """A connection that has been checked out for longer than ``leak_after``.

    Args:
        seconds: How long it has been checked out.
        route: Where the request went, such as ``GET /users/{user_id}``; None outside requests.
        acquired_at: Stack of the checkout, innermost frame last.
        holder_at: Stack of where the holder is now; empty where it has gone.
        statement: The last statement, cut, without values and literals; None where none is known.
        reclaimed: Whether the connection is taken back by force.
    """

    seconds: float
    route: str | None
    acquired_at: str
    holder_at: str
    statement: str | None
    reclaimed: bool

    def __str__(self) -> str:
        return (
            f"A connection has been checked out for {self.seconds:.1f} s"
            f"{f' to {self.route}' if self.route else ''}"
            f"{', and is now taken back' if self.reclaimed else ''}. "
            f"Its last statement: {self.statement or 'not known'}.\n"
            f"Checked out at:\n{self.acquired_at}"
            f"The holder is now at:\n{self.holder_at or '  (it has ended)' + chr(10)}"
        )


_logger = logging.getLogger("penstock.pool")


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """A connection was opened.

    Args:
        seconds: What it took.
        for_housekeeping: Whether nobody waited for it.
    """

    seconds: float
    for_housekeeping: bool


@dataclass(frozen=True, slots=True)
class OpeningFailed:
    """A connection could not be opened.

    Args:
        seconds: What the attempt took.
        error: What was raised.
    """

    seconds: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A connection was closed.

    Args:
        why: The reason.
        age: Seconds that it had been open.
    """

    why: CloseReason
    age: float


@dataclass(frozen=True, slots=True)
class ConnectionRecovered:
    """A connection was saved after its query had been cancelled.

    Args:
        seconds: What it took to hear from the server and to roll back.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Pinged:
    """A connection was asked for a sign of life.

    Args:
        seconds: What it took to hear from the server, or to give it up.
        is_alive: Whether it answered in time.
    """

    seconds: float
    is_alive: bool


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """A connection was checked out.

    Args:
        waited: Seconds from the asking to the checkout; 0 where one was idle.
    """

    waited: float


@dataclass(frozen=True, slots=True)
class CheckedIn:
    """A connection came back.

    Args:
        held: Seconds that it was checked out.
    """

    held: float


@dataclass(frozen=True, slots=True)
class CheckoutRejected:
    """Somebody asked for a connection and got none.

    Args:
        why: The phase.
        waited: Seconds from the asking to the rejection.
    """

    why: RejectReason
    waited: float


@dataclass(frozen=True, slots=True)
class LeaseLeaked:
    """A connection has been checked out for longer than ``leak_after``."""

    report: LeakReport


@dataclass(frozen=True, slots=True)
class NestedCheckoutSeen:
    """A task that holds a connection asked a saturated pool for another."""

    first: str
    second: str


PoolEvent = (
    CheckedIn
    | CheckedOut
    | CheckoutRejected
    | ConnectionClosed
    | ConnectionRecovered
    | ConnectionOpened
    | LeaseLeaked
    | NestedCheckoutSeen
    | OpeningFailed
    | Pinged
)


class PoolListener(Protocol):
    """Somebody who wants to know; called in the event loop, and should be quick."""

    def __call__(self, event: PoolEvent, /) -> None:
        """Record an event; what it raises is logged and goes no further."""


class Meter(Protocol):
    """The one who counts leases, told without an event for each of them."""

    def waited(self, seconds: float, /) -> None:
        """Record a lease that had to be waited for."""

    def returned(self, held: float, /) -> None:
        """Record a connection that came back after so many seconds."""

    def __call__(self, event: PoolEvent, /) -> None:
        """Record what is no lease and no return."""


class Listeners:
    """Those who listen to one pool; the same object goes on to the pool that replaces it."""

    __slots__ = ("all", "are_there", "meter")

    def __init__(self) -> None:
        self.all: tuple[PoolListener, ...] = ()
        """Looked at before the event of a lease or a return is made, which nobody may want."""
        self.meter: Meter | None = None
        self.are_there = False
        """Looked at before any other event is made: whether there is a listener or a meter."""

    def add(self, listener: PoolListener) -> None:
        """Call ``listener`` with every event from now on."""
        self.all += (listener,)
        self._look()

    def remove(self, listener: PoolListener) -> None:
        """Call ``listener`` no more; nothing where it was not called before."""
        self.all = tuple(known for known in self.all if known != listener)
        self._look()

    def measure_by(self, meter: Meter | None) -> None:
        """Have leases counted by ``meter``; None for nobody."""
        self.meter = meter
        self._look()

    def _look(self) -> None:
        self.are_there = bool(self.all) or self.meter is not None

    def tell(self, event: PoolEvent) -> None:
        """Tell everybody; a listener that fails is logged and harms nobody."""
        for listener in self.all:
            _tell(listener, event)
        if self.meter is not None:
            _tell(self.meter, event)

    # Leases, which the meter counts by itself.

    def checked_out_at_once(self) -> None:
        """Tell of a lease of what was idle; the meter knows it from the return."""
        self._report_lease(CheckedOut(0.0))

    def waited(self, seconds: float) -> None:
        """Tell of a lease that had to be waited for."""
        if self.meter is not None:
            self.meter.waited(seconds)
        self._report_lease(CheckedOut(seconds))

    def returned(self, held: float) -> None:
        """Tell of a connection that came back after so many seconds."""
        if self.meter is not None:
            self.meter.returned(held)
        if self.all:
            self._report_lease(CheckedIn(held))

    def _report_lease(self, event: CheckedIn | CheckedOut) -> None:
        for listener in self.all:
            _tell(listener, event)


def _tell(listener: PoolListener, event: PoolEvent) -> None:
    try:
        listener(event)
    except Exception:
        _logger.exception("A pool listener failed on %s", type(event).__name__)
