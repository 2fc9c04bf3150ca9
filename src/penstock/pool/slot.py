"""A place for one connection, its state, what is to be done for it, and the delay of attempts."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from random import Random
from typing import Any


class SlotState(Enum):
    """The state of a slot; in every state it counts towards the limit."""

    OPENING = "opening"
    IDLE = "idle"
    CHECKED_OUT = "checked out"
    CHECKING = "checking"
    RECOVERING = "recovering"
    CLOSING = "closing"


# A module's name is looked up faster than an enumeration's member, twice in each lease.
OPENING, IDLE, CHECKED_OUT = SlotState.OPENING, SlotState.IDLE, SlotState.CHECKED_OUT
CHECKING, RECOVERING, CLOSING = SlotState.CHECKING, SlotState.RECOVERING, SlotState.CLOSING


class CloseReason(StrEnum):
    """Why a connection is closed."""

    DEAD = "dead"
    """It was broken, or a ping was not answered."""
    INVALID = "invalid"
    """It was invalidated, by the application or by SQLAlchemy."""
    LIFETIME = "lifetime"
    """It was older than ``pool_recycle`` allows."""
    SURPLUS = "surplus"
    """It was not needed for ``overflow_idle``, or the pool was made smaller."""
    DISPOSED = "disposed"
    """The pool was disposed or drained."""
    STATE = "state"
    """Its lease left session state on the server that only a new connection is free of."""
    LOST = "lost"
    """Its holder detached it, lost it, or kept it for too long."""


@dataclass(slots=True, eq=False)
class Slot:
    """A place for a connection, from before it is opened until its server process has ended.

    All times are in seconds, on the clock of the ledger's caller.

    Args:
        since: When its connection last worked: was opened, checked out, recovered or pinged.
        for_housekeeping: Whether the connection is opened for no waiter.
        replaces: The slot that is evicted once this one's connection is open.
    """

    since: float
    for_housekeeping: bool = field(default=False, kw_only=True)
    replaces: "Slot | None" = field(default=None, kw_only=True)
    state: SlotState = OPENING
    checked_out_at: float = math.nan
    """When it was checked out last."""
    opened_at: float = math.nan
    """When its connection was opened."""
    retire_at: float = math.inf
    """When it is due for replacement; random, so that connections of one age are spread."""
    expires_at: float = math.inf
    """When its connection reaches ``pool_recycle``; from then on it is not checked out."""
    eviction: CloseReason | None = None
    """Why it is closed on its release; None where it is not marked for eviction."""
    content: Any = None
    """The pool's record of the connection; the ledger does not read it."""
    lease: Any = None
    """The lease or task that holds it while it is checked out; the ledger does not read it."""
    route: Callable[[], str] | None = None
    """Returns the route of the request that holds it; None outside requests."""
    waited_before: tuple[float, float] = (math.nan, 0.0)
    """When it was last checked out to a waiter, and the seconds that one had waited."""

    @property
    def waited(self) -> float:
        """Seconds that its holder waited for it."""
        checked_out_at, seconds = self.waited_before
        return seconds if checked_out_at == self.checked_out_at else 0.0


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection for the slot, then report ``opened`` or ``failed``."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Close:
    """Close the slot's connection, wait until its server process has ended, then ``remove``."""

    slot: Slot
    why: CloseReason


@dataclass(frozen=True, slots=True)
class Ping:
    """Ping the slot's idle connection, then ``restore`` or ``close_connection``."""

    slot: Slot


Action = Open | Close | Ping


FIRST_DELAY = 0.05
LONGEST_DELAY = 1.0
"""Seconds between two attempts to connect: after the first failure, and at most."""
FIRST_DELAY_REFUSED = 1.0
LONGEST_DELAY_REFUSED = 30.0
"""The same where the server refuses the password: some servers lock the account out."""


class Backoff:
    """The delay between attempts to connect, which grows with each failure.

    Args:
        random: The source of the jitter: half of each delay is random, so that workers do not
            reconnect together.
        timeout: Seconds that a caller waits; None for no limit. A delay is at most half of it,
            unless the server refused, so that an attempt is made while each caller waits.
    """

    __slots__ = (
        "_longest",
        "_random",
        "failing_since",
        "failures",
        "last_error",
        "refused",
        "until",
    )

    def __init__(self, random: Random, timeout: float | None = None) -> None:
        self._random = random
        self._longest = min(LONGEST_DELAY, timeout / 2) if timeout else LONGEST_DELAY
        self.failures = 0
        """Failed attempts since the last success; those that were made together count as one."""
        self.until = -math.inf
        """No attempt is made before this time."""
        self.failing_since = math.inf
        """When the first attempt since the last success failed."""
        self.refused = False
        """Whether the server refused the connection, so that an early retry is useless."""
        self.last_error: BaseException | None = None
        """The error of the last attempt; None after a success."""

    def failed(self, now: float, error: BaseException, *, refused: bool) -> None:
        """Record a failed attempt; attempts that were made together count as one.

        Args:
            now: The time.
            error: The driver's error.
            refused: Whether the server refused the connection, as for a wrong password.
        """
        self.failing_since = min(self.failing_since, now)
        if now < self.until and refused == self.refused:
            self.last_error = error
            return
        if refused != self.refused:
            self.failures = 0
        self.refused = refused
        self.last_error = error
        first, longest = (
            (FIRST_DELAY_REFUSED, LONGEST_DELAY_REFUSED)
            if refused
            else (FIRST_DELAY, self._longest)
        )
        delay = min(longest, first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        self.until = now + delay * (0.5 + 0.5 * self._random.random())

    def succeeded(self) -> None:
        """Record that a connection was opened."""
        self.failures = 0
        self.refused = False
        self.until = -math.inf
        self.failing_since = math.inf
        self.last_error = None


@dataclass(slots=True)
class Tally:
    """Counts of connections; ``opened`` is the sum of ``closed`` and the open ones."""

    opened: int = 0
    closed: int = 0
    open_failures: int = 0


JITTER = 0.1
"""Share of ``recycle`` over which the replacements of connections of one age are spread."""


def limit_of(size: int, overflow: int) -> float:
    """Return how many connections may be open at once."""
    return math.inf if size == 0 or overflow < 0 else size + overflow
