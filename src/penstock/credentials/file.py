"""Credentials in a file that is replaced when they change: a Kubernetes secret, a Vault agent."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from penstock.credentials.provider import Credentials

_Version = tuple[int, int, int, int]
_LARGEST = 65536


class FileCredentials:
    """Reads credentials from a file, and again when it was changed or replaced.

    The file holds a password alone, to which a line break at its end does not belong, or a JSON
    object with ``password`` and, where it is not the URL's, ``username``. Symbolic links are
    followed anew each time: Kubernetes replaces a mounted secret by switching one.

    Args:
        path: Of the file.
        max_age: Seconds after which a connection is replaced, as for :class:`Credentials`.
    """

    def __init__(self, path: str | Path, *, max_age: float | None = None) -> None:
        self.path = Path(path)
        self.name = f"file_credentials({str(path)!r})"
        self._max_age = max_age
        self._version: _Version | None = None

    def has_changed(self) -> bool:
        """Return whether the file is another than the one that was read last."""
        try:
            return _version(self.path.stat()) != self._version
        except OSError:
            return False  # between two of them; what was read before still counts

    async def __call__(self) -> Credentials:
        """Read the file.

        Raises:
            OSError: It cannot be read.
            ValueError: It holds no credentials.
        """
        text, version = await asyncio.to_thread(self._read)
        user, password = self._parsed(text)
        credentials = Credentials(user=user, password=password, max_age=self._max_age)
        self._version = version
        return credentials

    def _read(self) -> tuple[str, _Version]:
        with self.path.open("rb") as file:
            version = _version(os.fstat(file.fileno()))
            content = file.read(_LARGEST)
        try:
            return content.decode(), version
        except UnicodeDecodeError:  # which has the content
            raise ValueError(f"{self.path} is no UTF-8") from None

    def _parsed(self, text: str) -> tuple[str | None, str]:
        if not text.lstrip().startswith("{"):
            password = text.rstrip("\r\n")
            if not password:
                raise ValueError(f"{self.path} is empty")
            return None, password
        found = _json_object(text)
        user, secret = found.get("username"), found.get("password")
        if isinstance(secret, str) and secret and isinstance(user, str | None):
            return user, secret
        raise ValueError(
            f'{self.path}: a password, or JSON as {{"username": ..., "password": ...}}, is accepted'
        )


def _version(found: os.stat_result) -> _Version:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:  # which would show the text
        return {}
    return found if isinstance(found, dict) else {}
