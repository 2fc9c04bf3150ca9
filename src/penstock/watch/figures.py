"""Numbers as people read them, and as small pictures."""

from collections.abc import Sequence

_UNKNOWN = "-"
_LEVELS = "▁▂▃▄▅▆▇█"
_PLAIN_LEVELS = "_.-=+*#@"


def count(number: float | None) -> str:
    """Return a number of things."""
    return _UNKNOWN if number is None else f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """Return a time of at most eight characters, with its unit."""
    if seconds is None:
        return _UNKNOWN
    if seconds < 0.9995:
        return f"{_three(seconds * 1000)} ms"
    if seconds < 99.5:
        return f"{_three(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 100 else f"{round(hours / 24):,} d"


def age(seconds: float | None) -> str:
    """Return a time in whole units."""
    if seconds is None or seconds >= 99.5:
        return duration(seconds)
    return f"{seconds:.0f} s"


def _three(number: float) -> str:
    # Three digits say all that a percentile of buckets knows.
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f}"


def size(amount: float) -> str:
    """Return a number of bytes, with its unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{_three(amount)} {unit}"
        amount /= 1000
    return f"{amount:,.0f} TB"


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """Return a bar of so many characters, filled to a share from 0.0 to 1.0.

    It is never empty for more than nothing, nor full for less than all.
    """
    full, empty = "#." if ascii_only else "█░"
    filled = round(min(max(share, 0.0), 1.0) * width)
    if share > 0:
        filled = max(filled, 1)
    if share < 1:
        filled = min(filled, width - 1)
    return full * filled + empty * (width - filled)


def sparkline(numbers: Sequence[float | None], top: float, *, ascii_only: bool = False) -> str:
    """Return a character for each number, higher for more; a space for what is not known.

    Args:
        numbers: From zero on.
        top: What the highest character stands for.
        ascii_only: For a terminal that has no others.
    """
    levels = _PLAIN_LEVELS if ascii_only else _LEVELS
    return "".join(" " if each is None else levels[_level(each, top)] for each in numbers)


def _level(number: float, top: float) -> int:
    if number <= 0 or top <= 0:
        return 0
    # Something is never drawn as nothing.
    return min(max(round(number / top * 7), 1), 7)
