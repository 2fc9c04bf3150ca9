"""What a pool reports: its numbers at one moment, its events, and who listens to them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.pool.queue import RejectReason
from penstock.pool.slot import CloseReason

_logger = logging.getLogger("penstock.pool")


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The numbers of one pool at one moment.

    Args:
        size: Connections that the pool keeps (``pool_size``).
        limit: Connections that it may have open at once (``pool_size + max_overflow``);
            0 for no limit.
        checked_in: Connections that are idle in the pool.
        checked_out: Connections that are checked out.
        overflow: Open connections above ``size``; never negative.
        opening: Connections that are being opened.
        invalid: Connections that are being closed, or recovered after a cancelled query.
        waiting: Callers that wait for a connection.
        suspended: Whether checkout is suspended.
        closed: Whether the pool is closed.
        opened_total: Connections opened since the pool was made.
        closed_total: Connections closed since then.
        open_failures_total: Attempts to connect that failed since then.
        rejected_total: Callers rejected since then.
        last_open_error: The error of the last attempt to connect; None after a success.
    """

    size: int
    limit: int
    checked_in: int
    checked_out: int
    overflow: int
    opening: int = 0
    invalid: int = 0
    waiting: int = 0
    suspended: bool = False
    closed: bool = False
    opened_total: int = 0
    closed_total: int = 0
    open_failures_total: int = 0
    rejected_total: int = 0
    last_open_error: str | None = None

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is checked out, from 0.0 to 1.0; 0.0 without a limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    def __str__(self) -> str:
        text = (
            f"{self.checked_out} of {self.limit or 'any number'} connections checked out, "
            f"{self.checked_in} idle, {self.opening} opening, {self.invalid} being closed or "
            f"recovered, {self.waiting} waiting"
        )
        if self.last_open_error:
            text += f"; the last attempt to connect failed: {self.last_open_error}"
        return text


def text_of(error: BaseException) -> str:
    """Return the text of an error; the name of its class where it has none."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - any class may be raised
        return type(error).__name__


@dataclass(frozen=True, slots=True)
class LeakReport:
    """A connection that has been checked out for longer than ``leak_after``.

    Args:
        seconds: How long it has been checked out.
        route: The route of the request, such as ``GET /users/{user_id}``; None outside requests.
        acquired_at: Stack of the checkout, innermost frame last.
        holder_at: Stack of the holder now; empty where its task has ended.
        statement: The last statement, shortened, without values and literals; None if unknown.
        reclaimed: Whether the connection is closed under its holder.
    """

    seconds: float
    route: str | None
    acquired_at: str
    holder_at: str
    statement: str | None
    reclaimed: bool

    def __str__(self) -> str:
        return (
            f"Possible connection leak: a connection has been checked out for {self.seconds:.1f} s"
            f"{f' by {self.route}' if self.route else ''}"
            f"{', and is now reclaimed' if self.reclaimed else ''}. "
            f"Its last statement: {self.statement or 'not known'}.\n"
            f"Checked out at:\n{self.acquired_at}"
            f"The holder is now at:\n{self.holder_at or '  (its task has ended)' + chr(10)}"
        )


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """A connection was opened.

    Args:
        seconds: How long it took.
        for_housekeeping: Whether it was opened for no waiter.
    """

    seconds: float
    for_housekeeping: bool


@dataclass(frozen=True, slots=True)
class OpeningFailed:
    """A connection could not be opened.

    Args:
        seconds: How long the attempt took.
        error: The driver's error.
    """

    seconds: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A connection was closed.

    Args:
        why: The reason.
        age: Seconds for which it was open.
    """

    why: CloseReason
    age: float


@dataclass(frozen=True, slots=True)
class ConnectionRecovered:
    """A connection was recovered after its query was cancelled.

    Args:
        seconds: How long the acknowledgement and the rollback took.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Pinged:
    """A connection was pinged.

    Args:
        seconds: How long the answer, or the wait for it, took.
        is_alive: Whether the server answered in time.
    """

    seconds: float
    is_alive: bool


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """A connection was checked out.

    Args:
        waited: Seconds that the caller waited; 0 where a connection was idle.
    """

    waited: float


@dataclass(frozen=True, slots=True)
class CheckedIn:
    """A connection was returned.

    Args:
        held: Seconds for which it was checked out.
    """

    held: float


@dataclass(frozen=True, slots=True)
class CheckoutRejected:
    """A caller was rejected.

    Args:
        why: The phase.
        waited: Seconds that the caller waited.
    """

    why: RejectReason
    waited: float


@dataclass(frozen=True, slots=True)
class LeaseLeaked:
    """A connection has been checked out for longer than ``leak_after``.

    Args:
        report: What is known of the lease.
    """

    report: LeakReport


@dataclass(frozen=True, slots=True)
class NestedCheckoutSeen:
    """A task that holds a connection asked a saturated pool for another.

    Args:
        first: Stack of the checkout that it holds.
        second: Stack of the checkout that it asks for.
    """

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
    """Is called with each event, in the event loop; it should be quick."""

    def __call__(self, event: PoolEvent, /) -> None:
        """Record an event; an exception is logged and does not reach the pool."""


class Meter(Protocol):
    """Measures leases, without an event for each of them."""

    def waited(self, seconds: float, /) -> None:
        """Record a checkout that had to wait for so many seconds."""

    def returned(self, held: float, /) -> None:
        """Record a return after so many seconds."""

    def __call__(self, event: PoolEvent, /) -> None:
        """Record any other event."""


class Listeners:
    """The listeners of one pool, which pass on to the pool that replaces it."""

    __slots__ = ("active", "all", "meter", "returned")

    def __init__(self) -> None:
        self.all: tuple[PoolListener, ...] = ()
        """Checked before the event of a checkout or a return is made: usually it is empty."""
        self.meter: Meter | None = None
        self.active = False
        """Whether there is a listener or a meter; checked before any other event is made."""
        self.returned: Callable[[float], None] | None = None
        """Reports a return after so many seconds; None where nothing listens."""

    def add(self, listener: PoolListener) -> None:
        """Add a listener.

        Args:
            listener: Is called with every event from now on.
        """
        self.all += (listener,)
        self._update()

    def remove(self, listener: PoolListener) -> None:
        """Remove a listener, if it was added.

        Args:
            listener: Is not called any more.
        """
        self.all = tuple(known for known in self.all if known != listener)
        self._update()

    def measure_by(self, meter: Meter | None) -> None:
        """Set the meter.

        Args:
            meter: Measures leases from now on; None for none.
        """
        self.meter = meter
        self._update()

    def _update(self) -> None:
        self.active = bool(self.all) or self.meter is not None
        self.returned = self.meter.returned if self.meter is not None else None
        if self.all:
            self.returned = self._returned

    def notify(self, event: PoolEvent) -> None:
        """Call the listeners and the meter; an exception of theirs is logged.

        Args:
            event: The event.
        """
        for listener in self.all:
            _call(listener, event)
        if self.meter is not None:
            _call(self.meter, event)

    # Leases, for which the meter needs no event.

    def checked_out_at_once(self) -> None:
        """Report the checkout of an idle connection; the meter counts it at its return."""
        self._report_lease(CheckedOut(0.0))

    def waited(self, seconds: float) -> None:
        """Report a checkout that had to wait.

        Args:
            seconds: How long it waited.
        """
        if self.meter is not None:
            self.meter.waited(seconds)
        self._report_lease(CheckedOut(seconds))

    def _returned(self, held: float) -> None:
        if self.meter is not None:
            self.meter.returned(held)
        self._report_lease(CheckedIn(held))

    def _report_lease(self, event: CheckedIn | CheckedOut) -> None:
        for listener in self.all:
            _call(listener, event)


def _call(listener: PoolListener, event: PoolEvent) -> None:
    try:
        listener(event)
    except Exception:
        _logger.exception("A pool listener failed on %s", type(event).__name__)
