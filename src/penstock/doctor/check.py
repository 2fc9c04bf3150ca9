"""What a check is: a query, and a rule from its rows to what was seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from penstock.findings import Severity

Row = Mapping[str, Any]
Rows = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a rule has seen in the rows of its query.

    Args:
        severity: How soon to act.
        evidence: What was seen, with its numbers.
        remedy: What to do.
        sql: Statements that do it, ready to be run by a person; empty where none can.
    """

    severity: Severity
    evidence: str
    remedy: str
    sql: tuple[str, ...] = ()


class NotKnown(Exception):  # noqa: N818 - it says what happened
    """The rows do not say whether something is wrong; the message says why."""


Rule = Callable[[Rows], Observation | None]
"""Returns what is wrong, or None; depends on the rows alone. Raises :class:`NotKnown`."""


@dataclass(frozen=True, slots=True)
class Query:
    """Where rows come from.

    Args:
        name: Of its file in ``sql/``, or the command of PgBouncer's console.
        since: First major version of PostgreSQL that can answer.
        shows_own_sessions_only: Whether a role without ``pg_read_all_stats`` gets rows in which the
            sessions of other roles are missing or empty.
        on_replica: Whether only a replica can answer (True), or only a primary (False).
        of_pgbouncer: Whether PgBouncer's console answers.
        extension: Whose relations it reads; empty where the server has them all.
    """

    name: str
    since: int = 0
    shows_own_sessions_only: bool = False
    on_replica: bool | None = None
    of_pgbouncer: bool = False
    extension: str = ""

    @property
    def sql(self) -> str:
        """The text of its file."""
        return _text(self.name)


@cache
def _text(name: str) -> str:
    return files("penstock.doctor").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at.

    Args:
        id: Stable name, under which ``docs/doctor.md`` explains it and its findings are reported.
        title: What it looks at, in a few words.
        reports: What is reported, with its limits.
        query: Where its rows come from.
        rule: What is wrong with them.
    """

    id: str
    title: str
    reports: str
    query: Query
    rule: Rule


def listed(items: Sequence[str], most: int = 5) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


def number_of(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as ``1 index`` or ``2 indexes``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size(number: float) -> str:
    """Return a number of bytes, such as ``16.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def span(seconds: float) -> str:
    """Return a duration, such as ``4.2 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def literal(text: str) -> str:
    """Return a text as SQL has it, in quotes."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a name as SQL has it, in double quotes."""
    return '"' + name.replace('"', '""') + '"'
