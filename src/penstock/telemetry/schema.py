"""What one worker counts, and where each number stands in its file."""

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from math import nan

__all__ = [
    "BOUNDS",
    "COUNTERS",
    "HISTOGRAMS",
    "LAYOUT",
    "SAMPLE",
    "Counters",
    "Histogram",
    "Layout",
    "Sample",
    "bucket_of",
    "quantile",
]

_PER_DOUBLING = 4
_FROM = 1e-6
_DOUBLINGS = 27

BOUNDS: tuple[float, ...] = tuple(
    _FROM * 2 ** (number / _PER_DOUBLING) for number in range(_PER_DOUBLING * _DOUBLINGS + 1)
)
"""Upper bounds in seconds, from a microsecond to 134 seconds; what is longer has a bucket of its
own behind them. A percentile is exact to 19 %."""


def bucket_of(seconds: float) -> int:
    """Return the index of the bucket for a duration; ``len(BOUNDS)`` for the last."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float:
    """Return the duration that a share of all did not exceed.

    Args:
        counts: How many durations are in each bucket.
        share: From 0.0 to 1.0.

    Returns:
        The upper bound of its bucket, in seconds; 0.0 where nothing was counted, and the largest
        bound for the last bucket.
    """
    rank = share * sum(counts)
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if count and seen >= rank:
            return BOUNDS[min(index, len(BOUNDS) - 1)]
    return 0.0


HISTOGRAMS = ("wait", "hold", "create", "ping", "commit")
"""What is timed: the wait for a connection, its lease, opening one, pinging one, COMMIT."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, counted by bucket.

    Args:
        counts: How many are in each bucket of ``BOUNDS``, and behind them how many are longer.
        seconds: Their sum.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that a share (0.0 to 1.0) of them did not exceed."""
        return quantile(self.counts, share)

    def __add__(self, other: "Histogram") -> "Histogram":
        counts = tuple(map(int.__add__, self.counts, other.counts))
        return Histogram(counts, self.seconds + other.seconds)


@dataclass(frozen=True, slots=True)
class Counters:
    """What has happened since a worker's start.

    Args:
        checkouts: Connections checked out.
        waits: Of them, those that had to be waited for.
        checkins: Connections that came back.
        refused: Callers that got none, whatever the reason.
        timeouts: Of them, those whose ``pool_timeout`` passed, not counting a suspended pool's.
        shed: Of them, those rejected at once, for too many waited.
        opened: Connections opened.
        open_failures: Attempts to open one that failed.
        closed: Connections closed.
        short_lived: Of them, those that were younger than a minute and not broken.
        died: Of them, those that the server had closed, that answered no ping, that broke, or that
            the application invalidated.
        recovered: Connections saved after a cancelled statement.
        leaks: Leases that lasted longer than ``leak_after``.
        nested: Tasks that asked for a second connection while all were checked out.
        slow: Statements that took longer than ``slow_query``.
    """

    checkouts: int = 0
    waits: int = 0
    checkins: int = 0
    refused: int = 0
    timeouts: int = 0
    shed: int = 0
    opened: int = 0
    open_failures: int = 0
    closed: int = 0
    short_lived: int = 0
    died: int = 0
    recovered: int = 0
    leaks: int = 0
    nested: int = 0
    slow: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        names = (each.name for each in fields(Counters))
        return Counters(*(getattr(self, name) + getattr(other, name) for name in names))


def _sum(default: int = 0) -> int:
    return field(default=default, metadata={"all": sum})


def _largest(default: float = 0.0) -> float:
    return field(default=default, metadata={"all": _largest_known})


def _largest_known(numbers: Iterable[float]) -> float:
    return max((number for number in numbers if number == number), default=nan)  # noqa: PLR0124 - NaN


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of one worker, or of all of them together.

    Args:
        at: Unix time of its end.
        size: ``pool_size``.
        limit: Connections that may be open at once; 0 for no limit.
        checked_in: Idle connections.
        checked_out: Checked out ones.
        overflow: Those above ``size``.
        opening: Those being opened.
        invalid: Those being closed or cleaned up.
        waiting: Callers that wait.
        idle_in_transaction: Checked out connections, within a transaction, on which no statement
            has run for five seconds or more.
        checkouts: As in :class:`Counters`, within this second, as are all that follow up to
            ``slow``.
        waits: As above.
        checkins: As above.
        refused: As above.
        timeouts: As above.
        shed: As above.
        opened: As above.
        open_failures: As above.
        closed: As above.
        short_lived: As above.
        died: As above.
        slow: As above.
        wait_seconds: Sum of the waits that ended within this second.
        hold_seconds: Sum of the leases that ended within it.
        wait_longest: The longest wait of those, or of those that still wait, in seconds.
        loop_late: Seconds by which the event loop was late for this sample.
        server_connections: Connections of everybody to the server; NaN while not known.
        server_limit: How many it accepts (``max_connections``); NaN while not known.
        replica_lag_bytes: What the replica furthest behind has not replayed; NaN without any.
        replica_lag_seconds: How far that is in time, as the server estimates it; NaN without any.
    """

    at: float
    size: int = _sum()
    limit: int = _sum()
    checked_in: int = _sum()
    checked_out: int = _sum()
    overflow: int = _sum()
    opening: int = _sum()
    invalid: int = _sum()
    waiting: int = _sum()
    idle_in_transaction: int = _sum()
    checkouts: int = _sum()
    waits: int = _sum()
    checkins: int = _sum()
    refused: int = _sum()
    timeouts: int = _sum()
    shed: int = _sum()
    opened: int = _sum()
    open_failures: int = _sum()
    closed: int = _sum()
    short_lived: int = _sum()
    died: int = _sum()
    slow: int = _sum()
    wait_seconds: float = field(default=0.0, metadata={"all": sum})
    hold_seconds: float = field(default=0.0, metadata={"all": sum})
    wait_longest: float = _largest()
    loop_late: float = _largest()
    server_connections: float = _largest(nan)
    server_limit: float = _largest(nan)
    replica_lag_bytes: float = _largest(nan)
    replica_lag_seconds: float = _largest(nan)

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is checked out, from 0.0 to 1.0; 0.0 where there is no limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    @staticmethod
    def of_all(samples: Sequence["Sample"]) -> "Sample":
        """Return the sample of several workers together, for one second.

        Args:
            samples: One of each worker; at least one.
        """
        together = {
            each.name: each.metadata["all"]([getattr(sample, each.name) for sample in samples])
            for each in fields(Sample)
            if each.name != "at"
        }
        return Sample(max(sample.at for sample in samples), **together)


COUNTERS = tuple(each.name for each in fields(Counters))
SAMPLE = tuple(each.name for each in fields(Sample))

SECONDS_KEPT = 900
"""Samples of the rolling history, one a second."""
ROUTES = 128
"""Routes that are told apart; what comes after them is counted as ``(other routes)``."""
ROUTE_NUMBERS = 3
ROUTE_BYTES = 160
STATEMENTS = 64
STATEMENT_NUMBERS = 6
STATEMENT_BYTES = 480
LEASES = 64
"""Connections that are checked out of which more is told than their number, the oldest."""
LEASE_NUMBERS = 3
LEASE_STATEMENT_BYTES = 240
FAULT_BYTES = 120
_NUMBER = 8


@dataclass(frozen=True)
class Layout:
    """The file is one array of 64-bit floats, and behind it the texts.

    Attributes:
        pid, started: Of the worker.
        written: How many samples were ever written; the next one's place is its remainder.
        is_closed: Whether the worker has closed its database; else it was lost.
        unreachable, failures: Unix time since when no connection could be opened, 0.0 while they
            can be, and the attempts that failed since then.
        counters, histograms, history, routes, statements, leases: Where each table begins.
        numbers: How many floats there are in all.
        route_texts, statement_texts: Where the names of routes, and of statements with theirs,
            begin, in bytes, and where those of leases do and the last failure to connect.
        size: Of the file, in bytes.
    """

    signature: int = 0
    pid: int = 1
    started: int = 2
    written: int = 3
    is_closed: int = 4
    unreachable: int = 5
    failures: int = 6
    counters: int = 7
    histograms: int = counters + len(COUNTERS)
    of_histogram: int = len(BOUNDS) + 2
    """Its buckets, and behind them the sum of the durations."""
    history: int = histograms + len(HISTOGRAMS) * of_histogram
    routes: int = history + SECONDS_KEPT * len(SAMPLE)
    statements: int = routes + ROUTES * ROUTE_NUMBERS
    leases: int = statements + STATEMENTS * STATEMENT_NUMBERS
    numbers: int = leases + LEASES * LEASE_NUMBERS
    route_texts: int = numbers * _NUMBER
    statement_texts: int = route_texts + ROUTES * ROUTE_BYTES
    lease_texts: int = statement_texts + STATEMENTS * (STATEMENT_BYTES + ROUTE_BYTES)
    fault_text: int = lease_texts + LEASES * (ROUTE_BYTES + LEASE_STATEMENT_BYTES)
    size: int = fault_text + FAULT_BYTES

    def histogram(self, name: str) -> int:
        """Return where the buckets of one of ``HISTOGRAMS`` begin."""
        return self.histograms + HISTOGRAMS.index(name) * self.of_histogram

    @property
    def version(self) -> float:
        """What tells a file of this layout from one of another release's."""
        said = repr((COUNTERS, SAMPLE, HISTOGRAMS, BOUNDS, self.size))
        return float(zlib.crc32(said.encode()))


LAYOUT = Layout()
