"""Texts with places that are filled anew for each request."""

import csv
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from uuid import UUID

from penstock.base_error import SettingsError

# JSON has no braces around something that is neither empty nor quoted.
_PLACEHOLDER = re.compile(r"\{([^{}\"\s]+)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_ACCEPTED = "{1..100}, {uuid}, {seq} and {csv:FILE:COLUMN} accepted"


class Template:
    """A text in which each placeholder becomes a value.

    ``{1..100}`` becomes a random whole number, both ends included; ``{uuid}`` a random UUID;
    ``{seq}`` 1, 2, 3 and so on; ``{csv:FILE:COLUMN}`` the column of a random row of a CSV file,
    whose first row has the names.

    Args:
        text: With placeholders or without.
        escape: Makes a value fit its surroundings.

    Raises:
        SettingsError: A placeholder is unknown, or its file cannot be used.
    """

    def __init__(self, text: str, escape: Callable[[str], str]) -> None:
        # Those at odd places are what the pattern's group has found.
        parts = _PLACEHOLDER.split(text)
        self._texts = parts[::2]
        self._values = [_values(placeholder) for placeholder in parts[1::2]]
        self._escape = escape

    def render(self, random: Random) -> str:
        """Return the text with new values."""
        return "".join(self._parts(random))

    def _parts(self, random: Random) -> Iterator[str]:
        yield self._texts[0]
        for value, text in zip(self._values, self._texts[1:], strict=True):
            yield self._escape(value(random))
            yield text


def _values(placeholder: str) -> Callable[[Random], str]:
    """Return what makes the next value of a placeholder."""
    if bounds := _RANGE.fullmatch(placeholder):
        first, last = int(bounds[1]), int(bounds[2])
        if first > last:
            raise SettingsError(f"{{{placeholder}}}: {first} is above {last}; the lower one first")
        return lambda random: str(random.randint(first, last))
    if placeholder == "uuid":
        return lambda random: str(UUID(int=random.getrandbits(128), version=4))
    if placeholder == "seq":
        numbers = count(1)
        return lambda _: str(next(numbers))
    if placeholder.startswith("csv:"):
        column = _column(placeholder)
        return lambda random: random.choice(column)
    raise SettingsError(f"{{{placeholder}}}: is no placeholder; {_ACCEPTED}")


def _column(placeholder: str) -> list[str]:
    name, _, column = placeholder.removeprefix("csv:").rpartition(":")
    try:
        with Path(name).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{{{placeholder}}}: {name!r} cannot be read: {error}") from error
    values = [row[column] for row in rows if row.get(column) is not None]
    if not values:
        columns = ", ".join(map(str, rows[0])) if rows else "none, as it has no row"
        raise SettingsError(f"{{{placeholder}}}: {name} has no {column!r}; its columns: {columns}")
    return values
