"""Files of this user's own, opened so that nothing else is followed, waited for or believed."""

import os
import stat
from pathlib import Path

__all__ = ["UnusableFileError", "open_own", "owner_and_mode", "read_own"]

# Windows has neither, nor anything that they would help against.
_UNTRUSTING = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class UnusableFileError(OSError):
    """A file is not what it should be; the message says in what way."""


def open_own(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file of this user's.

    Args:
        path: Where it is.
        flags: As for ``os.open``.

    Returns:
        Its descriptor.

    Raises:
        UnusableFileError: Something else is there, or another user's.
        FileNotFoundError: Nothing is there, and ``O_CREAT`` is not among the flags.
        OSError: It cannot be opened.
    """
    try:
        _check(path.lstat())  # a device may do something as soon as it is opened
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
    """Return the beginning of a regular file of this user's.

    Args:
        path: Where it is.
        size: Bytes to read at most.
        sizes: How many it may have.

    Raises:
        OSError: As :func:`open_own`, or it has another size.
    """
    with os.fdopen(open_own(path), "rb", buffering=0) as file:
        if (found := os.fstat(file.fileno()).st_size) not in sizes:
            raise UnusableFileError(f"it has {found} bytes")
        return file.read(size)


def owner_and_mode(found: os.stat_result) -> str:
    """Return who owns a file or directory and who may use it, in words."""
    return f"belongs to uid {found.st_uid} and has mode {stat.S_IMODE(found.st_mode):04o}"


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnusableFileError("it is not a regular file")
    if found.st_uid != os.getuid():
        raise UnusableFileError(f"it {owner_and_mode(found)}")
