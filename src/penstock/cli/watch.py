"""``penstock watch``."""

import os
import signal
import sys
from itertools import chain
from types import FrameType
from typing import Annotated, Never

import typer

from penstock.cli.extras import needs_extra

_VARIABLE = "PENSTOCK_WATCH_HEADER"


def watch(
    url: Annotated[
        str,
        typer.Argument(
            help="The service's, such as http://127.0.0.1:8000, with its path prefix if any.",
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
            help="Seconds after which a service that does not answer counts as silent.",
        ),
    ] = 10.0,
) -> None:
    """Follow a running service's pools in the terminal.

    Shows how many connections are in use, waiters and their waits, the last minutes, the routes
    that hold connections longest, slow statements, all workers, and findings with their remedies:

        penstock watch http://127.0.0.1:8000

    It needs a service with Penstock installed: `install(app, database)`. In production that is
    `install(app, database, access=...)`, and what `access` asks for:

        PENSTOCK_WATCH_HEADER='Authorization: Bearer ...' penstock watch https://service.example

    For a script, one frame or one document:

        penstock watch http://127.0.0.1:8000 --once --json

    A service that does not answer is asked again; Ctrl-C ends it, with the status 130.
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
        from penstock.watch import (  # noqa: PLC0415 - rich and httpx come with an extra
            Client,
            Screen,
            draw,
            headers_from,
            service_url,
            terminal,
            write,
        )
    with Client(service_url(url), headers_from(headers), timeout, database) as client:
        first = client.document()
        news = () if once else client.news()
        if json:
            write(chain([first], news), sys.stdout, sys.stderr)
            return
        console, screen = terminal(), Screen(client.url)
        screen.take(first)
        if once:
            console.print(screen)
        else:
            draw(screen, console, news)
