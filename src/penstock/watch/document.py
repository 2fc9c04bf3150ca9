"""The live document as it comes: JSON from elsewhere, of which nothing is believed."""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from math import isfinite
from typing import Self

_LARGEST = 1e15
_HISTORY_SECONDS = 900
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links
    r"|\x1b[ -/]*[0-~]?"
)
_SPACES = re.compile(r"\s+")


class DocumentError(ValueError):
    """A text is no live document, or has not the database that was asked for."""


def plain(text: str, longest: int = 1000) -> str:
    """Return text on one line, without anything that a terminal would obey.

    Escape sequences are left out, and so are characters that are not seen: control characters,
    marks that turn the direction of writing, and half surrogates, which cannot be encoded.

    Args:
        text: From a server.
        longest: Characters to which it is cut.
    """
    without = _SEQUENCES.sub("", text[: 4 * longest])
    spaced = _SPACES.sub(" ", without)
    seen = "".join(each for each in spaced if not unicodedata.category(each).startswith("C"))
    return seen.strip()[:longest]


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
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_LARGEST < value < _LARGEST else None


def _part(value: object) -> Part:
    return Part(value) if isinstance(value, dict) else Part()


@dataclass(frozen=True, slots=True)
class Document(Part):
    """The live document of a service."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a live document.

        Args:
            text: JSON.

        Raises:
            DocumentError: It is not JSON, or not a live document.
        """
        try:
            value = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
        except (ValueError, RecursionError):
            raise DocumentError(
                "does not answer with JSON. Something else answers there, such as a page for "
                "every path or a login: give the URL of the service that has Penstock installed."
            ) from None
        if not isinstance(value, dict) or not isinstance(value.get("databases"), list):
            raise DocumentError(
                "answers with JSON that is not Penstock's live document. Give the URL of a "
                "service that has Penstock installed, of the same version as this command."
            )
        return cls(value)

    @property
    def databases(self) -> list[Part]:
        """What it says of each database."""
        return self.parts("databases")

    @property
    def newest(self) -> dict[str, int]:
        """The last second of each database's history, in Unix time; 0 where it has none."""
        return {
            database.text("name"): _last(database.part("history")) for database in self.databases
        }

    def only(self, name: str) -> Self:
        """Return the document with one of its databases.

        Raises:
            DocumentError: It has no such one; the message has the names of those that it has.
        """
        for database in self.databases:
            if database.text("name") == name:
                return type(self)({**self.fields, "databases": [database.fields]})
        names = [database.text("name") for database in self.databases]
        those = f"those that it shows are: {', '.join(names)}" if names else "it shows none"
        raise DocumentError(f"shows no database {plain(name)!r}; {those}.")

    def line(self) -> str:
        """Return the document as one line of JSON, in printable ASCII."""
        return f"{json.dumps(self.fields)}\n"


def _last(history: Part) -> int:
    return max((int(at) for at in history.column("at") if at is not None and at > 0), default=0)


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Moment:
    """One second.

    Args:
        checked_out: Connections that are checked out.
        waiting: Waiters.
        checkouts: Connections checked out within it.
        rejected: Callers that were rejected within it.
    """

    checked_out: float
    waiting: float
    checkouts: float
    rejected: float


@dataclass(frozen=True, slots=True)
class History:
    """The last 15 minutes of one database, put together from the documents so far."""

    _moments: Mapping[int, Moment] = field(default_factory=dict)

    def with_columns(self, columns: Part) -> "History":
        """Return the history with what a document says of one second or of many.

        Args:
            columns: Its ``history``: a list for each field, all of one length.
        """
        names = ("checked_out", "waiting", "checkouts", "rejected")
        moments = dict(self._moments)
        for at, *numbers in zip_longest(columns.column("at"), *map(columns.column, names)):
            if at is not None:
                moments[int(at)] = Moment(*(number or 0.0 for number in numbers))
        first = max(moments, default=0) - _HISTORY_SECONDS
        return History({at: moments[at] for at in sorted(moments) if at > first})

    @property
    def newest(self) -> int:
        """Unix time of the newest second; 0 without any."""
        return max(self._moments, default=0)

    def last(self, seconds: int) -> list[Moment]:
        """Return what is known of the last seconds, oldest first."""
        newest = self.newest
        return [moment for at, moment in self._moments.items() if at > newest - seconds]

    def peaks(self, name: str, columns: int, seconds: int) -> list[float | None]:
        """Return the highest numbers of even stretches of time.

        Args:
            name: A field of :class:`Moment`.
            columns: How many stretches, the last with the newest second.
            seconds: How long each is. They begin at multiples of it, so that a peak moves on
                as a whole.

        Returns:
            One number for each, oldest first; None where nothing is known.
        """
        last = self.newest // seconds
        found = self._highest(name, seconds)
        return [found.get(stretch) for stretch in range(last - columns + 1, last + 1)]

    def _highest(self, name: str, seconds: int) -> dict[int, float]:
        highest: dict[int, float] = {}
        for at, moment in self._moments.items():
            number: float = getattr(moment, name)
            highest[at // seconds] = max(number, highest.get(at // seconds, number))
        return highest
