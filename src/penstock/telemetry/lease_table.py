"""The leases of one worker's newest sample, in the memory that other processes read."""

from collections.abc import Sequence

from penstock.telemetry.layout import (
    LAYOUT,
    LEASE_NUMBERS,
    LEASE_STATEMENT_BYTES,
    LEASES,
    ROUTE_BYTES,
)
from penstock.telemetry.reading import STATES, Lease

__all__ = ["read_leases", "write_leases"]

_NAME = ROUTE_BYTES + LEASE_STATEMENT_BYTES


def write_leases(numbers: "memoryview[float]", texts: memoryview, leases: Sequence[Lease]) -> None:
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


def read_leases(values: Sequence[float], texts: memoryview) -> tuple[Lease, ...]:
    """Return what was written, those first that have lasted longest.

    Args:
        values: The numbers of all rows, checked.
        texts: All bytes of the file.
    """
    return tuple(
        Lease(
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
