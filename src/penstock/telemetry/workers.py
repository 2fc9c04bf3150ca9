"""The workers of one database: the files of those that are alive, and the sums of ended ones."""

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

from penstock.telemetry.reading import Reading, Totals, WorkerReading
from penstock.telemetry.schema import BOUNDS, Counters, Histogram
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

LOCK = "lock"
"""Name of the file that one reader at a time may lock."""
LOCK_SECONDS = 0.05
"""Seconds for which a reader waits for the lock before it continues without."""

MOST_LOST = 100
"""Largest number of lost workers that are kept."""

LARGEST = 4 * 2**20
"""Largest size of the file of sums, in bytes; with the names of 10,000 files it has a tenth."""


@dataclass
class EndedWorkers:
    """What the ended workers of one database have counted, and which files it includes."""

    counters: Counters = field(default_factory=Counters)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    lost: list[tuple[int, float]] = field(default_factory=list)
    """Process numbers of lost workers, and the Unix times at which their loss was noticed."""

    def add(self, file: str, worker: Totals) -> None:
        """Add the totals of one worker.

        Args:
            file: Name of its file, which is removed afterwards.
            worker: What it has counted.
        """
        self.files.add(file)
        if not worker.is_closed:
            self.lost = [*self.lost, (worker.pid, time.time())][-MOST_LOST:]
        counters = worker.counters
        self.counters += counters
        wait = worker.histograms["wait"]
        # The recorder updates the first bucket once a second; the last second is missing.
        at_once = max(wait.counts[0], counters.checkouts - counters.waits)
        waits = Histogram((at_once, *wait.counts[1:]), wait.seconds)
        for name, histogram in {**worker.histograms, "wait": waits}.items():
            self.histograms[name] = self.histograms.get(name, Histogram()) + histogram

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what was written before; empty when there is no file.

        Raises:
            OSError: It cannot be read.
            UnusableFileError: It is damaged, or was written by another release.
        """
        try:
            content = read_own(path, LARGEST, range(LARGEST + 1))
        except FileNotFoundError:
            return cls()
        try:
            saved = json.loads(content)
            return cls(
                Counters(**{name: _count(value) for name, value in saved["counters"].items()}),
                {str(name): _histogram(value) for name, value in saved["histograms"].items()},
                {str(name) for name in saved["files"]},
                [(_count(pid), float(_count(int(at)))) for pid, at in saved["lost"]],
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnusableFileError("it is damaged, or was written by another release") from error

    def write(self, path: Path) -> None:
        """Replace the file of sums, before the added files are removed: none counts twice."""
        self.files = {file for file in self.files if (path.parent / file).exists()}
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)  # left by a worker that was killed here, or a link
        descriptor = open_own(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "w") as file:
            json.dump({**asdict(self), "files": sorted(self.files)}, file)
        new.replace(path)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Lock a directory, so that no other reader adds up ended workers during the block.

    Args:
        directory: Directory of the workers' files.

    Yields:
        Whether the lock was acquired within ``LOCK_SECONDS``.
    """
    descriptor = None
    with contextlib.suppress(OSError):  # a removed directory, a full disk, another user's file
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


def _histogram(saved: Mapping[str, Any]) -> Histogram:
    counts, seconds = tuple(map(_count, saved["counts"])), saved["seconds"]
    if len(counts) != len(BOUNDS) + 1 or not 0 <= seconds < 2**63:
        raise ValueError("not a histogram")
    return Histogram(counts, float(seconds))


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("not a count")
    return value


def group_directory(chosen: Path | None) -> Path:
    """Return the directory of this process's group of workers, and create it if necessary.

    Args:
        chosen: The setting ``telemetry_dir``; None for a directory of this user that is shared by
            all children of one parent, the workers of one supervisor.

    Raises:
        OSError: It cannot be created, or another user owns it or can write to it.
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
    # It may have been removed with its session, or be inherited from another user.
    usable = runtime and os.access(runtime, os.W_OK | os.X_OK)
    return Path(runtime if usable else tempfile.gettempdir())


def remove_group(group: Path) -> None:
    """Remove a directory of :func:`group_directory`, unless another worker uses it."""
    if any(path.name != LOCK for path in group.iterdir()):
        return
    with contextlib.suppress(OSError):  # another worker has started meanwhile
        (group / LOCK).unlink(missing_ok=True)
        group.rmdir()
        group.parent.rmdir()


def _refuse_foreign(directory: Path) -> None:
    # In a directory that is writable for all, another user may have created it.
    found = directory.lstat()
    if stat.S_ISLNK(found.st_mode) and found.st_uid in {0, os.getuid()}:
        found = directory.stat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{directory} must belong to this user, and only this user may write to it, but it "
            f"{owner_and_mode(found)}; choose a directory inside it that does not exist yet"
        )


def _sweep(directory: Path) -> None:
    # Workers may outlive their supervisor; one in another container is not visible from here.
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
    """The workers of one database, by the files that they keep in one directory.

    Args:
        directory: The directory.
        key: The beginning of their files' names.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self._directory = directory
        self._key = key
        self._sums = directory / f"{key}.ended"
        self._readers: dict[Path, WorkerReader] = {}
        self._left_out: set[str] = set()
        """Names of unreadable files that have been logged."""
        self._lock = Lock()
        """Guards the readers, which one thread at a time may use."""

    def read(self, name: str) -> Reading:
        """Return the reading of all workers; files of ended workers are added up and removed.

        A file that cannot be read is left out, and logged once.

        Args:
            name: The database's name in ``install``.
        """
        with self._lock, locked(self._directory) as is_alone:
            while True:
                before, ended = self._ended(), self._ended()
                living, dead = self._read_files(ended)
                # The holder of the lock may have added up a file before or after it was read.
                if is_alone or self._ended() == before:
                    break
            if is_alone:
                self._remove(dead, ended)
        living.sort(key=lambda worker: worker.started)
        lost = tuple(ended.lost)
        return Reading(name, tuple(living), ended.counters, ended.histograms, lost)

    def add_up(self, only: Path | None = None) -> None:
        """Add up and remove the files of ended workers, unless another worker is doing so.

        Args:
            only: The only file to add up; None for all.
        """
        with locked(self._directory) as is_alone:
            if not is_alone:
                return
            ended = self._ended()
            files = self._files() if only is None else [only]
            dead = [path for path in files if not is_alive(path) and self._add(path, ended)]
            self._remove(dead, ended)

    def _ended(self) -> EndedWorkers:
        try:
            return EndedWorkers.read(self._sums)
        except OSError as error:
            self._leave_out(self._sums, error)
            return EndedWorkers()

    def _read_files(self, ended: EndedWorkers) -> tuple[list[WorkerReading], list[Path]]:
        """Return the readings of workers that are alive, and the files of those that have ended.

        The latter are added to ``ended``.
        """
        living: list[WorkerReading] = []
        dead: list[Path] = []
        known = self._readers
        self._readers = {}
        files = self._files()
        # Other workers remove files, too.
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

    def _add(self, path: Path, ended: EndedWorkers) -> bool:
        """Add an ended worker's totals to ``ended``; return whether its file can be removed."""
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
            _logger.warning("Ignored %s in the telemetry: %s", path, error)

    def first(self) -> Path | None:
        """Return the file of the worker that does the work of which only one is needed."""
        return next((path for path in self._files() if is_alive(path)), None)

    def forget(self) -> None:
        """Remove everything that ended workers have left, unless a worker is alive."""
        with locked(self._directory) as is_alone:
            if not is_alone or self.first() is not None:
                return
            for path in self._directory.glob(f"{self._key}[-.]*"):
                # A worker may have started meanwhile.
                if path.suffix != SUFFIX or not is_alive(path):
                    with contextlib.suppress(OSError):  # a directory
                        path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob(f"{self._key}-*{SUFFIX}"))

    def _remove(self, dead: list[Path], ended: EndedWorkers) -> None:
        if not dead:
            return
        with contextlib.suppress(OSError):  # on a full disk they are added up again next time
            ended.write(self._sums)
            for path in dead:
                path.unlink(missing_ok=True)
