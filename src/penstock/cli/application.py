"""The commands under ``penstock``."""

from importlib.metadata import version
from typing import Annotated

import typer

from penstock.cli.demo import demo
from penstock.cli.doctor import doctor
from penstock.cli.watch import watch

app = typer.Typer(
    name="penstock",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(demo)
app.command()(doctor)
app.command()(watch)


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

    To follow a service that runs:

        penstock watch http://127.0.0.1:8000

    Every command explains itself: `penstock demo --help`.
    """
