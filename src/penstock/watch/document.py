"""The live document as it comes: JSON from elsewhere, of which nothing is believed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from penstock.watch.errors import WatchError
from penstock.watch.plain import plain

__all__ = ["Part", "only", "parse"]

_LARGEST = 1e15


@dataclass(frozen=True, slots=True)
class Part:
    """An object of the document, whose fields may be missing or of any type.

    Args:
        fields: As they came.
    """

    fields: Mapping[str, object] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """Return a number; None if there is no sensible one."""
        return _number(self.fields.get(name))

    def count(self, name: str) -> int:
        """Return a number as a whole one; 0 if there is none."""
        return int(self.number(name) or 0)

    def text(self, name: str) -> str:
        """Return a text, fit for a terminal; empty if there is none."""
        value = self.fields.get(name)
        return plain(value) if isinstance(value, str) else ""

    def part(self, name: str) -> "Part":
        """Return an object; an empty one if there is none."""
        return _part(self.fields.get(name))

    def parts(self, name: str) -> list["Part"]:
        """Return the objects of a list; none if there is no list."""
        value = self.fields.get(name)
        return [_part(each) for each in value] if isinstance(value, list) else []

    def column(self, name: str) -> list[float | None]:
        """Return a list of numbers, with None for what is none."""
        value = self.fields.get(name)
        return [_number(each) for each in value] if isinstance(value, list) else []


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and -_LARGEST < value < _LARGEST else None  # type: ignore[arg-type,operator]  # it is known


def _part(value: object) -> Part:
    return Part(value) if isinstance(value, dict) else Part()


def parse(text: str, url: str) -> Part:
    """Read a live document.

    Args:
        text: JSON.
        url: Where it is from, for the message.

    Raises:
        WatchError: It is not JSON, or not a live document.
    """
    try:
        value = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        raise WatchError(
            f"{url} does not answer with JSON. Something else answers there, such as a page for "
            "every path or a login: give the URL of the service that has Penstock installed."
        ) from None
    if not isinstance(value, dict) or not isinstance(value.get("databases"), list):
        raise WatchError(
            f"{url} answers with JSON that is not Penstock's live document. Give the URL of a "
            "service that has Penstock installed, of the same version as this command."
        )
    return Part(value)


def only(document: Part, name: str) -> Part:
    """Return a document with one of its databases.

    Raises:
        WatchError: It has no such one; the message has the names of those that it has.
    """
    names = [database.text("name") for database in document.parts("databases")]
    if name not in names:
        there = f"those that it shows are: {', '.join(names)}" if names else "it shows none"
        raise WatchError(f"The service shows no database {plain(name)!r}; {there}.")
    (kept, *_) = (each for each in document.parts("databases") if each.text("name") == name)
    return Part({**document.fields, "databases": [kept.fields]})


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if isfinite(number) else None
