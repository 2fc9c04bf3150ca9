"""The commands under ``penstock``, but for those that have a file of their own."""

import os
import signal
import sys
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Annotated, Never

import typer

from penstock.base_error import PenstockError
from penstock.cli.doctor import HEADERS, DoctorCommand, doctor
from penstock.cli.extras import needs_extra
from penstock.cli.load import load
from penstock.cli.new import new
from penstock.cli.plan import plan
from penstock.cli.provision import app as provision


def demo(
    *,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Serve on this port of 127.0.0.1. Without it: 8000, or any free one.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=8,
            help="Processes that serve; each has a pool of its own, of 5 to 15 connections.",
        ),
    ] = 2,
    replicas: Annotated[
        int,
        typer.Option(
            min=0,
            max=4,
            help="Replicas of the demo's own PostgreSQL, which serve the reads.",
        ),
    ] = 0,
    users: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Users that are there at the beginning.")
    ] = 10_000,
    requests: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Requests of the load run.")
    ] = 8_000,
    clients: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help="Clients of the load run; each sends its next request when the last is answered.",
        ),
    ] = 16,
    once: Annotated[
        bool, typer.Option("--once", help="End after the results, without waiting for Ctrl-C.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            writable=True,
            help="Write the figures to this file, for a program to read.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show Penstock at work: PostgreSQL, a service with users, load, results.

    Starts a PostgreSQL of its own, fills it with users, serves them by FastAPI from several
    processes, sends a few thousand requests, and shows how they went. The service stays open
    until Ctrl-C; then everything that was started or written is removed.

    For a script or CI, with the figures as JSON and a failure if one request failed:

        penstock demo --once --json figures.json

    On a server of yours, in a schema that is made for it and dropped at the end:

        DATABASE_URL=postgresql://user:password@host/name penstock demo
    """
    if sys.platform == "win32":
        raise PenstockError("The demo runs on Linux and macOS; on Windows, run it in WSL.")
    if json is not None and not json.absolute().parent.is_dir():
        raise PenstockError(f"--json {json}: there is no directory {json.absolute().parent}")
    with needs_extra("demo"):
        import uvloop  # noqa: PLC0415 - it comes with an extra

        from penstock.demo.report import Terminal  # noqa: PLC0415 - so does what this needs
        from penstock.demo.run import Demo, DemoOptions  # noqa: PLC0415 - and this
    options = DemoOptions(
        port=port,
        workers=workers,
        replicas=replicas,
        users=users,
        requests=requests,
        clients=clients,
        once=once,
        json=json,
    )
    raise typer.Exit(uvloop.run(Demo(options, Terminal()).run()))


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
            help=f"Send this header, once or several times. {HEADERS} in the environment, with "
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
    given = [*os.environ.get(HEADERS, "").splitlines(), *(header or [])]
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


app = typer.Typer(
    name="penstock",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(demo)
app.command(cls=DoctorCommand)(doctor)
app.command()(load)
app.command()(new)
app.command()(plan)
app.command()(watch)
app.add_typer(provision, name="provision")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def penstock(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """The database layer that a FastAPI service needs in production.

    To see it at work, with a PostgreSQL that is started for it and gone afterwards:

        penstock demo

    To start a service that runs and is tested:

        penstock new notes

    To follow a service that runs:

        penstock watch http://127.0.0.1:8000

    To size pools and server for a load:

        penstock plan --rate 800 --query-time 4ms --workers 4

    To load it, and see how long its answers take:

        penstock load http://127.0.0.1:8000 --rate 50

    To write the files of a deployment, from the service's settings:

        penstock provision deploy

    Every command explains itself: `penstock demo --help`.
    """
