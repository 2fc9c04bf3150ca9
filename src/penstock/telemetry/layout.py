"""Where each number and text stands in a worker's file."""

import zlib
from dataclasses import dataclass

from penstock.telemetry.histogram import BOUNDS
from penstock.telemetry.reading import CHECKPOINT_SECONDS, ROUTE_FIELDS, STATEMENT_FIELDS
from penstock.telemetry.schema import COUNTERS, HISTOGRAMS, SAMPLE

SECONDS_KEPT = 900
"""Samples of the rolling history, one per second."""
CHECKPOINTS = SECONDS_KEPT // CHECKPOINT_SECONDS + 1
ROUTES = 128
"""Rows for routes; the last one is ``(other routes)``."""
ROUTE_BYTES = 160
STATEMENTS = 64
"""Rows for statements; the last one is ``(other statements)``."""
STATEMENT_BYTES = 480
LEASES = 64
"""Leases that are written in detail, the oldest first."""
LEASE_NUMBERS = 3
LEASE_STATEMENT_BYTES = 240
FAULT_BYTES = 120
_NUMBER = 8


@dataclass(frozen=True)
class Layout:
    """The file is one array of 64-bit floats, followed by the texts.

    Attributes:
        pid, started: Process number and start of the worker.
        written: Number of samples ever written; its remainder is the place of the next one.
        is_closed: 1.0 once the worker has closed its database; a worker that ends without is lost.
        unreachable, failures: Unix time since when no connection can be opened (0.0 while
            connections can be opened), and the number of failed attempts since then.
        counters, histograms, history, routes, statements, leases, checkpoints: Index of the first
            number of each table.
        of_checkpoint: Numbers of one checkpoint: its Unix time, then the first two numbers of each
            row of the routes and of the statements.
        numbers: Number of floats.
        route_texts, statement_texts, lease_texts, fault_text: Offset in bytes of the names of
            routes, the texts and routes of statements and of leases, and the reason of the last
            failure to connect.
        size: Size of the file in bytes.
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
    """Numbers of one histogram: its buckets, then the sum of the durations."""
    history: int = histograms + len(HISTOGRAMS) * of_histogram
    routes: int = history + SECONDS_KEPT * len(SAMPLE)
    statements: int = routes + ROUTES * len(ROUTE_FIELDS)
    leases: int = statements + STATEMENTS * len(STATEMENT_FIELDS)
    checkpoints: int = leases + LEASES * LEASE_NUMBERS
    of_checkpoint: int = 1 + 2 * (ROUTES + STATEMENTS)
    numbers: int = checkpoints + CHECKPOINTS * of_checkpoint
    route_texts: int = numbers * _NUMBER
    statement_texts: int = route_texts + ROUTES * ROUTE_BYTES
    lease_texts: int = statement_texts + STATEMENTS * (STATEMENT_BYTES + ROUTE_BYTES)
    fault_text: int = lease_texts + LEASES * (ROUTE_BYTES + LEASE_STATEMENT_BYTES)
    size: int = fault_text + FAULT_BYTES

    def counter(self, name: str) -> int:
        """Return the index of one of ``COUNTERS``."""
        return self.counters + list(COUNTERS).index(name)

    def histogram(self, name: str) -> int:
        """Return the index of the first bucket of one of ``HISTOGRAMS``."""
        return self.histograms + list(HISTOGRAMS).index(name) * self.of_histogram

    @property
    def version(self) -> float:
        """The checksum that tells a file of this layout from another release's."""
        tables = (COUNTERS, SAMPLE, HISTOGRAMS, ROUTE_FIELDS, STATEMENT_FIELDS)
        layout = repr((*map(tuple, tables), BOUNDS, self.size))
        return float(zlib.crc32(layout.encode()))


LAYOUT = Layout()
