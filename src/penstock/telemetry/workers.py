"""Reading the files of all workers: those that live, and what those that ended have left."""

import contextlib
from pathlib import Path
from threading import Lock

from penstock.telemetry.ended import Ended, locked
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.worker_file import SUFFIX, is_alive
from penstock.telemetry.worker_reading import WorkerReader

__all__ = ["Workers"]


class Workers:
    """The workers of one database, from the files that they keep in one directory.

    Args:
        directory: Where.
        key: What their files' names begin with.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self._directory = directory
        self._key = key
        self._readers: dict[Path, WorkerReader] = {}
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
            if dead and is_alone:
                with contextlib.suppress(OSError):  # a full disk: they are added up again next time
                    self._remove(dead, ended)
        living.sort(key=lambda worker: worker.started)
        return Reading(name, tuple(living), ended.counters, ended.histograms)

    def _ended(self) -> Ended:
        return Ended.read(self._directory, self._key)

    def _look(self, ended: Ended) -> tuple[list[WorkerReading], list[Path]]:
        """Return who lives, and the files of those who do not; these are added to the ended."""
        living: list[WorkerReading] = []
        dead: list[Path] = []
        # Files go at the hands of other workers, too.
        known = self._readers
        self._readers = {path: known.get(path) or WorkerReader(path) for path in self._files()}
        for path, reader in self._readers.items():
            lives = is_alive(path)
            worker = reader.read()
            if worker is None or path.name in ended.files:
                continue
            if lives:
                living.append(worker)
            else:
                dead.append(path)
                ended.add(path.name, worker)
        return living, dead

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
                    path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob(f"{self._key}-*{SUFFIX}"))

    def _remove(self, dead: list[Path], ended: Ended) -> None:
        ended.write(self._directory, self._key)
        for path in dead:
            path.unlink(missing_ok=True)
            self._readers.pop(path, None)
