"""Showing documents as they come, until somebody interrupts it."""

import io
import json
import sys
from typing import Never, TextIO

from rich.console import Console
from rich.live import Live

from penstock.watch.document import Part
from penstock.watch.feed import Feed, Lost
from penstock.watch.screen import Screen

__all__ = ["draw", "tell", "terminal", "write"]

_DRAW_EVERY = 1.0


def terminal() -> Console:
    """Return standard output, where no text of a service is taken for markup.

    A character that it cannot encode becomes a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(markup=False, emoji=False, highlight=False)


def draw(feed: Feed, screen: Screen, console: Console) -> Never:
    """Draw the screen each second; where there is no terminal to draw on, print each document.

    Args:
        feed: Whose first document has been taken.
        screen: It has the first document.
        console: Where to draw.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        while True:
            console.print(screen)
            screen.take(_next(feed))
    live = Live(screen, console=console, screen=True, auto_refresh=False)
    try:
        # Not by ``with``: a signal within start() would leave the terminal as it is then.
        live.start()
        while True:
            live.refresh()
            if (news := feed.next(_DRAW_EVERY)) is not None:
                screen.take(news)
    finally:
        live.stop()


def _next(feed: Feed) -> Part | Lost:
    while (news := feed.next(_DRAW_EVERY)) is None:
        """It is bounded so that it can be interrupted everywhere."""
    return news


def tell(feed: Feed, output: TextIO, errors: TextIO) -> Never:
    """Write each further document as one line, and to ``errors`` what keeps the next from coming.

    Args:
        feed: Whose first document has been written.
        output: For the documents.
        errors: For people.
    """
    while True:
        news = _next(feed)
        if isinstance(news, Lost):
            errors.write(f"penstock: {news.error} Trying again in {news.pause:g} s.\n")
            errors.flush()
        else:
            write(news, output)


def write(document: Part, output: TextIO) -> None:
    """Write a document as one line of JSON, in printable ASCII."""
    output.write(f"{json.dumps(document.fields)}\n")
    output.flush()
