"""Where each number and text stands in a worker's file, and the tables in it."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from penstock.telemetry.reading import (
    CHECKPOINT_SECONDS,
    ROUTE_FIELDS,
    STATEMENT_FIELDS,
    STATES,
    Checkpoint,
    LeaseSample,
)
from penstock.telemetry.schema import BOUNDS, COUNTERS, HISTOGRAMS, SAMPLE

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

    @cached_property
    def version(self) -> float:
        """The checksum that tells a file of this layout from another release's."""
        tables = (COUNTERS, SAMPLE, HISTOGRAMS, ROUTE_FIELDS, STATEMENT_FIELDS)
        layout = repr((*map(tuple, tables), BOUNDS, self.size))
        return float(zlib.crc32(layout.encode()))


LAYOUT = Layout()


@dataclass(eq=False)
class Table(dict[tuple[str, ...], int]):
    """A fixed number of rows, each taken by the first name that needs one.

    ``table[name]`` is the index of a name's first number; a name without a row takes one.

    Args:
        numbers: All floats of the file.
        texts: All bytes of the file.
        begin: Index of its first number.
        width: Numbers per row.
        names_begin: Offset of its first name.
        name_bytes: Bytes for each part of a name.
        rows: Number of rows; the last one is shared by all names that find no free row.
    """

    numbers: "memoryview[float]"
    texts: memoryview
    begin: int
    width: int
    names_begin: int
    name_bytes: tuple[int, ...]
    rows: int

    def __post_init__(self) -> None:
        self._written: dict[tuple[bytes, ...], int] = {}
        """Rows by the names as written, which are cut: several long names may share one."""

    # Not for a name that has its row: that is looked up without a call, once per lease.
    def __missing__(self, name: tuple[str, ...]) -> int:
        cut = tuple(
            part.encode(errors="replace")[:room]
            for part, room in zip(name, self.name_bytes, strict=True)
        )
        if (known := self._written.get(cut)) is not None:
            return known
        number = len(self._written)
        if number >= self.rows - 1:
            return self.begin + (self.rows - 1) * self.width
        place = self.names_begin + number * sum(self.name_bytes)
        for part, room in zip(cut, self.name_bytes, strict=True):
            self.texts[place : place + len(part)] = part
            place += room
        begin = self.begin + number * self.width
        self._written[cut] = self[name] = begin
        return begin

    def read(self, others: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Sequence[float]]]:
        """Yield the name and the numbers of each row that is in use.

        Args:
            others: Name of the last row.
        """
        for number in range(self.rows):
            begin = self.begin + number * self.width
            values: Sequence[float] = self.numbers[begin : begin + self.width].tolist()
            if any(values):
                yield self.name(number, others), values

    def name(self, number: int, others: tuple[str, ...]) -> tuple[str, ...]:
        """Return the name of a row.

        Args:
            number: Of the row, from 0.
            others: Name of the last row.
        """
        return self._name(number) if number < self.rows - 1 else others

    def _name(self, number: int) -> tuple[str, ...]:
        place = self.names_begin + number * sum(self.name_bytes)
        parts = []
        for room in self.name_bytes:
            raw = bytes(self.texts[place : place + room]).rstrip(b"\0")
            parts.append(raw.decode(errors="ignore"))
            place += room
        return tuple(parts)


OTHER_ROUTES = ("(other routes)",)
OTHER_STATEMENTS = ("(other statements)", "")


def routes_of(numbers: "memoryview[float]", texts: memoryview) -> Table:
    """Return the table of routes, with the numbers of ``ROUTE_FIELDS``."""
    return Table(
        numbers,
        texts,
        begin=LAYOUT.routes,
        width=len(ROUTE_FIELDS),
        names_begin=LAYOUT.route_texts,
        name_bytes=(ROUTE_BYTES,),
        rows=ROUTES,
    )


def statements_of(numbers: "memoryview[float]", texts: memoryview) -> Table:
    """Return the table of statements, with the numbers of ``STATEMENT_FIELDS``."""
    return Table(
        numbers,
        texts,
        begin=LAYOUT.statements,
        width=len(STATEMENT_FIELDS),
        names_begin=LAYOUT.statement_texts,
        name_bytes=(STATEMENT_BYTES, ROUTE_BYTES),
        rows=STATEMENTS,
    )


def read_checkpoint(
    values: Sequence[float], numbers: "memoryview[float]", texts: memoryview
) -> Checkpoint:
    """Return the totals of routes and statements that were kept at one moment.

    Args:
        values: The checkpoint's numbers, checked.
        numbers: All floats of the file.
        texts: All bytes of the file.
    """
    at, *totals = values
    routes, statements = routes_of(numbers, texts), statements_of(numbers, texts)
    of_statements = 2 * ROUTES
    return Checkpoint(
        at,
        {routes.name(row, OTHER_ROUTES)[0]: pair for row, pair in _pairs(totals[:of_statements])},
        {
            (statement, route): pair
            for row, pair in _pairs(totals[of_statements:])
            for statement, route in [statements.name(row, OTHER_STATEMENTS)]
        },
    )


def _pairs(values: Sequence[float]) -> Iterator[tuple[int, tuple[float, float]]]:
    for row, (count, seconds) in enumerate(zip(values[::2], values[1::2], strict=True)):
        if count:
            yield row, (count, seconds)


_NAME = ROUTE_BYTES + LEASE_STATEMENT_BYTES


def write_leases(
    numbers: "memoryview[float]", texts: memoryview, leases: Sequence[LeaseSample]
) -> None:
    """Write the leases of this moment in place of the previous ones.

    Args:
        numbers: All floats of the file.
        texts: All bytes of the file.
        leases: At most ``LEASES``.
    """
    for number, lease in enumerate(leases):
        begin = LAYOUT.leases + number * LEASE_NUMBERS
        place = LAYOUT.lease_texts + number * _NAME
        numbers[begin] = 0.0  # no reader mistakes the previous lease for this one
        texts[place : place + _NAME] = _padded(lease.route, ROUTE_BYTES) + _padded(
            lease.statement, LEASE_STATEMENT_BYTES
        )
        numbers[begin + 1] = float(STATES.index(lease.state))
        numbers[begin + 2] = float(lease.is_overdue)
        numbers[begin] = lease.since
    for number in range(len(leases), LEASES):
        begin = LAYOUT.leases + number * LEASE_NUMBERS
        if not numbers[begin]:
            break
        numbers[begin] = 0.0


def read_leases(values: Sequence[float], texts: memoryview) -> tuple[LeaseSample, ...]:
    """Return the leases that were written, the oldest first.

    Args:
        values: The numbers of all rows, checked.
        texts: All bytes of the file.
    """
    return tuple(
        LeaseSample(
            _text(texts, number, 0, ROUTE_BYTES),
            values[begin],
            STATES[min(int(values[begin + 1]), len(STATES) - 1)],
            bool(values[begin + 2]),
            _text(texts, number, ROUTE_BYTES, LEASE_STATEMENT_BYTES),
        )
        for number, begin in enumerate(range(0, len(values), LEASE_NUMBERS))
        if values[begin]
    )


def _padded(text: str, room: int) -> bytes:
    return text.encode(errors="replace")[:room].ljust(room, b"\0")


def _text(texts: memoryview, number: int, begin: int, room: int) -> str:
    place = LAYOUT.lease_texts + number * _NAME + begin
    return bytes(texts[place : place + room]).rstrip(b"\0").decode(errors="ignore")
