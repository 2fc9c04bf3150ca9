"""The slow statements of a service's routes, what the server says of them, and a missing index."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.doctor.check import (
    Check,
    Observation,
    Query,
    Row,
    Rows,
    listed,
    number_of,
    span,
)
from penstock.drivers.sql_text import shape
from penstock.findings import Severity

STATEMENTS = Query("statements", extension="pg_stat_statements")
MOST_PLANS = 5
"""Statements whose plan is asked for: those that took longest in the service."""

LARGE_TABLE = 1000
"""Rows from which on reading a whole table is worth an index."""

_COLUMN = r"""("[^"]+"|[a-z_][\w$]*)"""
_TO_PARAMETER = r"(?:::[\w ]+)? (?:=|<|>|<=|>=) \(*\$\d"


@dataclass(frozen=True, slots=True)
class SlowUse:
    """A statement that was slow on one route.

    Args:
        route: Such as ``GET /things``.
        statement: Its shape, as the service has it: on one line, without values, cut.
        calls: How often it was slow.
        seconds: How long these calls took together.
    """

    route: str
    statement: str
    calls: int
    seconds: float


def matched(uses: Sequence[SlowUse], statements: Rows) -> list[tuple[SlowUse, Row]]:
    """Return the uses that took longest, each with the server's row of its statement.

    Args:
        uses: What a service knows.
        statements: The rows of :data:`STATEMENTS`.
    """
    by_shape: dict[str, Row] = {}
    for row in statements:
        by_shape.setdefault(shape(row["query"]), row)
    known = [(use, by_shape[use.statement]) for use in uses if use.statement in by_shape]
    return sorted(known, key=lambda pair: -pair[0].seconds)[:MOST_PLANS]


def scans(plan: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each table that a plan reads as a whole, and the columns that it compares.

    Args:
        plan: As ``EXPLAIN (FORMAT JSON, VERBOSE)`` returns it, below ``Plan``.
    """
    if plan.get("Node Type") == "Seq Scan" and "Filter" in plan:
        relation = f"{plan['Schema']}.{plan['Relation Name']}"
        columns = _compared(str(plan["Filter"]), str(plan["Alias"]))
        if columns:
            yield relation, columns
    for below in plan.get("Plans", ()):
        yield from scans(below)


def _compared(text: str, alias: str) -> list[str]:
    # VERBOSE writes each column with its table. In parentheses of its own, a column is converted,
    # or the argument of a function, which an index on it does not help.
    name = rf"{re.escape(alias)}\.{_COLUMN}"
    pattern = rf"{name}{_TO_PARAMETER}|(?<!\w)\({name}\){_TO_PARAMETER}"
    return list(dict.fromkeys(found[1] or found[2] for found in re.finditer(pattern, text)))


def _slow(rows: Rows) -> Observation | None:
    if not rows:
        return None
    missing = {index: row for row in rows for index in row["indexes"]}
    named = [
        f"{row['route']} waited {span(row['seconds'])} in {number_of(row['calls'], 'slow call')} "
        f"of a statement that the server ran {row['server_calls']:,} times, "
        f"{row['server_mean'] * 1000:.1f} ms on average: {row['statement']}"
        for row in rows
    ]
    return Observation(
        Severity.WARNING if missing else Severity.INFO,
        f"Slow statements of the service: {listed(named)}.",
        "An index is missing by their plans; look at EXPLAIN (ANALYZE, BUFFERS) before and after."
        if missing
        else "Look at EXPLAIN (ANALYZE, BUFFERS) of each.",
        tuple(f"CREATE INDEX CONCURRENTLY ON {index};" for index in missing),
    )


CHECK = Check(
    "slow-routes",
    "The slow statements of a service's routes",
    "warning where a generic plan reads a table of 1,000 rows or more by comparing columns, else "
    "info; needs pg_stat_statements",
    STATEMENTS,
    _slow,
)
