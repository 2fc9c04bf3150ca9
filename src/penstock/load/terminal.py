"""A load run in a terminal: its progress and its figures."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from penstock.load.report import compared
from penstock.load.result import Figures, LoadResult

_UPDATE_INTERVAL = 0.05


@contextmanager
def progress(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar as long as the block runs.

    Args:
        console: Where to show it.
        what: Is done.
        total: How much of it there is.

    Returns:
        Takes how much is done; cheap enough for every request.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task, updated = bar.add_task(what, total=total), 0.0

        def update(finished: int) -> None:
            nonlocal updated
            now = time.monotonic()
            if finished >= total or now - updated > _UPDATE_INTERVAL:
                updated = now
                bar.update(task, completed=finished)

        yield update


def figures_table(result: LoadResult, title: str) -> Table:
    """Return the figures of each kind and of all together."""
    table = Table(title=title)
    table.add_column("request", overflow="fold")
    for heading in ("count", "success", "per s", "p50", "p90", "p99", "p99.9", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, kind in result.kinds.items():
        table.add_row(name, *_cells(kind))
    table.add_section()
    table.add_row("all", *_cells(result.total), style="bold")
    return table


def _cells(figures: Figures) -> Iterator[str]:
    yield f"{figures.requests:,}"
    yield f"{figures.success_rate:.2%}"
    yield f"{figures.requests_per_second:,.0f}"
    for percent in (50, 90, 99, 99.9, 100):
        yield _milliseconds(figures.latencies.percentile(percent))


def _milliseconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def comparison_table(before: LoadResult, now: LoadResult, title: str) -> Table:
    """Return two runs side by side."""
    table = Table(title=title)
    table.add_column("figure", overflow="fold")
    for heading in ("before", "now", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in compared(before, now):
        table.add_row(*row)
    return table
