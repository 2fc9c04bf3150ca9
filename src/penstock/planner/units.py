"""Durations and sizes as people write them: ``4ms``, ``8GB``."""

import re
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from penstock.settings import Accepted

_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zµ]+)\s*", re.IGNORECASE)
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTES = {"kb": 2.0**10, "mb": 2.0**20, "gb": 2.0**30, "tb": 2.0**40}
_BYTES |= {f"{unit[0]}ib": size for unit, size in _BYTES.items()}
MIB = 2**20
_ROUNDED_UP = 0.9995
"""Share of a unit from which on three digits show a whole one."""
_THREE_DIGITS = 99.95
_LEAST_RATE = 1e-3
_LARGEST_SHARE = 9.995


def _number(value: object, units: dict[str, float]) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a bool is no number")
    if not isinstance(value, str):
        return value
    found = _WRITTEN.fullmatch(value)
    if found is None or (unit := units.get(found[2].lower())) is None:
        raise PydanticCustomError("unit", "no number with a unit")
    return float(found[1]) * unit


def _seconds(value: object) -> object:
    return _number(value, _SECONDS)


def _bytes(value: object) -> object:
    number = _number(value, _BYTES)
    return int(number) if isinstance(number, float) else number


OptionalDuration = Annotated[
    float | None,
    BeforeValidator(_seconds),
    Accepted("a duration above 0 and up to 1h, such as 4ms, 1.5s or 2min,"),
]
"""Seconds, or text with a unit."""
Duration = Annotated[
    float, BeforeValidator(_seconds), Accepted("a duration from 0s to 1h, such as 4ms or 1.5s,")
]
"""Seconds, 0.0 among them, or text with a unit."""
Size = Annotated[
    int | None, BeforeValidator(_bytes), Accepted("a size from 1MB to 64TB, such as 64MB or 8GB,")
]
"""Bytes, or text with a unit, which counts in powers of 1024 as PostgreSQL's do."""
WorkMem = Annotated[
    int | None,
    BeforeValidator(_bytes),
    Accepted("a size from 64kB to 1TB, such as 4MB or 64MB,"),
]
"""Bytes of a sort or hash, or text with a unit."""


def shown(seconds: float) -> str:
    """Return a duration with a unit, such as ``7.84 ms``, or ``< 1 us``.

    Args:
        seconds: Of the duration.
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size * _ROUNDED_UP:
            return f"{_digits(seconds / size)} {unit}"
    return "< 1 us"


def shown_rate(rate: float) -> str:
    """Return a number of requests per second, such as ``10,000`` or ``0.017``.

    Args:
        rate: Requests per second.
    """
    if rate >= 1:
        return _digits(rate)
    return f"{rate:.2g}" if rate >= _LEAST_RATE else "< 0.001"


def shown_share(share: float) -> str:
    """Return a share in per cent; above ten times the whole as ``> 999%``.

    Args:
        share: 1.0 for the whole.
    """
    return f"{share:.0%}" if share < _LARGEST_SHARE else "> 999%"


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number >= _THREE_DIGITS else f"{number:.3g}"


def shown_size(number: float) -> str:
    """Return a size with a unit, such as ``1.5 GiB``.

    Args:
        number: Of bytes.
    """
    gib = number / 2**30
    if gib >= 1:
        return f"{gib:,.1f} GiB"
    return f"{number / MIB:.0f} MiB" if number >= MIB else f"{number // 1024} kB"
