"""How long a connection lives, and how long the next attempt to open one waits."""

import math
from random import Random

__all__ = ["Backoff", "Lifetime"]

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
        """Return when it may not be lent any more."""
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
