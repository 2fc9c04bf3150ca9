"""An examination as a table for people, or as JSON for programs."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from penstock.doctor.check import Observation, number_of
from penstock.doctor.examination import Examination, Result
from penstock.findings import Severity

_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_SHOWN_SQL = 3


def document(examination: Examination) -> dict[str, Any]:
    """Return an examination as JSON has it."""
    return {
        "server": examination.server,
        "seconds": round(examination.seconds, 3),
        "counts": dict(_counts(examination)),
        "results": [_entry(result) for result in examination.results],
    }


def write_json(examination: Examination) -> str:
    """Return an examination as a text of JSON."""
    return json.dumps(document(examination), indent=2)


def _entry(result: Result) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": result.check.id,
        "title": result.check.title,
        "status": result.status,
    }
    if seen := result.observation:
        entry |= {"evidence": seen.evidence, "remedy": seen.remedy, "sql": list(seen.sql)}
    if result.skipped:
        entry["reason"] = result.skipped
    return entry


def _counts(examination: Examination) -> Counter[str]:
    return Counter(result.status for result in examination.results)


def draw(examination: Examination) -> Iterator[RenderableType]:
    """Return what is printed: findings, the gravest first, what was skipped, and the sums."""
    yield Text(f"penstock doctor  {examination.server}", style="bold")
    table = findings_table(
        (result.check.id, seen)
        for severity in reversed(Severity)
        for result in examination.results
        if (seen := result.observation) and seen.severity is severity
    )
    if table.row_count:
        yield table
    yield from _skipped(examination)
    counts = _counts(examination)
    said = ", ".join(f"{counts[status]} {status}" for status in (*reversed(Severity), "ok"))
    yield Text(
        f"{number_of(len(examination.results), 'check')} in {examination.seconds:.2f} s: {said}, "
        f"{counts['skipped']} skipped"
    )


def findings_table(found: Iterable[tuple[str, Observation]]) -> Table:
    """Return a table of what was found.

    Args:
        found: Each with its id, in the order in which they are shown.
    """
    table = Table(box=None, padding=(0, 1), show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, seen in found:
        table.add_row(Text(seen.severity, style=_STYLES[seen.severity]), _cell(name, seen))
    return table


def _cell(name: str, seen: Observation) -> Text:
    cell = Text(f"{name}: ", style="bold")
    cell.append(seen.evidence, style="not bold")
    cell.append(f"\ndo: {seen.remedy}", style="not bold")
    for statement in seen.sql[:_SHOWN_SQL]:
        cell.append(f"\n    {statement}", style="not bold dim")
    if (more := len(seen.sql) - _SHOWN_SQL) > 0:
        cell.append(f"\n    ... and {more} more (--json)", style="not bold dim")
    return cell


def _skipped(examination: Examination) -> Iterator[RenderableType]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for result in examination.results:
        if result.skipped:
            reasons[result.skipped].append(result.check.id)
    for reason, ids in reasons.items():
        yield Text(f"skipped  {', '.join(ids)}: {reason}", style="dim")
