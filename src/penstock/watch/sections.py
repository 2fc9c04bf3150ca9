"""The lists below a database's numbers: findings, routes, statements, workers."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.watch.document import Part
from penstock.watch.figures import age, count, duration

__all__ = ["Section", "sections"]

_SEVERITIES = {"critical": "bold red", "warning": "bold yellow", "info": "bold cyan"}
_WIDE = 110
_ONE_FINDING = 4


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of one line, and lines of which any number can be shown.

    Args:
        lines: How many there are.
        show: Draws the heading and so many of them.
        least: How many say something by themselves.
    """

    lines: int
    show: Callable[[int], RenderableType]
    least: int = 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list.

    Args:
        heading: In its first line.
        cell: Its text in each other one.
        is_text: It takes what room the numbers leave.
    """

    heading: str
    cell: Callable[[Part], str]
    is_text: bool = False


def sections(database: Part, console: Console, width: int) -> list[Section]:
    """Return a database's sections, the more important first; those without lines are left out.

    Args:
        database: Of the live document.
        console: Where they will be shown.
        width: Characters of a line.
    """
    statements = _statement_columns(with_route=width >= _WIDE)
    found = [
        _findings(database.parts("findings"), console, width),
        _list("ROUTES by hold time", _ROUTES, database.parts("routes")),
        _list("SLOW STATEMENTS", statements, database.parts("statements")),
        _list("WORKERS", _WORKERS, database.parts("workers")),
    ]
    return [section for section in found if section.lines]


def _list(title: str, columns: Iterable[Column], parts: list[Part]) -> Section:
    columns = tuple(columns)

    def show(lines: int) -> Table:
        number = f"{lines} of {len(parts)}" if lines < len(parts) else f"{len(parts)}"
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), pad_edge=False)
        for column in columns:
            table.add_column(
                Text(f"{title} ({number})" if column.is_text else column.heading, style="bold"),
                justify="left" if column.is_text else "right",
                no_wrap=True,
                overflow="ellipsis",
                ratio=1 if column.is_text else None,
            )
        for part in parts[:lines]:
            table.add_row(*(Text(column.cell(part)) for column in columns))
        return table

    return Section(len(parts), show)


_ROUTES = (
    Column("route", lambda use: use.text("route"), is_text=True),
    Column("leases", lambda use: count(use.number("checkouts"))),
    Column("in all", lambda use: duration(use.number("seconds"))),
    Column("mean", lambda use: duration(use.number("mean"))),
    Column("longest", lambda use: duration(use.number("longest"))),
)

_WORKERS = (
    Column("worker", lambda worker: f"pid {worker.count('pid')}", is_text=True),
    Column("up", lambda worker: age(_lived(worker))),
    Column("in use", lambda worker: count(worker.part("now").number("checked_out"))),
    Column("limit", lambda worker: count(worker.part("now").number("limit") or None)),
    Column("idle", lambda worker: count(worker.part("now").number("checked_in"))),
    Column("waiting", lambda worker: count(worker.part("now").number("waiting"))),
    Column("loop late", lambda worker: duration(worker.part("now").number("loop_late"))),
)


def _statement_columns(*, with_route: bool) -> Iterator[Column]:
    yield Column("statement", _statement if not with_route else _bare_statement, is_text=True)
    if with_route:
        yield Column("on", lambda use: use.text("route")[:40])
    yield Column("slow", lambda use: count(use.number("calls")))
    yield Column("mean", lambda use: duration(_mean(use)))
    yield Column("longest", lambda use: duration(use.number("longest")))
    # A statement that a request runs over and over is usually a loop over a query.
    yield Column("in one", lambda use: count(use.number("most_in_request") or None))


def _bare_statement(use: Part) -> str:
    return use.text("statement")


def _statement(use: Part) -> str:
    return f"{use.text('statement')}  on {use.text('route')}"


def _mean(use: Part) -> float | None:
    seconds, calls = use.number("seconds"), use.number("calls")
    return seconds / calls if seconds is not None and calls else None


def _lived(worker: Part) -> float | None:
    now, started = worker.part("now").number("at"), worker.number("started")
    return max(now - started, 0.0) if now is not None and started is not None else None


def _findings(findings: list[Part], console: Console, width: int) -> Section:
    order = list(_SEVERITIES)
    ranked = sorted(findings, key=lambda each: (*order, _severity(each)).index(_severity(each)))
    lines = [line for finding in ranked for line in _finding(finding, console, width)]

    def show(count: int) -> Group:
        title = Text(f"FINDINGS ({len(findings)})", style="bold")
        if count < len(lines):
            title.append(", not all of which fit here", style="not bold")
        return Group(title, *lines[:count])

    return Section(len(lines), show, least=_ONE_FINDING)


def _severity(finding: Part) -> str:
    return finding.text("severity")


def _finding(finding: Part, console: Console, width: int) -> Iterator[Text]:
    severity = _severity(finding)
    evidence = Text.assemble(
        (severity, _SEVERITIES.get(severity, "bold")),
        " ",
        (finding.text("id"), "bold"),
        f": {finding.text('evidence')}",
    )
    yield from evidence.wrap(console, width)
    for line in Text(f"do: {finding.text('remedy')}").wrap(console, max(width - 4, 1)):
        yield Text("    ") + line
