"""What the demo measured, for people."""

from collections.abc import Iterator

from rich.table import Table

from penstock.demo.figures import DemoFigures
from penstock.load import Figures

__all__ = ["report"]


def report(figures: DemoFigures) -> Iterator[Table | str]:
    """Yield what to print: a table of the load run, then a line about the pools."""
    load, pool = figures.load, figures.pool
    title = (
        f"{load.total.requests:,} requests in {load.seconds:.1f} s, {figures.clients} at once; "
        "latencies in ms"
    )
    table = Table(title=title)
    table.add_column("request", no_wrap=True)
    for heading in ("count", "success", "per s", "p50", "p90", "p99", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, kind in load.kinds.items():
        table.add_row(name, *_cells(kind))
    table.add_section()
    table.add_row("all", *_cells(load.total), style="bold")
    yield table
    yield from (f"Errors: {error}, {count:,} times" for error, count in load.total.errors.items())
    yield (
        f"Pool of a worker: {pool.size} connections and up to {pool.limit - pool.size} more; "
        f"{pool.checked_out} lent at once at the most ({pool.utilisation:.0%} of {pool.limit}), "
        f"as seen in {pool.samples} looks at /pool-stats"
    )


def _cells(figures: Figures) -> Iterator[str]:
    yield f"{figures.requests:,}"
    yield f"{figures.success_rate:.2%}"
    yield f"{figures.requests_per_second:,.0f}"
    for milliseconds in (figures.p50_ms, figures.p90_ms, figures.p99_ms, figures.max_ms):
        yield "" if milliseconds is None else f"{milliseconds:.1f}"
