"""The tables in a worker's file: routes, statements and leases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.telemetry.layout import (
    LAYOUT,
    LEASE_NUMBERS,
    LEASE_STATEMENT_BYTES,
    LEASES,
    ROUTE_BYTES,
    ROUTES,
    STATEMENT_BYTES,
    STATEMENTS,
)
from penstock.telemetry.reading import (
    ROUTE_FIELDS,
    STATEMENT_FIELDS,
    STATES,
    Checkpoint,
    LeaseSample,
)


@dataclass
class Table:
    """A fixed number of rows, each taken by the first name that needs one.

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
        self._taken: dict[tuple[str, ...], int] = {}
        self._written: dict[tuple[bytes, ...], int] = {}
        """Rows by the names as written, which are cut: several long names may share one."""

    def row(self, *name: str) -> int:
        """Return the index of a name's first number; take a row for it if it has none."""
        found = self._taken.get(name)
        return self._take(name) if found is None else found

    def _take(self, name: tuple[str, ...]) -> int:
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
        self._written[cut] = self._taken[name] = begin
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
