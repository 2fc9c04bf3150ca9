"""What happens in a pool, as events for its listeners."""

import logging
from dataclasses import dataclass
from typing import Protocol

from penstock.pool.queue import Refused
from penstock.pool.slot import CloseReason

__all__ = [
    "CheckedIn",
    "CheckedOut",
    "CheckoutRefused",
    "ConnectionClosed",
    "ConnectionMended",
    "ConnectionOpened",
    "LeakReport",
    "Listeners",
    "LoanLeaked",
    "Meter",
    "NestedCheckoutSeen",
    "OpeningFailed",
    "Pinged",
    "PoolEvent",
    "PoolListener",
]


@dataclass(frozen=True, slots=True)
class LeakReport:
    """A connection that has been lent for longer than ``leak_after``.

    Args:
        seconds: How long it has been lent.
        route: Where the request went, such as ``GET /users/{user_id}``; None outside requests.
        borrowed_at: Stack of the checkout, innermost frame last.
        holder_at: Stack of where the borrower is now; empty where it has gone.
        statement: The last statement, cut, without values and literals; None where none is known.
        reclaimed: Whether the connection is taken back by force.
    """

    seconds: float
    route: str | None
    borrowed_at: str
    holder_at: str
    statement: str | None
    reclaimed: bool

    def __str__(self) -> str:
        return (
            f"A connection has been lent for {self.seconds:.1f} s"
            f"{f' to {self.route}' if self.route else ''}"
            f"{', and is now taken back' if self.reclaimed else ''}. "
            f"Its last statement: {self.statement or 'not known'}.\n"
            f"Borrowed at:\n{self.borrowed_at}"
            f"The borrower is now at:\n{self.holder_at or '  (it has ended)' + chr(10)}"
        )


_logger = logging.getLogger("penstock.pool")


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """A connection was opened.

    Args:
        seconds: What it took.
        for_upkeep: Whether nobody waited for it.
    """

    seconds: float
    for_upkeep: bool


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
class ConnectionMended:
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
    """A connection was lent.

    Args:
        waited: Seconds from the asking to the lending; 0 where one was idle.
    """

    waited: float


@dataclass(frozen=True, slots=True)
class CheckedIn:
    """A connection came back.

    Args:
        held: Seconds that it was lent.
    """

    held: float


@dataclass(frozen=True, slots=True)
class CheckoutRefused:
    """Somebody asked for a connection and got none.

    Args:
        why: The phase.
        waited: Seconds from the asking to the refusal.
    """

    why: Refused
    waited: float


@dataclass(frozen=True, slots=True)
class LoanLeaked:
    """A connection has been lent for longer than ``leak_after``."""

    report: LeakReport


@dataclass(frozen=True, slots=True)
class NestedCheckoutSeen:
    """A task that holds a connection asked a saturated pool for another."""

    first: str
    second: str


PoolEvent = (
    CheckedIn
    | CheckedOut
    | CheckoutRefused
    | ConnectionClosed
    | ConnectionMended
    | ConnectionOpened
    | LoanLeaked
    | NestedCheckoutSeen
    | OpeningFailed
    | Pinged
)


class PoolListener(Protocol):
    """Somebody who wants to know; called in the event loop, and should be quick."""

    def __call__(self, event: PoolEvent, /) -> None:
        """Take note of an event; what it raises is logged and goes no further."""


class Meter(Protocol):
    """The one who counts loans, told without an event for each of them."""

    def waited(self, seconds: float, /) -> None:
        """Take note of a loan that had to be waited for."""

    def returned(self, held: float, /) -> None:
        """Take note of a connection that came back after so many seconds."""

    def __call__(self, event: PoolEvent, /) -> None:
        """Take note of what is no loan and no return."""


class Listeners:
    """Those who listen to one pool; the same object goes on to the pool that replaces it."""

    __slots__ = ("all", "are_there", "meter")

    def __init__(self) -> None:
        self.all: tuple[PoolListener, ...] = ()
        """Looked at before the event of a loan or a return is made, which nobody may want."""
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
        """Have loans counted by ``meter``; None for nobody."""
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

    # Loans, which the meter counts by itself.

    def lent_at_once(self) -> None:
        """Tell of a loan of what was idle; the meter knows it from the return."""
        self._tell_of_loan(CheckedOut(0.0))

    def waited(self, seconds: float) -> None:
        """Tell of a loan that had to be waited for."""
        if self.meter is not None:
            self.meter.waited(seconds)
        self._tell_of_loan(CheckedOut(seconds))

    def returned(self, held: float) -> None:
        """Tell of a connection that came back after so many seconds."""
        if self.meter is not None:
            self.meter.returned(held)
        if self.all:
            self._tell_of_loan(CheckedIn(held))

    def _tell_of_loan(self, event: CheckedIn | CheckedOut) -> None:
        for listener in self.all:
            _tell(listener, event)


def _tell(listener: PoolListener, event: PoolEvent) -> None:
    try:
        listener(event)
    except Exception:
        _logger.exception("A pool listener failed on %s", type(event).__name__)
