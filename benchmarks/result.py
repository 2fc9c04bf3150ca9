"""What a benchmark found: figures, what some of them have to be, and whether they are."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from rich.table import Table

COLUMNS_AT_MOST = 4

Figures = Mapping[str, Mapping[str, Any]]
"""By what was measured, then by what it was measured on."""


@dataclass(frozen=True)
class Target:
    """What one figure has to be, the bounds included.

    Args:
        measured: The figure; None where there is none, which meets no target.
        at_most: Upper bound, if there is one.
        at_least: Lower bound, if there is one.
        spread: Least and greatest of the rounds, where the figure is their median.
    """

    measured: float | None
    at_most: float | None = None
    at_least: float | None = None
    spread: tuple[float, float] | None = None

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
        spread = {} if self.spread is None else {"spread": list(self.spread)}
        return {"measured": self.measured, **spread, **self.bounds(), "met": self.met}

    def in_words(self) -> tuple[str, str, str]:
        """Return what was measured, what was wanted and whether it is met, for the reader."""
        spread = f" ({self.spread[0]}..{self.spread[1]})" if self.spread else ""
        return f"{self.measured}{spread}", in_words(self.bounds()), "yes" if self.met else "NO"

    def bounds(self) -> dict[str, float]:
        """Return the bounds that there are, by name."""
        bounds = {"at_most": self.at_most, "at_least": self.at_least}
        return {name: bound for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Ratio:
    """How many times another's figure one's is, round by round.

    Args:
        rounds: The ratio in each round.
    """

    rounds: Sequence[float]

    @classmethod
    def of(cls, ones: Sequence[float], others: Sequence[float]) -> Self:
        """Compare the figures of the same rounds."""
        return cls([one / other for one, other in zip(ones, others, strict=True)])

    @property
    def median(self) -> float:
        """The ratio in the middle."""
        return round(statistics.median(self.rounds), 3)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest."""
        return round(min(self.rounds), 3), round(max(self.rounds), 3)

    def target(self, *, at_most: float | None = None, at_least: float | None = None) -> Target:
        """Return what the ratio has to be."""
        return Target(self.median, at_most, at_least, self.spread)


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome.

    Args:
        benchmark: Its name.
        conditions: How it was run.
        figures: What it measured.
        targets: What was to be reached, by name; empty where the benchmark only compares.
        beside: More figures, by the title of their table: measured under other conditions.
        charts: Which figures a report draws.
    """

    benchmark: str
    conditions: Mapping[str, Any]
    figures: Figures
    targets: Mapping[str, Target] = field(default_factory=dict)
    beside: Mapping[str, Figures] = field(default_factory=dict)
    charts: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether every target is met."""
        return all(target.met for target in self.targets.values())

    def groups(self) -> Iterator[tuple[str, Figures]]:
        """Return all figures, by the title of their table."""
        yield self.benchmark, self.figures
        yield from self.beside.items()

    def as_json(self) -> dict[str, Any]:
        """Return everything as what JSON knows."""
        beside = {title: _plain(figures) for title, figures in self.beside.items()}
        return {
            "benchmark": self.benchmark,
            "conditions": dict(self.conditions),
            "figures": _plain(self.figures),
            **({"beside": beside} if beside else {}),
            "targets": {name: target.as_json() for name, target in self.targets.items()},
            "ok": self.ok,
        }

    def tables(self) -> Iterator[Table]:
        """Return the figures, and the targets if there are any, for a terminal."""
        for title, figures in self.groups():
            heading, *rows = table_of(figures)
            table = Table(*heading, title=title, caption=in_words(self.conditions))
            for row in rows:
                table.add_row(*row)
            yield table
        if self.targets:
            targets = Table("target", "measured", "wanted", "met")
            for name, target in self.targets.items():
                targets.add_row(name, *target.in_words())
            yield targets


def in_words(items: Mapping[str, Any]) -> str:
    """Return names and values for the reader."""
    return ", ".join(f"{name} {value}" for name, value in items.items())


def table_of(figures: Figures) -> list[list[str]]:
    """Return a heading and rows; what was measured on goes down if there is much of it.

    A figure named ``..._range`` stands behind the figure whose range it is.
    """
    shown = [what for what in figures if not what.endswith("_range")]
    on = list(dict.fromkeys(name for by in figures.values() for name in by))
    cells = {(what, name): _cell(figures, what, name) for what in shown for name in on}
    if len(on) > COLUMNS_AT_MOST:
        return [["", *shown], *([name, *(cells[what, name] for what in shown)] for name in on)]
    return [["", *on], *([what, *(cells[what, name] for name in on)] for what in shown)]


def _cell(figures: Figures, what: str, name: str) -> str:
    value = str(figures[what].get(name, ""))
    within = figures.get(f"{what}_range", {}).get(name)
    return f"{value} ({within[0]}..{within[1]})" if within else value


def _plain(figures: Figures) -> dict[str, dict[str, Any]]:
    return {what: dict(by) for what, by in figures.items()}


def median(rounds: Sequence[float], digits: int) -> float | None:
    """Return the median of some rounds, rounded for the reader; None where it is infinite."""
    value = statistics.median(rounds)
    return round(value, digits or None) if math.isfinite(value) else None


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
