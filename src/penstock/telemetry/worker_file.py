"""One worker's file: memory that other processes read, and that outlives its process."""

import contextlib
import mmap
import os
import time
from pathlib import Path
from typing import Self

from penstock.telemetry.layout import LAYOUT
from penstock.telemetry.locking import lock, try_lock, unlock
from penstock.telemetry.own_file import UnusableFileError, open_own

__all__ = ["SUFFIX", "WorkerFile", "is_alive"]

SUFFIX = ".worker"


class WorkerFile:
    """A mapped file that its worker holds locked for as long as it lives.

    Args:
        path: Where it is.
        descriptor: Of the open file.

    Attributes:
        numbers: Its floats.
        texts: All of its bytes.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, LAYOUT.size)
        self.texts = memoryview(self._map)
        self.numbers: memoryview[float] = self.texts[: LAYOUT.numbers * 8].cast("d")

    @classmethod
    def create(cls, directory: Path, name: str) -> Self:
        """Make this process's file for one database.

        Args:
            directory: Shared by the workers of one service.
            name: The database's.

        Raises:
            OSError: It cannot be made, or the disk has no room for it.
        """
        path = directory / f"{name}-{os.getpid()}-{time.time_ns():x}{SUFFIX}"
        # It gets its name once it is locked: nobody may take it for one that was left behind.
        unnamed = path.with_suffix(".new")
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            lock(descriptor)
            # Written and not only made so long: on a full disk, memory without room behind it
            # ends the process that writes to it.
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
        """Let go of the file, which others then take for that of a worker that has ended.

        Args:
            is_own: Whether it is this process's, and not that of the one that forked it.
        """
        if is_own:
            self.numbers[LAYOUT.is_closed] = 1.0
        self.numbers.release()
        self.texts.release()
        self._map.close()
        os.close(self._descriptor)


def is_alive(path: Path) -> bool:
    """Return whether the worker whose file it is still lives: the kernel unlocks it at its end.

    Of one whose file cannot be opened that is not known, and it is taken to live. What is no
    regular file of this user's is no worker's.
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
