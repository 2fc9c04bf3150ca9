"""The files of all workers: those that live, and what those that ended have left."""

import contextlib
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Self

from penstock.telemetry.histogram import BOUNDS, Histogram
from penstock.telemetry.reading import Reading, Totals, WorkerReading
from penstock.telemetry.schema import Counters
from penstock.telemetry.worker_file import (
    SUFFIX,
    UnusableFileError,
    WorkerReader,
    is_alive,
    open_own,
    owner_and_mode,
    read_own,
    read_totals,
    try_lock,
    unlock,
)

__all__ = ["LOCK", "Ended", "Workers", "group_directory", "leave_nothing", "locked"]

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


def group_directory(chosen: Path | None) -> Path:
    """Return the directory of this process's group of workers, made if it is missing.

    Args:
        chosen: The setting ``telemetry_dir``; None for one of the user's own, which all children
            of one parent share: the workers that one supervisor has started.

    Raises:
        OSError: It cannot be made, or another user owns it or could write into it.
    """
    if chosen is not None:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(chosen)
        return chosen
    own = _base() / f"penstock-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    _refuse_foreign(own)
    _sweep(own)
    group = own / str(os.getppid())
    group.mkdir(mode=0o700, exist_ok=True)
    return group


def _base() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # It may be gone with its session, or another user's, from whom this one has it.
    usable = runtime and os.access(runtime, os.W_OK | os.X_OK)
    return Path(runtime if usable else tempfile.gettempdir())


def leave_nothing(group: Path) -> None:
    """Remove a directory that :func:`group_directory` has chosen, if nobody else uses it."""
    if any(path.name != LOCK for path in group.iterdir()):
        return
    with contextlib.suppress(OSError):  # somebody came meanwhile
        (group / LOCK).unlink(missing_ok=True)
        group.rmdir()
        group.parent.rmdir()


def _refuse_foreign(directory: Path) -> None:
    # In a directory that everybody can write to, another user may have come first.
    found = directory.lstat()
    if stat.S_ISLNK(found.st_mode) and found.st_uid in {0, os.getuid()}:
        found = directory.stat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{directory} is not this user's alone: it {owner_and_mode(found)}. A folder inside "
            "of it that does not exist yet is made for this user"
        )


def _sweep(directory: Path) -> None:
    # Workers may outlive their supervisor, and that of another container is not seen from here.
    for group in directory.iterdir():
        if group.name.isdecimal() and not (_runs(int(group.name)) or _is_in_use(group)):
            shutil.rmtree(group, ignore_errors=True)


def _is_in_use(group: Path) -> bool:
    return any(is_alive(path) for path in group.glob(f"*{SUFFIX}"))


def _runs(pid: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


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
