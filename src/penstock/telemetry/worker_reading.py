"""One worker's file, read."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path

from penstock.telemetry.histogram import HISTOGRAMS, Histogram
from penstock.telemetry.layout import (
    COUNTERS,
    LAYOUT,
    LEASE_NUMBERS,
    LEASES,
    SAMPLE,
    SECONDS_KEPT,
)
from penstock.telemetry.lease_table import read_leases
from penstock.telemetry.own_file import UnusableFileError, read_own
from penstock.telemetry.reading import Lease, RouteUse, StatementUse, Totals, WorkerReading
from penstock.telemetry.sample import Counters, Sample
from penstock.telemetry.tables import OTHER_ROUTES, OTHER_STATEMENTS, routes_of, statements_of

__all__ = ["WorkerReader", "read_totals"]

_COUNTS = frozenset(COUNTERS) | {
    "size", "limit", "checked_in", "checked_out", "overflow", "opening", "invalid", "waiting",
    "at_rest",
}  # fmt: skip
_SERVERS = SAMPLE[-4:]
"""Numbers of the server, which need not be known."""
LARGEST = 2.0**53
"""What every number in a file is below; from here on a float does not count by ones."""
LATEST = 2.0**33
"""Unix time, in the year 2242, that no moment in a file is after."""


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

    def read(self) -> WorkerReading:
        """Return what it says.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It cannot be read.
            UnusableFileError: It is damaged, of another release, or not a worker's file at all.
        """
        content = _content(self._path, LAYOUT.size)
        texts = memoryview(content)
        numbers: memoryview[float] = texts[: LAYOUT.numbers * 8].cast("d")
        pid, started, written = _head(numbers)
        unreachable, failures = _checked(numbers[LAYOUT.unreachable :][:2].tolist())
        self._read_history(numbers, written)
        return WorkerReading(
            pid=pid,
            started=started,
            now=self._history[-1] if self._history else Sample(started),
            history=tuple(self._history),
            counters=_counters(numbers),
            histograms=_histograms(numbers),
            routes=_routes(numbers, texts),
            statements=_statements(numbers, texts),
            leases=_leases(numbers, texts),
            unreachable=unreachable,
            failures=int(failures),
            fault=bytes(texts[LAYOUT.fault_text :]).rstrip(b"\0").decode(errors="ignore"),
        )

    def _read_history(self, numbers: "memoryview[float]", written: int) -> None:
        width = len(SAMPLE)
        places = [
            LAYOUT.history + number % SECONDS_KEPT * width
            for number in range(max(self._seen, written - SECONDS_KEPT), written)
        ]
        for sample in [_sample(numbers[place : place + width].tolist()) for place in places]:
            self._add(sample)
        self._seen = written

    def _add(self, sample: Sample) -> None:
        while self._history and self._history[-1].at > sample.at:
            self._history.pop()  # taken before the clock was set back
        self._history.append(sample)


def read_totals(path: Path) -> Totals:
    """Return what the worker of a file has counted since its start.

    Raises:
        OSError: As :meth:`WorkerReader.read`.
    """
    numbers = memoryview(_content(path, LAYOUT.history * 8)).cast("d")
    pid, is_closed = numbers[LAYOUT.pid], bool(numbers[LAYOUT.is_closed])
    known = int(pid) if 0 <= pid < LARGEST else 0
    return Totals(_counters(numbers), _histograms(numbers), known, is_closed)


def _content(path: Path, size: int) -> bytes:
    content = read_own(path, size, range(LAYOUT.size, LAYOUT.size + 1))
    (signature,) = memoryview(content)[LAYOUT.signature * 8 :][:8].cast("d")
    if signature != LAYOUT.version:
        raise UnusableFileError("it was not written by this release")
    return content


def _checked(numbers: Sequence[float], below: float = LARGEST) -> Sequence[float]:
    # Also false for what is not a number.
    if all(0 <= number < below for number in numbers):
        return numbers
    raise UnusableFileError("it is damaged: one of its numbers is none that a worker writes")


def _head(numbers: "memoryview[float]") -> tuple[int, float, int]:
    pid, started, written = numbers[LAYOUT.pid], numbers[LAYOUT.started], numbers[LAYOUT.written]
    _checked((pid, written)), _checked((started,), LATEST)
    return int(pid), started, int(written)


def _routes(numbers: "memoryview[float]", texts: memoryview) -> tuple[RouteUse, ...]:
    rows = routes_of(numbers, texts).read(OTHER_ROUTES)
    return tuple(RouteUse(name[0], int(v[0]), v[1], v[2]) for name, v in _each_checked(rows))


def _statements(numbers: "memoryview[float]", texts: memoryview) -> tuple[StatementUse, ...]:
    rows = statements_of(numbers, texts).read(OTHER_STATEMENTS)
    return tuple(
        StatementUse(name[0], name[1], int(v[0]), v[1], v[2], int(v[3]), int(v[4]), v[5])
        for name, v in _each_checked(rows)
    )


def _leases(numbers: "memoryview[float]", texts: memoryview) -> tuple[Lease, ...]:
    end = LAYOUT.leases + LEASES * LEASE_NUMBERS
    return read_leases(_checked(numbers[LAYOUT.leases : end].tolist()), texts)


_Rows = Iterable[tuple[tuple[str, ...], Sequence[float]]]


def _each_checked(rows: _Rows) -> Iterator[tuple[tuple[str, ...], Sequence[float]]]:
    for name, values in rows:
        yield name, _checked(values)


def _counters(numbers: "memoryview[float]") -> Counters:
    end = LAYOUT.counters + len(COUNTERS)
    counters = Counters(*map(int, _checked(numbers[LAYOUT.counters : end].tolist())))
    # It is written once a second; what has come back since then has been lent before.
    lent = max(counters.checkouts, counters.checkins)
    return Counters(**{**asdict(counters), "checkouts": lent})


def _histograms(numbers: "memoryview[float]") -> dict[str, Histogram]:
    made = {}
    for name in HISTOGRAMS:
        begin = LAYOUT.histogram(name)
        *counts, seconds = _checked(numbers[begin : begin + LAYOUT.of_histogram].tolist())
        made[name] = Histogram(tuple(map(int, counts)), seconds)
    return made


def _sample(values: Sequence[float]) -> Sample:
    by_name = dict(zip(SAMPLE, values, strict=True))
    _checked((by_name["at"],), LATEST)
    _checked([v for n, v in by_name.items() if n not in _SERVERS])
    _checked([abs(by_name[n]) for n in _SERVERS if not isnan(by_name[n])])
    typed = {n: int(v) if n in _COUNTS else v for n, v in by_name.items()}
    return Sample(**typed)  # type: ignore[arg-type]  # as just made
