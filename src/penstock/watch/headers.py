"""Headers that somebody gives for the requests."""

import re
from collections.abc import Iterable

from penstock.watch.errors import WatchError

__all__ = ["headers_from"]

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}


def headers_from(lines: Iterable[str]) -> dict[str, str]:
    """Read headers.

    Args:
        lines: Each ``Name: value``; empty ones count for nothing.

    Returns:
        The values by their names.

    Raises:
        WatchError: A line is no header, or one that must not be set. The message does not show it.
    """
    return dict(_header(line.strip()) for line in lines if line.strip())


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise WatchError(
            "A header has to be written as 'Name: value' in printable characters, "
            "such as 'Authorization: Bearer ...'. (What was given is not shown: it may be secret.)"
        )
    if name.lower() in _OURS:
        raise WatchError(f"The header {name} cannot be given: the connection sets it by itself.")
    return name, value.strip()
