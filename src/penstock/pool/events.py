"""What happens in a pool, for whoever measures it."""

import logging
from dataclasses import dataclass
from typing import Protocol

from penstock.pool.leak import LeakReport
from penstock.pool.refusal import Refused
from penstock.pool.slot import CloseReason

__all__ = [
    "CheckedIn",
    "CheckedOut",
    "CheckoutRefused",
    "ConnectionClosed",
    "ConnectionMended",
    "ConnectionOpened",
    "Listeners",
    "LoanLeaked",
    "NestedCheckoutSeen",
    "OpeningFailed",
    "PoolEvent",
    "PoolListener",
]

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
)


class PoolListener(Protocol):
    """Somebody who wants to know; called in the event loop, and should be quick."""

    def __call__(self, event: PoolEvent, /) -> None:
        """Take note of an event; what it raises is logged and goes no further."""


class Listeners:
    """Those who listen to one pool; the same object goes on to the pool that replaces it."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: tuple[PoolListener, ...] = ()
        """Looked at before an event is made, which nobody may want."""

    def add(self, listener: PoolListener) -> None:
        """Call ``listener`` with every event from now on."""
        self.all += (listener,)

    def remove(self, listener: PoolListener) -> None:
        """Call ``listener`` no more; nothing where it was not called before."""
        self.all = tuple(known for known in self.all if known != listener)

    def tell(self, event: PoolEvent) -> None:
        """Tell everybody; a listener that fails is logged and harms nobody."""
        for listener in self.all:
            try:
                listener(event)
            except Exception:
                _logger.exception("A pool listener failed on %s", type(event).__name__)
