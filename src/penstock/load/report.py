"""The report of a load run, as JSON that a later run is compared with."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from penstock.base_error import SettingsError
from penstock.load.histogram import Histogram
from penstock.load.result import PERCENTILES, Figures, Generator, LoadResult, Second, rounded
from penstock.load.threshold import change, latency


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A load run and what was asked of it.

    Args:
        url: Of the server.
        started: Date and time in ISO 8601.
        settings: What was asked for, by its name; no headers.
        result: What came of it.
    """

    url: str
    started: str
    settings: Mapping[str, str]
    result: LoadResult

    def as_json(self) -> dict[str, Any]:
        """Return everything as values that JSON knows; durations in the unit of their name."""
        result = self.result
        return {
            "url": self.url,
            "started": self.started,
            "settings": dict(self.settings),
            "seconds": rounded(result.seconds),
            "total": _with_latencies(result.total),
            "kinds": {name: _with_latencies(each) for name, each in result.kinds.items()},
            "generator": asdict(result.generator),
            "timeline": [asdict(second) for second in result.timeline],
        }

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(self.as_json()) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a report that was written before.

        Raises:
            SettingsError: The file cannot be read, or is no such report.
        """
        try:
            stored = _Report.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "its text"
            raise SettingsError(
                f"--compare {path}: is no report of penstock load: {place}: {first['msg']}"
            ) from error
        except OSError as error:
            raise SettingsError(f"--compare {path}: cannot be read: {error}") from error
        return cls(stored.url, stored.started, stored.settings, stored.result())


def _with_latencies(figures: Figures) -> dict[str, Any]:
    latencies = figures.latencies
    return {
        **figures.as_json(),
        "latencies": {
            "counts": sorted(latencies.counts.items()),
            "sum": latencies.sum,
            "longest": latencies.longest,
        },
    }


class _Latencies(BaseModel):
    counts: list[tuple[int, int]]
    sum: float
    longest: float


class _Figures(BaseModel):
    requests: int
    successes: int
    errors: dict[str, int]
    requests_per_second: float
    statuses: dict[int, int]
    latencies: _Latencies

    def figures(self) -> Figures:
        stored = self.latencies
        latencies = Histogram(Counter(dict(stored.counts)), stored.sum, stored.longest)
        return Figures(
            requests=self.requests,
            successes=self.successes,
            errors=self.errors,
            requests_per_second=self.requests_per_second,
            statuses=self.statuses,
            latencies=latencies,
        )


class _Report(BaseModel):
    url: str
    started: str
    settings: dict[str, str]
    seconds: float
    total: _Figures
    kinds: dict[str, _Figures]
    generator: Generator
    timeline: tuple[Second, ...]

    def result(self) -> LoadResult:
        kinds = {name: kind.figures() for name, kind in self.kinds.items()}
        return LoadResult(self.seconds, self.total.figures(), kinds, self.timeline, self.generator)


def compared(before: LoadResult, now: LoadResult) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each figure of all requests, and for the p99 of each kind in both runs.

    A row is the figure's name, then before, now, and the change.
    """
    figures = ("mean", *(f"p{percent:g}" for percent in PERCENTILES), "max")
    kinds = [name for name in now.kinds if name in before.kinds and len(now.kinds) > 1]
    rows = [
        ("requests per s", before.total.requests_per_second, now.total.requests_per_second),
        ("success in %", 100 * before.total.success_rate, 100 * now.total.success_rate),
        *((f"{each} in ms", *_latencies(before.total, now.total, each)) for each in figures),
        *((f"p99 of {kind}", *_latencies(before.kinds[kind], now.kinds[kind])) for kind in kinds),
    ]
    for name, then, found in rows:
        changed = change(then, found)
        yield name, _number(then), _number(found), "" if changed is None else f"{changed:+.1f} %"


def _latencies(
    before: Figures, now: Figures, figure: str = "p99"
) -> tuple[float | None, float | None]:
    return latency(before, figure), latency(now, figure)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def remarks(result: LoadResult) -> Iterator[str]:
    """Yield sentences about what a table of figures does not show."""
    total, generator = result.total, result.generator
    if total.statuses:
        statuses = ", ".join(f"{status}: {count:,}" for status, count in total.statuses.items())
        yield f"Statuses: {statuses}"
    yield from (f"Errors: {error}, {count:,} times" for error, count in total.errors.items())
    if generator.unfinished:
        yield f"Stopped with {generator.unfinished:,} requests under way, which count nowhere"
    if generator.late:
        yield (
            f"The generator itself started {generator.late:,} requests more than 10 ms late, up to "
            f"{generator.late_max_ms:,.0f} ms; their latencies have this in them"
        )
    if generator.queued:
        yield (
            f"{generator.queued:,} requests waited for a connection, because all were in use; "
            "their latencies have this in them"
        )
    if generator.cpu_share > BUSY:
        yield (
            f"The generator used {generator.cpu_share:.0%} of a core: latencies may be its own; "
            "load with less, or from several machines (--locust)"
        )


BUSY = 0.8
"""Share of a core from which the generator may be slower than the server."""
