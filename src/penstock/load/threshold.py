"""Conditions under which a load run has failed."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from penstock.base_error import SettingsError
from penstock.load.result import Figures, LoadResult

_CONDITION = re.compile(
    r"(?P<figure>p\d{1,2}(?:\.\d+)?|[a-z]{2,})\s*(?P<sign>[<>]=?)\s*"
    r"(?P<change>[+-])?(?P<limit>\d+(?:\.\d+)?)\s*(?P<unit>us|ms|s|%|)"
)
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_UNITS = {"success": ("%",), "errors": ("", "%"), "late": ("", "%"), "rps": ("",)}
_ACCEPTED = (
    "a figure (p50, p99.9, mean, max, success, errors, rps, late), < or >, and a limit accepted, "
    "such as 'p99>50ms', 'success<99.9%', 'rps<500' or, against --compare, 'p99>+10%'"
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition that fails a run.

    Args:
        text: As it was written.
        figure: What is looked at.
        sign: How it is compared.
        limit: With what, in milliseconds, in percent, or as a number.
        unit: ``ms`` for latencies, ``%``, or empty.
        is_change: Whether the limit is the change since another run, in percent.
    """

    text: str
    figure: str
    sign: str
    limit: float
    unit: str
    is_change: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a condition.

        Args:
            text: Such as ``p99>50ms``, ``success<99.9%`` or ``p99>+10%``.

        Raises:
            SettingsError: It is none.
        """
        found = _CONDITION.fullmatch(text.strip())
        if found is None or not _is_unit(found["figure"], found["unit"], found["change"]):
            raise SettingsError(f"--fail-if {text!r}: {_ACCEPTED}")
        limit = float(found["limit"]) * _MILLISECONDS.get(found["unit"], 1.0)
        if found["change"] == "-":
            limit = -limit
        unit = "ms" if found["unit"] in _MILLISECONDS else found["unit"]
        return cls(
            text, found["figure"], found["sign"], limit, unit, is_change=bool(found["change"])
        )

    def failure(self, result: LoadResult, before: LoadResult | None = None) -> str | None:
        """Return how a run fails it; None for a run that does not.

        Args:
            result: The run.
            before: The one that a change is measured from.
        """
        found, unit = self._value(result), self.unit
        if self.is_change:
            found = change(None if before is None else self._value(before), found)
        if found is None:
            return f"{self.text}: there is no {self.figure} to compare"
        if not _SIGNS[self.sign](found, self.limit):
            return None
        if self.is_change:
            return f"{self.text}: it is {found:+.1f} %"
        return f"{self.text}: it is {found:.6g} {unit}".rstrip()

    def _value(self, result: LoadResult) -> float | None:
        total = result.total
        counts = {
            "success": total.successes,
            "errors": total.requests - total.successes,
            "late": result.generator.late,
        }
        if self.figure in counts:
            count = counts[self.figure]
            if self.unit != "%":
                return count
            return 100 * count / total.requests if total.requests else None
        if self.figure == "rps":
            return total.requests_per_second
        return latency(total, self.figure)


def latency(figures: Figures, figure: str) -> float | None:
    """Return a figure of the latencies, such as ``p99``, ``mean`` or ``max``, in milliseconds."""
    latencies = figures.latencies
    match figure:
        case "mean":
            return latencies.mean_ms
        case "max":
            return latencies.max_ms
    return latencies.percentile(float(figure.removeprefix("p")))


def change(before: float | None, now: float | None) -> float | None:
    """Return a change in percent; None where one of the two is missing or the first is 0."""
    return 100 * (now / before - 1) if before and now is not None else None


def _is_unit(figure: str, unit: str, relative: str | None) -> bool:
    if figure in {"mean", "max"} or figure[1].isdigit():
        return unit == "%" if relative else unit in _MILLISECONDS
    if figure == "rps" and relative:
        return unit == "%"
    return not relative and unit in _UNITS.get(figure, ())
