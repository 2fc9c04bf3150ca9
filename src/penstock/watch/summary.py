"""A database's numbers in a few lines."""

from collections.abc import Iterator

from rich.text import Text

from penstock.watch.document import Part
from penstock.watch.figures import bar, count, duration, size, sparkline
from penstock.watch.history import History

__all__ = ["LINES", "summary"]

LINES = 5
"""How many lines a summary has."""

_BAR = 20
_RATE_SECONDS = 10
_STRETCH_SECONDS = 5
_MOST_MINUTES = 15
_WORDS = 32


def summary(database: Part, history: History, width: int, *, ascii_only: bool) -> list[Text]:
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
    now, refused = database.part("now"), database.part("counters").count("refused")
    known = history.last(_RATE_SECONDS)
    checkouts = sum(moment.checkouts for moment in known) / max(len(known), 1)
    line = Text(f"  {checkouts:,.1f} checkouts/s  ")
    recently = sum(moment.refused for moment in known)
    line.append(f"{refused:,} refused", style="bold red" if recently else "")
    for name, words in _SOMETIMES.items():
        if number := now.count(name):
            line.append(f"  {number:,} {words}")
    line.append_text(_server(now))
    return line


_SOMETIMES = {
    "overflow": "overflow",
    "opening": "opening",
    "invalid": "closing",
    "idle_in_transaction": "at rest in a transaction",
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
