"""One worker's file: written by its process, locked while that is alive, read by all workers."""

import contextlib
import mmap
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Self

from penstock.telemetry.layout import (
    CHECKPOINTS,
    LAYOUT,
    LEASE_NUMBERS,
    LEASES,
    OTHER_ROUTES,
    OTHER_STATEMENTS,
    SECONDS_KEPT,
    read_checkpoint,
    read_leases,
    routes_of,
    statements_of,
)
from penstock.telemetry.reading import (
    CHECKPOINT_SECONDS,
    ROUTE_FIELDS,
    STATEMENT_FIELDS,
    Checkpoint,
    LeaseSample,
    RouteUse,
    StatementUse,
    Totals,
    WorkerReading,
)
from penstock.telemetry.schema import (
    COUNTERS,
    HISTOGRAMS,
    OPTIONAL,
    SAMPLE,
    Counters,
    Histogram,
    Sample,
    typed,
)

if sys.platform != "win32":
    import fcntl


IS_POSSIBLE = sys.platform != "win32"
"""Whether the system has locks that end with their process."""


def lock(descriptor: int) -> None:
    """Lock a file, waiting for its lock if necessary.

    Args:
        descriptor: Descriptor of the open file.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def try_lock(descriptor: int, *, is_shared: bool = False) -> bool:
    """Lock a file unless it is locked already, and return whether that worked.

    Args:
        descriptor: Descriptor of the open file.
        is_shared: Whether other processes may hold a shared lock at the same time.
    """
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Unlock a file, also on behalf of forked processes that have inherited it."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


# Windows has neither flag, and no need of them.
_UNTRUSTING = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class UnusableFileError(OSError):
    """A file is not a valid worker's file; the message says why."""


def open_own(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file that belongs to this user.

    Args:
        path: Path of the file.
        flags: As for ``os.open``.

    Returns:
        The descriptor.

    Raises:
        UnusableFileError: It is not a regular file, or belongs to another user.
        FileNotFoundError: It does not exist, and ``O_CREAT`` is not among the flags.
        OSError: It cannot be opened.
    """
    try:
        _check(path.lstat())  # opening a device may have effects
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | _UNTRUSTING, 0o600)
    try:
        _check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_own(path: Path, size: int, sizes: range) -> bytes:
    """Return the beginning of a regular file that belongs to this user.

    Args:
        path: Path of the file.
        size: Largest number of bytes to read.
        sizes: Sizes that the file may have.

    Raises:
        UnusableFileError: It has another size, is not a regular file or belongs to another user.
        OSError: It cannot be opened or read.
    """
    with os.fdopen(open_own(path), "rb", buffering=0) as file:
        if (found := os.fstat(file.fileno()).st_size) not in sizes:
            raise UnusableFileError(f"it has {found} bytes")
        return file.read(size)


def owner_and_mode(found: os.stat_result) -> str:
    """Return the owner and the mode of a file or directory as a clause."""
    return f"belongs to uid {found.st_uid} and has mode {stat.S_IMODE(found.st_mode):04o}"


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnusableFileError("it is not a regular file")
    if found.st_uid != os.getuid():
        raise UnusableFileError(f"it {owner_and_mode(found)}")


SUFFIX = ".worker"


class WorkerFile:
    """A mapped file that its worker keeps locked for as long as it is alive.

    Args:
        path: Path of the file.
        descriptor: Descriptor of the open file.

    Attributes:
        numbers: The floats of the file.
        texts: All bytes of the file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, LAYOUT.size)
        self.texts = memoryview(self._map)
        self.numbers: memoryview[float] = self.texts[: LAYOUT.numbers * 8].cast("d")

    @classmethod
    def create(cls, directory: Path, name: str) -> Self:
        """Create this process's file for one database.

        Args:
            directory: The directory that the workers of a service share.
            name: The database's key, with which the file's name begins.

        Raises:
            OSError: It cannot be created, or the disk is full.
        """
        path = directory / f"{name}-{os.getpid()}-{time.time_ns():x}{SUFFIX}"
        # It is renamed once it is locked, so that no reader takes it for an ended worker's.
        unnamed = path.with_suffix(".new")
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            lock(descriptor)
            # Written, not only extended: on a full disk, writing to a mapped hole kills the
            # process.
            with os.fdopen(descriptor, "wb", closefd=False) as empty:
                empty.write(bytes(LAYOUT.size))
            file = cls(path, descriptor)
            file._sign()
            unnamed.rename(path)
        except BaseException:
            os.close(descriptor)
            unnamed.unlink(missing_ok=True)
            raise
        return file

    def _sign(self) -> None:
        numbers = self.numbers
        numbers[LAYOUT.pid] = float(os.getpid())
        numbers[LAYOUT.started] = time.time()
        numbers[LAYOUT.signature] = LAYOUT.version

    def close(self, *, is_own: bool = True) -> None:
        """Close and unlock the file; readers then take its worker for ended.

        Args:
            is_own: Whether the file is this process's, and not inherited in a fork.
        """
        if is_own:
            self.numbers[LAYOUT.is_closed] = 1.0
        self.numbers.release()
        self.texts.release()
        self._map.close()
        os.close(self._descriptor)


def is_alive(path: Path) -> bool:
    """Return whether the worker of a file is alive; the kernel unlocks the file at its end.

    A worker whose file cannot be opened is taken to be alive. Anything but a regular file of this
    user is not a worker's.
    """
    try:
        descriptor = open_own(path)
    except (FileNotFoundError, UnusableFileError):
        return False
    except OSError:
        return True
    with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)):
        if not try_lock(descriptor, is_shared=True):
            return True
        unlock(descriptor)
        return False


LARGEST = 2.0**53
"""Upper limit of every number in a file; above it a float does not count by ones."""
LATEST = 2.0**33
"""Upper limit of every Unix time in a file, in the year 2242."""


class WorkerReader:
    """Reads the file of one worker repeatedly.

    Args:
        path: Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._history: deque[Sample] = deque(maxlen=SECONDS_KEPT)
        """Samples that were read before; each time only the newest are added."""
        self._seen = 0
        self._checkpoints: dict[float, Checkpoint] = {}
        """Those that were read before, by their times; none of them changes."""

    def read(self) -> WorkerReading:
        """Return the worker's reading.

        Raises:
            FileNotFoundError: The file was removed.
            OSError: The file cannot be read.
            UnusableFileError: The file is damaged, of another release, or not a worker's file.
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
            checkpoints=self._read_checkpoints(numbers, texts),
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

    def _read_checkpoints(
        self, numbers: "memoryview[float]", texts: memoryview
    ) -> tuple[Checkpoint, ...]:
        newest = self._history[-1].at if self._history else 0.0
        oldest = newest - CHECKPOINTS * CHECKPOINT_SECONDS
        known, self._checkpoints = self._checkpoints, {}
        for number in range(CHECKPOINTS):
            begin = LAYOUT.checkpoints + number * LAYOUT.of_checkpoint
            (at,) = _checked((numbers[begin],), LATEST)
            if not oldest < at <= newest:  # none yet, or the clock was set back
                continue
            if (checkpoint := known.get(at)) is None:
                values = _checked(numbers[begin : begin + LAYOUT.of_checkpoint].tolist())
                checkpoint = read_checkpoint(values, numbers, texts)
            self._checkpoints[at] = checkpoint
        return tuple(self._checkpoints[at] for at in sorted(self._checkpoints))

    def _add(self, sample: Sample) -> None:
        while self._history and self._history[-1].at > sample.at:
            self._history.pop()  # sampled before the clock was set back
        self._history.append(sample)


def read_totals(path: Path) -> Totals:
    """Return what the worker of a file has counted since its start.

    Raises:
        FileNotFoundError: The file was removed.
        OSError: The file cannot be read.
        UnusableFileError: The file is damaged, of another release, or not a worker's file.
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
    # Also false for NaN.
    if all(0 <= number < below for number in numbers):
        return numbers
    raise UnusableFileError("it is damaged: one of its numbers is out of range")


def _head(numbers: "memoryview[float]") -> tuple[int, float, int]:
    pid, started, written = numbers[LAYOUT.pid], numbers[LAYOUT.started], numbers[LAYOUT.written]
    _checked((pid, written)), _checked((started,), LATEST)
    return int(pid), started, int(written)


def _routes(numbers: "memoryview[float]", texts: memoryview) -> tuple[RouteUse, ...]:
    return tuple(
        RouteUse(route, **typed(ROUTE_FIELDS, _checked(values)))
        for (route,), values in routes_of(numbers, texts).read(OTHER_ROUTES)
    )


def _statements(numbers: "memoryview[float]", texts: memoryview) -> tuple[StatementUse, ...]:
    return tuple(
        StatementUse(statement, route, **typed(STATEMENT_FIELDS, _checked(values)))
        for (statement, route), values in statements_of(numbers, texts).read(OTHER_STATEMENTS)
    )


def _leases(numbers: "memoryview[float]", texts: memoryview) -> tuple[LeaseSample, ...]:
    end = LAYOUT.leases + LEASES * LEASE_NUMBERS
    return read_leases(_checked(numbers[LAYOUT.leases : end].tolist()), texts)


def _counters(numbers: "memoryview[float]") -> Counters:
    end = LAYOUT.counters + len(COUNTERS)
    counts = typed(COUNTERS, _checked(numbers[LAYOUT.counters : end].tolist()))
    # Checkouts are written once a second; what has come back since then was checked out before.
    counts["checkouts"] = max(counts["checkouts"], counts["checkins"])
    return Counters(**counts)


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
    _checked([value for name, value in by_name.items() if name not in OPTIONAL])
    _checked([abs(by_name[name]) for name in OPTIONAL if not isnan(by_name[name])])
    return Sample(**typed(SAMPLE, values))
