"""What a benchmark found: figures, what some of them have to be, and whether they are."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

__all__ = ["Figures", "Result", "Target", "median", "medians"]

Figures = Mapping[str, Mapping[str, Any]]
"""By what was measured, then by what it was measured on."""


@dataclass(frozen=True)
class Target:
    """What one figure has to be, the bounds included.

    Args:
        measured: The figure; None where there is none, which meets no target.
        at_most: Upper bound, if there is one.
        at_least: Lower bound, if there is one.
    """

    measured: float | None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        """Whether the figure is within its bounds."""
        return (
            self.measured is not None
            and (self.at_most is None or self.measured <= self.at_most)
            and (self.at_least is None or self.measured >= self.at_least)
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figure, its bounds and whether it is within them."""
        return {"measured": self.measured, **self.bounds(), "met": self.met}

    def bounds(self) -> dict[str, float]:
        """Return the bounds that there are, by name."""
        bounds = {"at_most": self.at_most, "at_least": self.at_least}
        return {name: bound for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome.

    Args:
        benchmark: Its name.
        conditions: How it was run.
        figures: What it measured.
        targets: What was to be reached, by name; empty where the benchmark only compares.
    """

    benchmark: str
    conditions: Mapping[str, Any]
    figures: Figures
    targets: Mapping[str, Target] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every target is met."""
        return all(target.met for target in self.targets.values())

    def as_json(self) -> dict[str, Any]:
        """Return everything as what JSON knows."""
        return {
            "benchmark": self.benchmark,
            "conditions": dict(self.conditions),
            "figures": {what: dict(by) for what, by in self.figures.items()},
            "targets": {name: target.as_json() for name, target in self.targets.items()},
            "ok": self.ok,
        }

    def tables(self) -> Iterator[Table]:
        """Return the figures, and the targets if there are any, for a terminal."""
        conditions = ", ".join(f"{name} {value}" for name, value in self.conditions.items())
        columns = list(dict.fromkeys(column for by in self.figures.values() for column in by))
        figures = Table("", *columns, title=self.benchmark, caption=conditions)
        for what, by in self.figures.items():
            figures.add_row(what, *(str(by.get(column, "")) for column in columns))
        yield figures
        if self.targets:
            targets = Table("target", "measured", "wanted", "met")
            for name, target in self.targets.items():
                wanted = ", ".join(f"{bound} {value}" for bound, value in target.bounds().items())
                targets.add_row(name, str(target.measured), wanted, "yes" if target.met else "NO")
            yield targets


def median(rounds: Sequence[float], digits: int) -> float | None:
    """Return the median of some rounds, rounded for the reader; None where it is infinite."""
    value = statistics.median(rounds)
    return round(value, digits) if math.isfinite(value) else None


def medians(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> Figures:
    """Return the medians of the rounds of each pool, by figure and pool.

    Args:
        measured: Each round's figures by name, by pool.
    """
    names = next(iter(measured.values()))[0]
    return {
        name: {pool: median([turn[name] for turn in turns], 3) for pool, turns in measured.items()}
        for name in names
    }
