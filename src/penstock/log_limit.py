"""A bound on what a log gets in a second: a thousand lines of one kind say no more than ten."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from time import monotonic

LINES = 10
"""Lines of one kind in a second: more would say no more, and fill a disk."""


@dataclass(slots=True)
class LogLimit:
    """Counts lines of one kind, of which no more than ``LINES`` are written in a second.

    Args:
        clock: Gives seconds.
    """

    clock: Callable[[], float] = monotonic
    _since: float = field(default=-inf, init=False)
    _written: int = field(default=0, init=False)
    _left_out: int = field(default=0, init=False)

    def passes(self) -> int | None:
        """Count a line.

        Returns:
            How many were left out before it, which is to be said once; None where it is to be
            left out itself.
        """
        now = self.clock()
        if now - self._since >= 1.0:
            self._since, self._written = now, 0
        if self._written == LINES:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
