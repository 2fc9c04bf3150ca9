"""The tables of a worker's file: routes, slow statements, and leases."""

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
from penstock.telemetry.reading import ROUTE_FIELDS, STATEMENT_FIELDS, STATES, LeaseSample

__all__ = [
    "OTHER_ROUTES",
    "OTHER_STATEMENTS",
    "Table",
    "read_leases",
    "routes_of",
    "statements_of",
    "write_leases",
]


@dataclass
class Table:
    """So many rows, of which each is taken by the first name that needs one.

    Args:
        numbers: All floats of the file.
        texts: All bytes of the file.
        begin: Where its first number stands.
        width: Numbers in a row.
        names_begin: Where its first name stands.
        name_bytes: Bytes for each part of a name.
        rows: How many rows there are; the last is for everything that finds no other.
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
        """By the names as they are read, of which one may stand for several long ones."""

    def row(self, *name: str) -> int:
        """Return where the numbers of a name's row begin; take a row where it has none."""
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
        """Give each row that was used, its name first.

        Args:
            others: The name of the last row.
        """
        for number in range(self.rows):
            begin = self.begin + number * self.width
            values: Sequence[float] = self.numbers[begin : begin + self.width].tolist()
            if any(values):
                yield self._name(number) if number < self.rows - 1 else others, values

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
    """Return the table of routes: checkouts, seconds, the longest."""
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
    """Return that of statements: calls, seconds, longest, rows, most in a request, last call."""
    return Table(
        numbers,
        texts,
        begin=LAYOUT.statements,
        width=len(STATEMENT_FIELDS),
        names_begin=LAYOUT.statement_texts,
        name_bytes=(STATEMENT_BYTES, ROUTE_BYTES),
        rows=STATEMENTS,
    )


_NAME = ROUTE_BYTES + LEASE_STATEMENT_BYTES


def write_leases(
    numbers: "memoryview[float]", texts: memoryview, leases: Sequence[LeaseSample]
) -> None:
    """Write the leases of this moment in the place of those before.

    Args:
        numbers: All floats of the file.
        texts: All bytes of the file.
        leases: At most ``LEASES``.
    """
    for number, lease in enumerate(leases):
        begin = LAYOUT.leases + number * LEASE_NUMBERS
        place = LAYOUT.lease_texts + number * _NAME
        numbers[begin] = 0.0  # no reader takes the one before for this one
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
    """Return what was written, those first that have lasted longest.

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
