"""Where the workers of one service on one machine keep their files."""

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from penstock.telemetry.ended import LOCK
from penstock.telemetry.own_file import owner_and_mode
from penstock.telemetry.worker_file import SUFFIX, is_alive

__all__ = ["group_directory", "leave_nothing"]


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
