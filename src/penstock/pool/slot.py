"""A place for one connection, its state, and how long its connection lives."""

import math
from collections.abc import Callable
from enum import Enum, StrEnum
from random import Random
from typing import Any

__all__ = [
    "CHECKED_OUT",
    "CHECKING",
    "CLOSING",
    "IDLE",
    "OPENING",
    "RECOVERING",
    "Backoff",
    "CloseReason",
    "Lifetime",
    "Slot",
    "SlotState",
]


class SlotState(Enum):
    """What is being done with a slot; in every state it counts towards the limit."""

    OPENING = "opening"
    IDLE = "idle"
    CHECKED_OUT = "checked out"
    CHECKING = "checking"
    RECOVERING = "recovering"
    CLOSING = "closing"


# A name of the module is found faster than a member of the enumeration, twice per lease.
OPENING, IDLE, CHECKED_OUT = SlotState.OPENING, SlotState.IDLE, SlotState.CHECKED_OUT
CHECKING, RECOVERING, CLOSING = SlotState.CHECKING, SlotState.RECOVERING, SlotState.CLOSING


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
    """Whoever had checked out it detached it, lost it, or kept it for too long."""


class Slot:
    """A place for a connection, from the order to open it until its server process is gone.

    All times are in seconds on the clock of the ledger's driver.

    Args:
        now: When the connection was ordered.
        for_housekeeping: Whether no waiter asked for it.
        replaces: The slot that is retired when this one has opened.
    """

    __slots__ = (
        "checked_out_at",
        "content",
        "eviction",
        "expires_at",
        "for_housekeeping",
        "lease",
        "opened_at",
        "replaces",
        "retire_at",
        "route",
        "since",
        "state",
        "waited_before",
    )

    def __init__(
        self, now: float, *, for_housekeeping: bool = False, replaces: "Slot | None" = None
    ) -> None:
        self.state = OPENING
        self.since = now
        """When its connection was last known to work: opened, returned, recovered or pinged."""
        self.checked_out_at = now
        self.opened_at = now
        self.retire_at = math.inf
        """When it is to be replaced; spread, so that connections of one age do not go together."""
        self.expires_at = math.inf
        """From here on it is not checked out any more."""
        self.eviction: CloseReason | None = None
        """Why it is closed instead of checked out again when it comes back."""
        self.for_housekeeping = for_housekeeping
        self.replaces = replaces
        self.content: Any = None
        """The driver's own: nothing here looks into it."""
        self.lease: Any = None
        """Who has it, while it is checked out; the driver's own as well."""
        self.route: Callable[[], str] | None = None
        """Says in words who has it, while it is checked out; None outside requests."""
        self.waited_before = (math.nan, 0.0)
        """When it was checked out last to somebody who had to wait, and for how many seconds."""

    @property
    def waited(self) -> float:
        """Seconds for which its holder has waited for it."""
        checked_out_at, seconds = self.waited_before
        return seconds if checked_out_at == self.checked_out_at else 0.0


JITTER = 0.1
"""Share of a lifetime over which the retirements of one age are spread."""

FIRST_DELAY = 0.05
LONGEST_DELAY = 1.0
FIRST_DELAY_REFUSED = 1.0
LONGEST_DELAY_REFUSED = 30.0
"""Seconds. A server that refuses the password is asked seldom: some lock the account out."""


class Lifetime:
    """Sets when a connection retires.

    Args:
        recycle: Seconds that a connection is used at most; below 0 for ever.
        random: Where the jitter comes from.
    """

    __slots__ = ("_random", "recycle")

    def __init__(self, recycle: float, random: Random) -> None:
        self.recycle = recycle
        self._random = random

    def retire_at(self, opened_at: float) -> float:
        """Return when it is to be replaced: up to 10 % earlier than it expires."""
        if self.recycle < 0:
            return math.inf
        return opened_at + self.recycle * (1.0 - JITTER * self._random.random())

    def expires_at(self, opened_at: float) -> float:
        """Return when it may not be checked out any more."""
        return math.inf if self.recycle < 0 else opened_at + self.recycle


class Backoff:
    """Keeps attempts to open a connection apart, the longer the more of them have failed.

    Args:
        random: Half of each delay is random, so that workers do not come back together.
        patience: Seconds that a caller waits; None for as long as it takes. Delays are at most
            half of it, unless the server said no: each caller has an attempt of its own time.
    """

    __slots__ = (
        "_failures",
        "_longest",
        "_random",
        "failing_since",
        "last_error",
        "refused",
        "until",
    )

    def __init__(self, random: Random, patience: float | None = None) -> None:
        self._random = random
        self._longest = min(LONGEST_DELAY, patience / 2) if patience else LONGEST_DELAY
        self._failures = 0
        self.until = -math.inf
        """Before this no attempt is made."""
        self.failing_since = math.inf
        """When the first attempt failed after the last that succeeded."""
        self.refused = False
        """Whether the server answered and said no, so that trying again soon is of no use."""
        self.last_error: BaseException | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the newest attempt that has ended came to nothing."""
        return self._failures > 0

    def failed(self, now: float, error: BaseException, *, refused: bool) -> None:
        """Note a failed attempt; those that were made together count as one."""
        self.failing_since = min(self.failing_since, now)
        if now < self.until and refused == self.refused:
            self.last_error = error
            return
        if refused != self.refused:
            self._failures = 0
        self.refused = refused
        self.last_error = error
        first, longest = (
            (FIRST_DELAY_REFUSED, LONGEST_DELAY_REFUSED)
            if refused
            else (FIRST_DELAY, self._longest)
        )
        delay = min(longest, first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self.until = now + delay * (0.5 + 0.5 * self._random.random())

    def succeeded(self) -> None:
        """Note that a connection was opened."""
        self._failures = 0
        self.refused = False
        self.until = -math.inf
        self.failing_since = math.inf
        self.last_error = None
