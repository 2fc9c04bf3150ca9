"""How fast one statement is answered, and how many reads of it may leave together."""

from time import monotonic

FAST = 0.001
"""Seconds that the server may take for a read. The reads of a batch are answered one after another:
of slower ones, it would have answered several connections at once."""
MOST, FIRST = 128, 8
"""Reads of one batch: at most, and as long as nothing is known of the statement."""
MOST_BYTES = 1_048_576
"""Bytes of a batch's answers: one that has more is cancelled, and each of its reads sent alone."""
SLOW_BATCHES = 3
"""Slow batches one after another until the statement stays out: once, it may be chance. It may come
back for one more."""
REST, LONGEST_REST = 0.25, 32.0
"""Seconds for which a statement stays out after that, or after a batch that failed: at first, and
after several times without a good batch between them."""
LATEST = 0.125
"""The weight of the latest answer in the average of those to reads that were sent alone."""


class Pace:
    """What is known of a statement's answers.

    Attributes:
        alone: Seconds that a read takes that is sent alone, the client's own delays included; 0
            before the first.
        is_kept: Whether the driver keeps the statement prepared, without which none is sent with
            others.
    """

    __slots__ = ("_bytes", "_limit", "_rest", "_rests_until", "_slow", "alone", "is_kept")

    def __init__(self) -> None:
        self.alone = 0.0
        self.is_kept = True
        self._limit = FIRST
        self._bytes = 1.0
        self._slow = 0
        self._rest = REST
        self._rests_until = 0.0

    def note(self, seconds: float) -> None:
        """Record a read that was sent alone.

        Args:
            seconds: What its answer took.
        """
        self.alone += (seconds - self.alone) * LATEST

    def note_batch(self, seconds: float, reads: int, size: int) -> None:
        """Record a batch that was answered.

        A busy client measures its own delays as well, alone as in a batch. What is beyond twice a
        lone read's time is the server's.

        Args:
            seconds: What the answer took.
            reads: How many were sent.
            size: Bytes of the answer.
        """
        self._bytes = max(1.0, size / reads)
        if seconds - 2 * self.alone > reads * FAST / 2:
            self._slow += 1
            if self._slow >= SLOW_BATCHES:
                self.rest()
            return
        self._slow, self._rest = 0, REST
        self._limit = min(MOST, 2 * self._limit)

    def rest(self) -> None:
        """Have the statement stay out of batches for a time, twice as long as the time before."""
        self._rests_until = monotonic() + self._rest
        self._rest = min(LONGEST_REST, 2 * self._rest)
        self._limit, self._slow = FIRST, SLOW_BATCHES - 1

    def most(self) -> int:
        """Return how many reads may leave together; below 2 for none."""
        if not (self.is_kept and self.alone) or monotonic() < self._rests_until:
            return 0
        return min(self._limit, int(MOST_BYTES / self._bytes))
