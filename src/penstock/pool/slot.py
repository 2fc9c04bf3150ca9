"""One place for one connection, and what is being done with it."""

import math
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any

__all__ = [
    "CHECKING",
    "CLOSING",
    "IDLE",
    "LENT",
    "MENDING",
    "OPENING",
    "CloseReason",
    "Slot",
    "SlotState",
]


class SlotState(Enum):
    """What is being done with a slot; in every state it counts towards the limit."""

    OPENING = "opening"
    IDLE = "idle"
    LENT = "lent"
    CHECKING = "checking"
    MENDING = "mending"
    CLOSING = "closing"


# A name of the module is found faster than a member of the enumeration, twice per loan.
OPENING, IDLE, LENT = SlotState.OPENING, SlotState.IDLE, SlotState.LENT
CHECKING, MENDING, CLOSING = SlotState.CHECKING, SlotState.MENDING, SlotState.CLOSING


class CloseReason(StrEnum):
    """Why a connection is closed."""

    DEAD = "dead"
    """It was found broken, or a ping was not answered."""
    INVALID = "invalid"
    """It was invalidated, by the application or by SQLAlchemy."""
    LIFETIME = "lifetime"
    """It had lived for as long as ``pool_recycle`` allows."""
    SURPLUS = "surplus"
    """Nobody needed it for ``overflow_idle``, or the pool was made smaller."""
    DISPOSED = "disposed"
    """The pool was disposed of or drained."""
    STATE = "state"
    """Its lease left session state on the server that cannot be undone in place."""
    LOST = "lost"
    """Whoever had borrowed it detached it, lost it, or kept it for too long."""


class Slot:
    """A place for a connection, from the order to open it until its server process is gone.

    All times are in seconds on the clock of the ledger's driver.

    Args:
        now: When the connection was ordered.
        for_upkeep: Whether no waiter asked for it.
        replaces: The slot that is retired when this one has opened.
    """

    __slots__ = (
        "content",
        "doomed",
        "expires_at",
        "for_upkeep",
        "lent_at",
        "loan",
        "opened_at",
        "replaces",
        "retire_at",
        "route",
        "since",
        "state",
        "waited_before",
    )

    def __init__(
        self, now: float, *, for_upkeep: bool = False, replaces: "Slot | None" = None
    ) -> None:
        self.state = OPENING
        self.since = now
        """When its connection was last known to work: opened, returned, mended or pinged."""
        self.lent_at = now
        self.opened_at = now
        self.retire_at = math.inf
        """When it is to be replaced; spread, so that connections of one age do not go together."""
        self.expires_at = math.inf
        """From here on it is not lent any more."""
        self.doomed: CloseReason | None = None
        """Why it is closed instead of lent again when it comes back."""
        self.for_upkeep = for_upkeep
        self.replaces = replaces
        self.content: Any = None
        """The driver's own: nothing here looks into it."""
        self.loan: Any = None
        """Who has it, while it is lent; the driver's own as well."""
        self.route: Callable[[], str] | None = None
        """Says in words who has it, while it is lent; None outside requests."""
        self.waited_before = (math.nan, 0.0)
        """When it was lent last to somebody who had to wait, and for how many seconds."""

    @property
    def waited(self) -> float:
        """Seconds for which its holder has waited for it."""
        lent_at, seconds = self.waited_before
        return seconds if lent_at == self.lent_at else 0.0
