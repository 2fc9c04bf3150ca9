"""``penstock watch``."""

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Never

import typer

from penstock.cli.extras import needs_extra

__all__ = ["watch"]

_VARIABLE = "PENSTOCK_WATCH_HEADER"


def watch(
    url: Annotated[
        str,
        typer.Argument(
            help="The service's: say http://127.0.0.1:8000, with its path prefix if it has any.",
        ),
    ],
    *,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Write the document that the page is drawn from, one line of JSON each second.",
        ),
    ] = False,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'",
            help=f"Send this header, once or several times. {_VARIABLE} in the environment, with "
            "one header a line, does the same and is seen in no process list.",
            show_default=False,
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show this database only, by its name in install().",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=2,
            max=3600,
            help="Seconds after which a service that says nothing counts as silent.",
        ),
    ] = 10.0,
) -> None:
    """Follow a running service's pools in the terminal.

    Shows how many connections are in use, who waits and how long, the last minutes, what holds
    connections longest, slow statements, all workers, and what is wrong, with what to do about it:

        penstock watch http://127.0.0.1:8000

    It needs a service with Penstock installed: `install(app, database)`. In production that is
    `install(app, database, access=...)`, and whatever `access` asks for:

        PENSTOCK_WATCH_HEADER='Authorization: Bearer ...' penstock watch https://service.example

    For a script, one frame or one document:

        penstock watch http://127.0.0.1:8000 --once --json

    If the connection is lost it connects again; Ctrl-C ends it, with the status 130.
    """
    given = [*os.environ.get(_VARIABLE, "").splitlines(), *(header or [])]
    signal.signal(signal.SIGTERM, _end)
    try:
        _show(url, given, once=once, json=json, database=database, timeout=timeout)
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


def _end(number: int, frame: FrameType | None) -> Never:  # noqa: ARG001 - as signal calls it
    # By an exception, so that the terminal gets back what was on it.
    sys.exit(128 + number)


def _show(
    url: str, headers: list[str], *, once: bool, json: bool, database: str | None, timeout: float
) -> None:
    with needs_extra("cli"):
        from penstock.watch import (  # noqa: PLC0415 - rich comes with an extra
            Address,
            Feed,
            Screen,
            Service,
            draw,
            headers_from,
            tell,
            terminal,
            write,
        )
    service = Service(Address.parse(url), headers_from(headers), timeout, database=database)
    console, screen = terminal(), Screen(str(service.address))
    with Feed(service) as feed:
        first = feed.first()
        if json:
            write(first, sys.stdout)
        else:
            screen.take(first)
        if once:
            if not json:
                console.print(screen)
        elif json:
            tell(feed, sys.stdout, sys.stderr)
        else:
            draw(feed, screen, console)
