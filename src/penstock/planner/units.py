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


def shown(seconds: float) -> str:
    """Return a duration with a unit, such as ``7.84 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us" if seconds else "0 s"


def shown_size(number: float) -> str:
    """Return a size with a unit, such as ``1.5 GiB``."""
    gib = number / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{number / MIB:.0f} MiB"
