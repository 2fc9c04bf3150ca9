"""How far a long run is, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def progress(benchmark: str, steps: int) -> Iterator[Callable[[], None]]:
    """Show a bar for the length of a block.

    Args:
        benchmark: What is running.
        steps: How many steps it has.

    Yields:
        What to call after each step.
    """
    # Drawn between the steps alone: a thread that draws would be measured too.
    bar = Progress(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False)
    with bar:
        task = bar.add_task(benchmark, total=steps)

        def advance() -> None:
            bar.advance(task)
            bar.refresh()

        bar.refresh()
        yield advance
