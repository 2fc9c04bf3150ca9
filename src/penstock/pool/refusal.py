"""Why a waiter gets no connection."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Refusal", "Refused"]


class Refused(StrEnum):
    """The phase in which an asker was refused."""

    WAITING = "waiting"
    """Its deadline passed while every connection was lent."""
    CONNECTING = "connecting"
    """Its deadline passed while a connection was being opened."""
    SHED = "shed"
    """The queue had been standing for too long, and it was its turn to go."""
    HOPELESS = "hopeless"
    """At the pace of the queue its turn would have come after its deadline."""
    FULL = "full"
    """As many as may wait were waiting."""
    SUSPENDED = "suspended"
    """Its deadline passed while lending was suspended."""
    CLOSED = "closed"
    """The pool lends nothing any more."""
    NESTED = "nested"
    """It waited for itself: its task holds a connection of the saturated pool."""
    FAILED = "failed"
    """A connection could not be opened."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a waiter gets instead of a slot.

    Args:
        why: The phase.
        error: What the driver raised, where a connection could not be opened.
    """

    why: Refused
    error: BaseException | None = None
