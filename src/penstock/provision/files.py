"""Generated files, and how they get into a directory without anything being lost."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.base_error import PenstockError


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """A file that is to be written.

    Args:
        name: Its path below the directory, with slashes.
        text: All of it.
        mode: Its rights. A secret that others may read is in a directory that is closed to them.
        is_secret: Whether no difference in it is shown.
    """

    name: str
    text: str = field(repr=False)
    mode: int = 0o644
    is_secret: bool = False

    def difference(self, directory: Path) -> str:
        """Return how it differs from what stands there; empty where it does not, or nothing does.

        Args:
            directory: Where it is to be written.

        Raises:
            PenstockError: What stands there cannot be read.
        """
        path = directory / self.name
        try:
            before = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise PenstockError(f"{path} cannot be read: {type(error).__name__}") from None
        if before == self.text:
            return ""
        if self.is_secret:
            return f"{path} differs; what is in it is not shown.\n"
        lines = before.splitlines(keepends=True), self.text.splitlines(keepends=True)
        return "".join(difflib.unified_diff(*lines, str(path), f"{path} (generated)"))


class FilesDifferError(PenstockError):
    """Files of these names are there already, with other contents; nothing was written."""


def write_files(
    files: Sequence[GeneratedFile], directory: str | os.PathLike[str], *, force: bool = False
) -> list[Path]:
    """Write files, each at once in place of what was there.

    Args:
        files: Which ones.
        directory: Where; it is made where it is missing.
        force: Whether files of the same names and other contents are replaced.

    Returns:
        The paths of those that were not there, or differed.

    Raises:
        FilesDifferError: Without ``force``, some would have been replaced; with the differences.
        PenstockError: One cannot be read or written.
    """
    directory = Path(directory)
    differences = [each.difference(directory) for each in files]
    if any(differences) and not force:
        raise FilesDifferError(
            "".join(differences) + "Nothing was written: --force replaces what is there."
        )
    written = [
        each
        for each, difference in zip(files, differences, strict=True)
        if difference or not (directory / each.name).exists()
    ]
    for each in files:
        path = directory / each.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if each.is_secret:
                _close(each, path)
            if each in written:
                _write(each, path)
        except OSError as error:
            raise PenstockError(f"{path} cannot be written: {error.strerror}") from None
    return [directory / each.name for each in written]


def _write(file: GeneratedFile, path: Path) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        new.touch(mode=0o600, exist_ok=False)
        new.write_text(file.text, encoding="utf-8")
        new.chmod(file.mode)  # whatever the umask: containers read them as another user
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _close(file: GeneratedFile, path: Path) -> None:
    """Let nobody else reach a secret that is to be written, or is there already."""
    closed, mode = (path.parent, 0o700) if file.mode & 0o077 else (path, file.mode)
    if closed.exists() and closed.stat().st_mode & 0o777 & ~mode:
        closed.chmod(mode)
