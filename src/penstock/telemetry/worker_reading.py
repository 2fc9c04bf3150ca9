"""One worker's file, read."""

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from penstock.telemetry.histogram import HISTOGRAMS, Histogram
from penstock.telemetry.layout import COUNTERS, LAYOUT, SAMPLE, SECONDS_KEPT
from penstock.telemetry.reading import RouteUse, StatementUse, WorkerReading
from penstock.telemetry.sample import Counters, Sample
from penstock.telemetry.tables import OTHER_ROUTES, OTHER_STATEMENTS, routes_of, statements_of

__all__ = ["WorkerReader"]

_COUNTS = frozenset(COUNTERS) | {
    "size", "limit", "checked_in", "checked_out", "overflow", "opening", "invalid", "waiting",
    "at_rest",
}  # fmt: skip


class WorkerReader:
    """Reads the file of one worker again and again.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._history: deque[Sample] = deque(maxlen=SECONDS_KEPT)
        """Read before, for there is little new each time."""
        self._seen = 0

    def read(self) -> WorkerReading | None:
        """Return what it says; None where it is gone, of another release, or not to be read."""
        try:
            content = self._path.read_bytes()
        except OSError:
            return None
        if len(content) != LAYOUT.size:
            return None
        texts = memoryview(content)
        numbers: memoryview[float] = texts[: LAYOUT.numbers * 8].cast("d")
        if numbers[LAYOUT.signature] != LAYOUT.version:
            return None
        self._read_history(numbers)
        return WorkerReading(
            pid=int(numbers[LAYOUT.pid]),
            started=numbers[LAYOUT.started],
            now=self._history[-1] if self._history else Sample(numbers[LAYOUT.started]),
            history=tuple(self._history),
            counters=_counters(numbers),
            histograms=_histograms(numbers),
            routes=_routes(numbers, texts),
            statements=_statements(numbers, texts),
        )

    def _read_history(self, numbers: "memoryview[float]") -> None:
        written, width = int(numbers[LAYOUT.written]), len(SAMPLE)
        for number in range(max(self._seen, written - SECONDS_KEPT), written):
            place = LAYOUT.history + number % SECONDS_KEPT * width
            self._add(_sample(numbers[place : place + width].tolist()))
        self._seen = written

    def _add(self, sample: Sample) -> None:
        while self._history and self._history[-1].at > sample.at:
            self._history.pop()  # taken before the clock was set back
        self._history.append(sample)


def _routes(numbers: "memoryview[float]", texts: memoryview) -> tuple[RouteUse, ...]:
    rows = routes_of(numbers, texts).read(OTHER_ROUTES)
    return tuple(RouteUse(name[0], int(v[0]), v[1], v[2]) for name, v in rows)


def _statements(numbers: "memoryview[float]", texts: memoryview) -> tuple[StatementUse, ...]:
    rows = statements_of(numbers, texts).read(OTHER_STATEMENTS)
    return tuple(
        StatementUse(name[0], name[1], int(v[0]), v[1], v[2], int(v[3]), int(v[4]), v[5])
        for name, v in rows
    )


def _counters(numbers: "memoryview[float]") -> Counters:
    end = LAYOUT.counters + len(COUNTERS)
    counters = Counters(*map(int, numbers[LAYOUT.counters : end].tolist()))
    # It is written once a second; what has come back since then has been lent before.
    lent = max(counters.checkouts, counters.checkins)
    return Counters(**{**asdict(counters), "checkouts": lent})


def _histograms(numbers: "memoryview[float]") -> dict[str, Histogram]:
    made = {}
    for name in HISTOGRAMS:
        begin = LAYOUT.histogram(name)
        *counts, seconds = numbers[begin : begin + LAYOUT.of_histogram].tolist()
        made[name] = Histogram(tuple(map(int, counts)), seconds)
    return made


def _sample(values: Sequence[float]) -> Sample:
    typed = {n: int(v) if n in _COUNTS else v for n, v in zip(SAMPLE, values, strict=True)}
    return Sample(**typed)  # type: ignore[arg-type]  # as just made
