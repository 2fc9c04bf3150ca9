"""Texts with places that are filled anew for each request."""

import csv
import json
import re
import string
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Self
from urllib.parse import quote
from uuid import UUID

from penstock.base_error import SettingsError

# JSON has no braces around something that is neither empty nor quoted.
_PLACEHOLDER = re.compile(r"\{([^{}\"\s]+)\}")
# In a path, a brace that is no placeholder's; in JSON, one that begins like a placeholder.
_STRAY_IN_PATH = re.compile(r"[{}]")
_STRAY_IN_JSON = re.compile(r"\{(?=-?\d|uuid|seq|csv:)")
_EXCERPT = 12
_VISIBLE = string.ascii_letters + string.digits + string.punctuation
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
        stray: What the text must not have beside its placeholders.

    Raises:
        SettingsError: A placeholder is unknown or not complete, or its file cannot be used.
    """

    def __init__(self, text: str, escape: Callable[[str], str], stray: re.Pattern[str]) -> None:
        if found := stray.search(_PLACEHOLDER.sub(lambda each: " " * len(each[0]), text)):
            raise SettingsError(
                f"{text[found.start() :][:_EXCERPT]!r}, from character {found.start() + 1} on, is "
                f"no complete placeholder; {_ACCEPTED}"
            )
        # Those at odd places are what the pattern's group has found.
        parts = _PLACEHOLDER.split(text)
        self._texts = parts[::2]
        self._values = [_values(placeholder) for placeholder in parts[1::2]]
        self._escape = escape

    @classmethod
    def of_path(cls, text: str) -> Self:
        """Return that of a path, whose characters beyond ASCII are percent-encoded."""
        made = cls(text, lambda value: quote(value, safe=""), _STRAY_IN_PATH)
        made._texts = [quote(each, safe=_VISIBLE) for each in made._texts]
        return made

    @classmethod
    def of_json(cls, text: str) -> Self:
        """Return that of JSON, in which values are parts of strings or whole numbers."""
        return cls(text, lambda value: json.dumps(value)[1:-1], _STRAY_IN_JSON)

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
        # How many, not which: of a wrong file the first row can be anything.
        raise SettingsError(
            f"{{{placeholder}}}: no row has a value in a column {column!r}; the first line has the "
            f"names; rows: {len(rows)}, columns: {len(rows[0]) if rows else 0}"
        )
    return values
