"""What workers that have ended had counted, so that no sum ever falls."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from penstock.telemetry.buckets import BOUNDS
from penstock.telemetry.histogram import Histogram
from penstock.telemetry.locking import try_lock
from penstock.telemetry.reading import WorkerReading
from penstock.telemetry.sample import Counters

__all__ = ["LOCK", "Ended", "locked"]

LOCK = "lock"
"""The file that only one reader at a time may have locked."""
LOCK_SECONDS = 0.05
"""How long a reader waits for another that is adding up the ended ones; then it goes on without."""


@dataclass
class Ended:
    """What ended workers of one database have counted, and whose files are in it."""

    counters: Counters = field(default_factory=Counters)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def add(self, file: str, worker: WorkerReading) -> None:
        """Add one worker's, whose file is to go."""
        self.files.append(file)
        counters = worker.counters
        self.counters += counters
        wait = worker.histograms["wait"]
        # What it had not yet brought up to date; see the recorder.
        at_once = max(wait.counts[0], counters.checkouts - counters.waits)
        waits = Histogram((at_once, *wait.counts[1:]), wait.seconds)
        for name, histogram in {**worker.histograms, "wait": waits}.items():
            self.histograms[name] = self.histograms.get(name, Histogram()) + histogram

    @classmethod
    def read(cls, directory: Path, name: str) -> Self:
        """Return what was written before; nothing where there is none, or another release's."""
        try:
            said = json.loads((directory / f"{name}.ended").read_bytes())
            histograms = {
                each: Histogram(tuple(value["counts"]), value["seconds"])
                for each, value in said["histograms"].items()
                if len(value["counts"]) == len(BOUNDS) + 1
            }
            return cls(Counters(**said["counters"]), histograms, said["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, directory: Path, name: str) -> None:
        """Write it as a whole, before the files go, so that nobody counts anything twice."""
        self.files = [file for file in self.files if (directory / file).exists()]
        new = directory / f"{name}.ended.new"
        new.write_text(json.dumps(asdict(self)))
        new.replace(directory / f"{name}.ended")


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
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    if descriptor is None:
        yield False
        return
    with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)):
        until = time.monotonic() + LOCK_SECONDS
        while not (is_alone := try_lock(descriptor)) and time.monotonic() < until:
            time.sleep(0.001)
        yield is_alone
