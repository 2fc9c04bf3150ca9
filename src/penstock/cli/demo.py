"""``penstock demo``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock.base_error import PenstockError
from penstock.cli.extras import needs_extra


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

        from penstock.demo.run import Demo, DemoOptions  # noqa: PLC0415 - so does what this needs
        from penstock.demo.terminal import Terminal  # noqa: PLC0415 - and this
    options = DemoOptions(
        port=port,
        workers=workers,
        users=users,
        requests=requests,
        clients=clients,
        once=once,
        json=json,
    )
    raise typer.Exit(uvloop.run(Demo(options, Terminal()).run()))
