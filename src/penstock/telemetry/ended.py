"""What workers that have ended had counted, so that no sum ever falls."""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from penstock.telemetry.buckets import BOUNDS
from penstock.telemetry.histogram import Histogram
from penstock.telemetry.locking import try_lock, unlock
from penstock.telemetry.own_file import UnusableFileError, open_own, read_own
from penstock.telemetry.reading import Totals
from penstock.telemetry.sample import Counters

__all__ = ["LOCK", "Ended", "locked"]

LOCK = "lock"
"""The file that only one reader at a time may have locked."""
LOCK_SECONDS = 0.05
"""How long a reader waits for another that is adding up the ended ones; then it goes on without."""

LOST = 100
"""Lost workers that are remembered."""

LARGEST = 4 * 2**20
"""Bytes of a file of sums; with the names of ten thousand files it has a tenth of that."""


@dataclass
class Ended:
    """What ended workers of one database have counted, and whose files are in it."""

    counters: Counters = field(default_factory=Counters)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    lost: list[tuple[int, float]] = field(default_factory=list)
    """Who ended without closing the database, and when that was noticed."""

    def add(self, file: str, worker: Totals) -> None:
        """Add one worker's, whose file is to go."""
        self.files.add(file)
        if not worker.is_closed:
            self.lost = [*self.lost, (worker.pid, time.time())][-LOST:]
        counters = worker.counters
        self.counters += counters
        wait = worker.histograms["wait"]
        # What it had not yet brought up to date; see the recorder.
        at_once = max(wait.counts[0], counters.checkouts - counters.waits)
        waits = Histogram((at_once, *wait.counts[1:]), wait.seconds)
        for name, histogram in {**worker.histograms, "wait": waits}.items():
            self.histograms[name] = self.histograms.get(name, Histogram()) + histogram

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what was written before; nothing where there is no file.

        Raises:
            OSError: It cannot be read.
            UnusableFileError: It was not written by this release, or is damaged.
        """
        try:
            content = read_own(path, LARGEST, range(LARGEST + 1))
        except FileNotFoundError:
            return cls()
        try:
            said = json.loads(content)
            return cls(
                Counters(**{name: _count(value) for name, value in said["counters"].items()}),
                {str(name): _histogram(value) for name, value in said["histograms"].items()},
                {str(name) for name in said["files"]},
                [(_count(pid), float(_count(int(at)))) for pid, at in said["lost"]],
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnusableFileError("it is damaged, or another release's") from error

    def write(self, path: Path) -> None:
        """Write it as a whole, before the files go, so that nobody counts anything twice."""
        self.files = {file for file in self.files if (path.parent / file).exists()}
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)  # of a worker that was killed here, or a link to elsewhere
        descriptor = open_own(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "w") as file:
            json.dump({**asdict(self), "files": sorted(self.files)}, file)
        new.replace(path)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Keep other readers from adding up the ended workers for the length of a block.

    Args:
        directory: Where the files are.

    Yields:
        Whether that worked within a twentieth of a second; not where the lock's file cannot be had.
    """
    descriptor = None
    with contextlib.suppress(OSError):  # the directory is gone, its disk full, or another user's
        descriptor = open_own(directory / LOCK, os.O_RDWR | os.O_CREAT)
    if descriptor is None:
        yield False
        return
    with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)):
        until = time.monotonic() + LOCK_SECONDS
        while not (is_alone := try_lock(descriptor)) and time.monotonic() < until:
            time.sleep(0.001)
        try:
            yield is_alone
        finally:
            unlock(descriptor)


def _histogram(said: Mapping[str, Any]) -> Histogram:
    counts, seconds = tuple(map(_count, said["counts"])), said["seconds"]
    if len(counts) != len(BOUNDS) + 1 or not 0 <= seconds < 2**63:
        raise ValueError("not a histogram")
    return Histogram(counts, float(seconds))


def _count(said: object) -> int:
    if type(said) is not int or not 0 <= said < 2**63:
        raise ValueError("not a count")
    return said
