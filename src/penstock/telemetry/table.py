"""Rows of numbers under names, in the memory that other processes read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Table"]


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
