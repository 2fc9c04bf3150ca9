"""A place for one connection, its state, and how long its connection lives."""

import math
from collections.abc import Callable
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


class Slot:
    """A place for a connection, from before it is opened until its server process has ended.

    All times are in seconds, on the clock of the ledger's caller.

    Args:
        now: The time.
        for_housekeeping: Whether the connection is opened for no waiter.
        replaces: The slot that is evicted once this one's connection is open.
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
        """When its connection last worked: was opened, released, recovered or pinged."""
        self.checked_out_at = now
        """When it was checked out last."""
        self.opened_at = now
        """When its connection was opened."""
        self.retire_at = math.inf
        """When it is due for replacement; random, so that connections of one age are spread."""
        self.expires_at = math.inf
        """When its connection reaches ``pool_recycle``; from then on it is not checked out."""
        self.eviction: CloseReason | None = None
        """Why it is closed on its release; None where it is not marked for eviction."""
        self.for_housekeeping = for_housekeeping
        self.replaces = replaces
        self.content: Any = None
        """The pool's record of the connection; the ledger does not read it."""
        self.lease: Any = None
        """The lease or task that holds it while it is checked out; the ledger does not read it."""
        self.route: Callable[[], str] | None = None
        """Returns the route of the request that holds it; None outside requests."""
        self.waited_before = (math.nan, 0.0)
        """When it was last checked out to a waiter, and the seconds that one had waited."""

    @property
    def waited(self) -> float:
        """Seconds that its holder waited for it."""
        checked_out_at, seconds = self.waited_before
        return seconds if checked_out_at == self.checked_out_at else 0.0


JITTER = 0.1
"""Share of ``pool_recycle`` over which the replacements of connections of one age are spread."""

FIRST_DELAY = 0.05
LONGEST_DELAY = 1.0
"""Seconds between two attempts to connect: after the first failure, and at most."""
FIRST_DELAY_REFUSED = 1.0
LONGEST_DELAY_REFUSED = 30.0
"""The same where the server refuses the password: some servers lock the account out."""


class Lifetime:
    """When connections are replaced.

    Args:
        recycle: Seconds that a connection is used at most; below 0 for no limit.
        random: The source of the jitter.
    """

    __slots__ = ("_random", "recycle")

    def __init__(self, recycle: float, random: Random) -> None:
        self.recycle = recycle
        self._random = random

    def retire_at(self, opened_at: float) -> float:
        """Return when a connection is due for replacement: up to 10 % before it expires.

        Args:
            opened_at: When it was opened.
        """
        if self.recycle < 0:
            return math.inf
        return opened_at + self.recycle * (1.0 - JITTER * self._random.random())

    def expires_at(self, opened_at: float) -> float:
        """Return when a connection expires: from then on it is not checked out.

        Args:
            opened_at: When it was opened.
        """
        return math.inf if self.recycle < 0 else opened_at + self.recycle


class Backoff:
    """The delay between attempts to connect, which grows with each failure.

    Args:
        random: The source of the jitter: half of each delay is random, so that workers do not
            reconnect together.
        timeout: Seconds that a caller waits; None for no limit. A delay is at most half of it,
            unless the server refused, so that an attempt is made while each caller waits.
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

    def __init__(self, random: Random, timeout: float | None = None) -> None:
        self._random = random
        self._longest = min(LONGEST_DELAY, timeout / 2) if timeout else LONGEST_DELAY
        self._failures = 0
        self.until = -math.inf
        """No attempt is made before this time."""
        self.failing_since = math.inf
        """When the first attempt since the last success failed."""
        self.refused = False
        """Whether the server refused the connection, so that an early retry is useless."""
        self.last_error: BaseException | None = None
        """The error of the last attempt; None after a success."""

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt that has ended failed."""
        return self._failures > 0

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
        """Record that a connection was opened."""
        self._failures = 0
        self.refused = False
        self.until = -math.inf
        self.failing_since = math.inf
        self.last_error = None
