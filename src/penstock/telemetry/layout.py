"""Where each number and each name of one worker stands in its file."""

import zlib
from dataclasses import dataclass, fields

from penstock.telemetry.buckets import BOUNDS
from penstock.telemetry.histogram import HISTOGRAMS
from penstock.telemetry.sample import Counters, Sample

__all__ = ["COUNTERS", "LAYOUT", "SAMPLE", "Layout"]

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
