"""Reading the files of all workers: those that live, and what those that ended have left."""

import contextlib
import logging
from pathlib import Path
from threading import Lock

from penstock.telemetry.ended import Ended, locked
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.worker_file import SUFFIX, is_alive
from penstock.telemetry.worker_reading import WorkerReader, read_totals

__all__ = ["Workers"]

_logger = logging.getLogger("penstock.telemetry")


class Workers:
    """The workers of one database, from the files that they keep in one directory.

    Args:
        directory: Where.
        key: What their files' names begin with.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self._directory = directory
        self._key = key
        self._sums = directory / f"{key}.ended"
        self._readers: dict[Path, WorkerReader] = {}
        self._left_out: set[str] = set()
        """Names of files that cannot be read, of which the log has a line."""
        self._turn = Lock()
        """What a reader has read before is for one thread at a time."""

    def read(self, name: str) -> Reading:
        """Return what those say that can be read; files of ended ones are added up and removed.

        Args:
            name: What the database is called.
        """
        with self._turn, locked(self._directory) as is_alone:
            while True:
                before, ended = self._ended(), self._ended()
                living, dead = self._look(ended)
                # Who has the lock may have added up one of those that were read, or were not.
                if is_alone or self._ended() == before:
                    break
            if is_alone:
                self._remove(dead, ended)
        living.sort(key=lambda worker: worker.started)
        lost = tuple(ended.lost)
        return Reading(name, tuple(living), ended.counters, ended.histograms, lost)

    def add_up(self, only: Path | None = None) -> None:
        """Add up and remove the files of ended workers, unless another worker does just now.

        Args:
            only: The one file to look at; None for all.
        """
        with locked(self._directory) as is_alone:
            if not is_alone:
                return
            ended = self._ended()
            files = self._files() if only is None else [only]
            dead = [path for path in files if not is_alive(path) and self._add(path, ended)]
            self._remove(dead, ended)

    def _ended(self) -> Ended:
        try:
            return Ended.read(self._sums)
        except OSError as error:
            self._leave_out(self._sums, error)
            return Ended()

    def _look(self, ended: Ended) -> tuple[list[WorkerReading], list[Path]]:
        """Return who lives, and the files of those who do not; these are added to the ended."""
        living: list[WorkerReading] = []
        dead: list[Path] = []
        known = self._readers
        self._readers = {}
        files = self._files()
        # Files go at the hands of other workers, too.
        self._left_out &= {self._sums.name, *(path.name for path in files)}
        for path in files:
            if not is_alive(path):
                dead += [path] if self._add(path, ended) else []
                continue
            reader = self._readers[path] = known.get(path) or WorkerReader(path)
            try:
                living.append(reader.read())
            except OSError as error:
                self._leave_out(path, error)
        return living, dead

    def _add(self, path: Path, ended: Ended) -> bool:
        """Add an ended worker's sums to those of the others; return whether its file may go."""
        if path.name in ended.files:
            return True
        try:
            ended.add(path.name, read_totals(path))
        except OSError as error:
            self._leave_out(path, error)
            return False
        return True

    def _leave_out(self, path: Path, error: OSError) -> None:
        if path.name not in self._left_out and not isinstance(error, FileNotFoundError):
            self._left_out.add(path.name)
            _logger.warning("%s is left out of what is counted: %s", path, error)

    def first(self) -> Path | None:
        """Return the file of the worker that does what only one of them has to."""
        return next((path for path in self._files() if is_alive(path)), None)

    def forget(self) -> None:
        """Remove what ended workers have left, if none lives."""
        with locked(self._directory) as is_alone:
            if not is_alone or self.first() is not None:
                return
            for path in self._directory.glob(f"{self._key}[-.]*"):
                # A worker may have come meanwhile.
                if path.suffix != SUFFIX or not is_alive(path):
                    with contextlib.suppress(OSError):  # a directory
                        path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob(f"{self._key}-*{SUFFIX}"))

    def _remove(self, dead: list[Path], ended: Ended) -> None:
        if not dead:
            return
        with contextlib.suppress(OSError):  # a full disk: they are added up again next time
            ended.write(self._sums)
            for path in dead:
                path.unlink(missing_ok=True)
