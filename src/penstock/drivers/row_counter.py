"""How many rows each of several answers has that come one behind another."""

from collections.abc import Callable

_HEADER = 5
_ROW = ord("D")
_ENDS = frozenset(b"CI")
"""CommandComplete, and what stands in its place for an empty statement."""


class RowCounter:
    """Counts the rows of each answer in what a server sends, however that is cut into pieces.

    https://www.postgresql.org/docs/current/protocol-message-formats.html

    Args:
        most: Bytes that may come.
        exceed: Called each time that more have come.

    Attributes:
        counts: Rows of each answer that has ended.
        received: Bytes of all of them.
    """

    __slots__ = ("_cut", "_exceed", "_most", "_rows", "_skip", "counts", "received")

    def __init__(self, most: int, exceed: Callable[[], object]) -> None:
        self._most = most
        self._exceed = exceed
        self.counts: list[int] = []
        self.received = 0
        self._rows = 0
        self._skip = 0
        """Bytes that are left of the message that was begun last."""
        self._cut = b""
        """The beginning of a header."""

    def feed(self, data: bytes | bytearray) -> None:
        """Count what has come.

        Args:
            data: The next bytes, from the beginning of a message on.
        """
        self.received += len(data)
        if self.received > self._most:
            self._exceed()
        if self._cut:
            data = self._cut + data
        at, size, rows = self._skip, len(data), self._rows
        while size - at >= _HEADER:
            kind = data[at]
            if kind == _ROW:
                rows += 1
            elif kind in _ENDS:
                self.counts.append(rows)
                rows = 0
            at += 1 + int.from_bytes(data[at + 1 : at + _HEADER])
        self._rows = rows
        self._cut = bytes(data[at:]) if at < size else b""
        self._skip = max(0, at - size)
