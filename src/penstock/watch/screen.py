"""The screen: which service is watched, how fresh the numbers are, and each database."""

import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.watch.client import Lost
from penstock.watch.document import Document, History, Part
from penstock.watch.figures import age, bar, count, duration, size, sparkline

_ENDLESS = 10_000
_SUMMARY_LINES = 5
_AIRY = 40
_OLD = 3.0
_LEAST = _SUMMARY_LINES + 3
_REASON_LINES = 3
_NOTHING = "No database is shown. In production, install(..., access=...) shows it."


@dataclass(frozen=True, slots=True)
class _Known:
    document: Document = field(default_factory=Document)
    histories: Mapping[str, History] = field(default_factory=dict)
    since: float = 0.0
    lost: Lost | None = None
    lost_at: float = 0.0


@dataclass(slots=True)
class Screen:
    """Draws what is known, in whatever size the terminal has at that moment.

    Args:
        source: Who is watched.
        clock: Monotonic time in seconds.
    """

    source: str
    clock: Callable[[], float] = time.monotonic
    _known: _Known = field(default_factory=_Known)

    def take(self, news: Document | Lost) -> None:
        """Take what is new; the next drawing, which may be in another thread, has all of it."""
        now, known = self.clock(), self._known
        if isinstance(news, Lost):
            self._known = replace(known, lost=news, lost_at=now)
            return
        histories: dict[str, History] = {}
        for database in news.databases:
            name = database.text("name")
            before = histories.get(name) or known.histories.get(name, History())
            histories[name] = before.with_columns(database.part("history"))
        self._known = _Known(news, histories, now)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height
        if height is None and console.is_alt_screen:
            height = options.size.height
        known = self._known
        above = [
            self._title(known, width, ascii_only=options.ascii_only),
            *self._trouble(known, console, width),
        ]
        databases = known.document.databases
        if not databases:
            above.append(Text(_NOTHING))
        elif height is not None:
            most = max((height - len(above)) // _LEAST, 1)
            if most < len(databases):
                above.append(Text(f"{most} of {len(databases)} databases: --database NAME"))
                databases = databases[:most]
        yield from above
        for index, database in enumerate(databases):
            lines = None if height is None else _part(height - len(above), len(databases), index)
            history = known.histories[database.text("name")]
            yield _draw(database, history, console, options, lines)

    def _title(self, known: _Known, width: int, *, ascii_only: bool) -> Text:
        seconds = self.clock() - known.since
        fresh = seconds < _OLD and known.lost is None
        state = "live" if fresh else f"{seconds:.0f} s old"
        title = Text.assemble(("penstock watch", "bold"), f"  {self.source}")
        title.truncate(
            max(width - len(state) - 2, 0), overflow="crop" if ascii_only else "ellipsis"
        )
        title.pad_right(max(width - title.cell_len - len(state), 0))
        title.append(state, style="green" if fresh else "bold red")
        return title

    def _trouble(self, known: _Known, console: Console, width: int) -> Iterator[Text]:
        if (lost := known.lost) is None:
            return
        left = max(lost.pause - (self.clock() - known.lost_at), 0.0)
        again = f"Trying again in {left:.0f} s." if left >= 0.5 else "Trying again now."
        yield from Text(f"{again} {lost.error}", style="red").wrap(console, width)[:_REASON_LINES]


def _draw(
    database: Part,
    history: History,
    console: Console,
    options: ConsoleOptions,
    height: int | None,
) -> RenderableType:
    top = _summary(database, history, options.max_width, ascii_only=options.ascii_only)
    below = _sections(database, console, options.max_width)
    gap = 1 if height is None or height >= _AIRY else 0
    wants, least = [each.lines for each in below], [each.least for each in below]
    room = _ENDLESS if height is None else height - len(top)
    parts: list[RenderableType] = [*top[:height]]
    for section, lines in zip(below, share(wants, least, room, 1 + gap), strict=True):
        if lines:
            parts += [Text("")] * gap
            parts.append(section.show(lines))
    return Group(*parts)


def _part(room: int, among: int, index: int) -> int:
    """Return how many of the lines are for one of several databases."""
    return room // among + (1 if index < room % among else 0)


_BAR = 20
_RATE_SECONDS = 10
_STRETCH_SECONDS = 5
_MOST_MINUTES = 15
_WORDS = 32


def _summary(database: Part, history: History, width: int, *, ascii_only: bool) -> list[Text]:
    """Return a database's numbers, each line cut to the width.

    Args:
        database: Of the live document.
        history: Its last minutes.
        width: Characters of a line.
        ascii_only: Whether the terminal has no other characters.
    """
    lines = [
        _use(database, ascii_only=ascii_only),
        _flow(database, history),
        _times(database),
        *_pictures(database, history, width, ascii_only=ascii_only),
    ]
    for line in lines:
        line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return lines


def _use(database: Part, *, ascii_only: bool) -> Text:
    now = database.part("now")
    in_use, limit = now.count("checked_out"), now.count("limit")
    line = Text.assemble((database.text("name") or "(no name)", "bold"), "  ")
    if limit > 0:
        share = in_use / limit
        line.append(bar(share, _BAR, ascii_only=ascii_only), style=_colour(share))
        line.append(f"  {in_use:,} of {limit:,} in use ({share:.0%})")
    else:
        line.append(f"{in_use:,} in use, without a limit")
    waiting = now.count("waiting")
    line.append(f"  {now.count('checked_in'):,} idle  ")
    line.append(f"{waiting:,} waiting", style="bold red" if waiting else "")
    return line


def _colour(share: float) -> str:
    return "red" if share >= 1 else "yellow" if share >= 0.8 else "green"


def _flow(database: Part, history: History) -> Text:
    now, rejected = database.part("now"), database.part("counters").count("rejected")
    known = history.last(_RATE_SECONDS)
    checkouts = sum(moment.checkouts for moment in known) / max(len(known), 1)
    line = Text(f"  {checkouts:,.1f} checkouts/s  ")
    recently = sum(moment.rejected for moment in known)
    line.append(f"{rejected:,} rejected", style="bold red" if recently else "")
    for name, words in _SOMETIMES.items():
        if number := now.count(name):
            line.append(f"  {number:,} {words}")
    line.append_text(_server(now))
    return line


_SOMETIMES = {
    "overflow": "overflow",
    "opening": "opening",
    "invalid": "closing",
    "idle_in_transaction": "idle in transaction",
}


def _server(now: Part) -> Text:
    line = Text()
    if (connections := now.number("server_connections")) is not None:
        limit = now.number("server_limit")
        line.append(f"  server {count(connections)}{f' of {count(limit)}' if limit else ''}")
    if (behind := now.number("replica_lag_bytes")) is not None:
        seconds = now.number("replica_lag_seconds")
        late = "" if seconds is None else f", {duration(seconds)}"
        line.append(f"  replica lag {size(behind)}{late}")
    return line


def _times(database: Part) -> Text:
    recent = database.part("recent")
    seconds = recent.count("seconds")
    times = recent if seconds else database.part("times")
    line = Text("  p50/95/99")
    for name in ("wait", "hold"):
        known = times.part(name).count("count") > 0
        shares = (times.part(name).number(share) for share in ("p50", "p95", "p99"))
        line.append(f"  {name} ", style="bold")
        line.append("/".join(map(duration, shares)) if known else "-")
    line.append(f"  in {seconds} s" if seconds else "  in all", style="dim")
    return line


def _pictures(database: Part, history: History, width: int, *, ascii_only: bool) -> Iterator[Text]:
    minutes = min(max((width - _WORDS) * _STRETCH_SECONDS // 60, 1), _MOST_MINUTES)
    columns = minutes * 60 // _STRETCH_SECONDS
    limit = database.part("now").number("limit") or 0.0
    for name, words, style in (
        ("checked_out", "in use ", "cyan"),
        ("waiting", "waiting", "magenta"),
    ):
        peaks = history.peaks(name, columns, _STRETCH_SECONDS)
        most = max((peak for peak in peaks if peak is not None), default=0.0)
        top = limit if name == "checked_out" and limit else most
        line = Text(f"  {words} ")
        line.append(sparkline(peaks, top, ascii_only=ascii_only), style=style)
        line.append(f"  {minutes} min, {most:,.0f} at most")
        yield line


_SEVERITIES = {"critical": "bold red", "warning": "bold yellow", "info": "bold cyan"}
_WIDE = 110
_ONE_FINDING = 4


@dataclass(frozen=True, slots=True)
class _Section:
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
class _Column:
    """A column of a list.

    Args:
        heading: In its first line.
        cell: Its text in each other one.
        is_text: It takes what room the numbers leave.
    """

    heading: str
    cell: Callable[[Part], str]
    is_text: bool = False


def _sections(database: Part, console: Console, width: int) -> list[_Section]:
    """Return a database's sections, the more important first; those without lines are left out.

    Args:
        database: Of the live document.
        console: Where they will be shown.
        width: Characters of a line.
    """
    statements = _statement_columns(with_route=width >= _WIDE)
    found = [
        _findings(database.parts("findings"), console, width),
        _list("SERVERS", _SERVERS, database.part("cluster").parts("servers")),
        _list("ROUTES by hold time", _ROUTES, database.parts("routes")),
        _list("SLOW STATEMENTS", statements, database.parts("statements")),
        _list("WORKERS", _WORKERS, database.parts("workers")),
    ]
    return [section for section in found if section.lines]


def _list(title: str, columns: Iterable[_Column], parts: list[Part]) -> _Section:
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

    return _Section(len(parts), show)


_ROUTES = (
    _Column("route", lambda use: use.text("route"), is_text=True),
    _Column("checkouts", lambda use: count(use.number("checkouts"))),
    _Column("in all", lambda use: duration(use.number("seconds"))),
    _Column("mean", lambda use: duration(use.number("mean"))),
    _Column("longest", lambda use: duration(use.number("longest"))),
)


def _server_state(server: Part) -> str:
    trouble = server.text("trouble")
    return f"{server.text('name')}{f': {trouble}' if trouble else ''}"


def _lag(server: Part) -> str:
    return duration(None if server.text("role") == "primary" else server.number("lag"))


_SERVERS = (
    _Column("server", _server_state, is_text=True),
    _Column("role", lambda server: server.text("role")),
    _Column("lag", _lag),
    _Column("reads", lambda server: count(server.number("reads"))),
    _Column("share", lambda server: f"{server.number('share') or 0.0:.0%}"),
)

_WORKERS = (
    _Column("worker", lambda worker: f"pid {worker.count('pid')}", is_text=True),
    _Column("up", lambda worker: age(_lived(worker))),
    _Column("in use", lambda worker: count(worker.part("now").number("checked_out"))),
    _Column("limit", lambda worker: count(worker.part("now").number("limit") or None)),
    _Column("idle", lambda worker: count(worker.part("now").number("checked_in"))),
    _Column("waiting", lambda worker: count(worker.part("now").number("waiting"))),
    _Column("loop late", lambda worker: duration(worker.part("now").number("loop_late"))),
)


def _statement_columns(*, with_route: bool) -> Iterator[_Column]:
    yield _Column("statement", _statement if not with_route else _bare_statement, is_text=True)
    if with_route:
        yield _Column("on", lambda use: use.text("route")[:40])
    yield _Column("slow", lambda use: count(use.number("calls")))
    yield _Column("mean", lambda use: duration(_mean(use)))
    yield _Column("longest", lambda use: duration(use.number("longest")))
    # A statement that a request runs over and over is usually a loop over a query.
    yield _Column("in one", lambda use: count(use.number("most_in_request") or None))


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


def _findings(findings: list[Part], console: Console, width: int) -> _Section:
    order = list(_SEVERITIES)
    ranked = sorted(findings, key=lambda each: (*order, _severity(each)).index(_severity(each)))
    lines = [line for finding in ranked for line in _finding(finding, console, width)]

    def show(count: int) -> Group:
        title = Text(f"FINDINGS ({len(findings)})", style="bold")
        if count < len(lines):
            title.append(", not all of which fit here", style="not bold")
        return Group(title, *lines[:count])

    return _Section(len(lines), show, least=_ONE_FINDING)


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


def share(wants: Sequence[int], least: Sequence[int], room: int, overhead: int) -> list[int]:
    """Share lines among sections, the more important of which come first.

    Each that wants some gets its least, or what is left of the room, in this order; then each gets
    one more, again and again.

    Args:
        wants: Lines that each section could fill.
        least: Lines without which each would say little.
        room: Lines that there are.
        overhead: Lines that a section costs besides, if it is there at all.

    Returns:
        The lines for each; 0 for a section that is left out.
    """
    given = [0] * len(wants)
    for index, want in enumerate(wants):
        if want > 0 and room > overhead:
            given[index] = min(want, least[index], room - overhead)
            room -= given[index] + overhead
    while room > 0:
        unsatisfied = [index for index, want in enumerate(wants) if 0 < given[index] < want]
        if not unsatisfied:
            break
        for index in unsatisfied[:room]:
            given[index] += 1
            room -= 1
    return given


_DRAW_EVERY = 1.0


def terminal() -> Console:
    """Return standard output, where no text of a service is markup.

    A character that it cannot encode becomes a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(markup=False, emoji=False, highlight=False)


def draw(screen: Screen, console: Console, news: Iterable[Document | Lost]) -> None:
    """Draw the screen each second; where there is no terminal to draw on, print each document.

    Args:
        screen: It has the first document.
        console: Where to draw.
        news: What comes after it.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        console.print(screen)
        for each in news:
            screen.take(each)
            console.print(screen)
        return
    # Its thread draws while the network is waited for: numbers that get older say so.
    live = Live(screen, console=console, screen=True, refresh_per_second=1)
    try:
        # Not by ``with``: a signal within start() would leave the terminal as it is then.
        live.start(refresh=True)
        for each in news:
            screen.take(each)
            live.refresh()
    finally:
        live.stop()


def write(news: Iterable[Document | Lost], output: TextIO, errors: TextIO) -> None:
    """Write each document as one line, and to ``errors`` what keeps the next from coming.

    Args:
        news: As it comes.
        output: For the documents.
        errors: For people.
    """
    for each in news:
        if isinstance(each, Lost):
            errors.write(f"penstock: {each.error} Trying again in {each.pause:g} s.\n")
            errors.flush()
        else:
            output.write(each.line())
            output.flush()
