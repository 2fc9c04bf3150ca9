"""How many rows an answer of the driver's stands for."""

from typing import Any

__all__ = ["count", "rows_of"]


def count(status: str) -> int:
    """Return the number at the end of a command's tag, such as ``INSERT 0 1``; 0 without one."""
    number = status.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0


def rows_of(answer: Any) -> int:
    """Return the rows that a statement has returned or changed; 0 where the answer tells nothing.

    Args:
        answer: Records, what holds ``records``, a command's tag, or anything else.
    """
    if isinstance(answer, str):
        return count(answer)
    records = getattr(answer, "records", answer)
    return len(records) if isinstance(records, list) else 0
