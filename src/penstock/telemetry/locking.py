"""Locks on open files, which the kernel gives up at their holder's end."""

import sys

if sys.platform != "win32":
    import fcntl

__all__ = ["IS_POSSIBLE", "lock", "try_lock", "unlock"]

IS_POSSIBLE = sys.platform != "win32"
"""Whether there are such locks."""


def lock(descriptor: int) -> None:
    """Lock a file that nobody else has locked."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def try_lock(descriptor: int, *, is_shared: bool = False) -> bool:
    """Lock a file unless somebody else has; return whether that worked.

    Args:
        descriptor: Of the open file.
        is_shared: Whether others may have it locked in this way as well.
    """
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Unlock a file, also for a process that was forked meanwhile and has it open as well."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
