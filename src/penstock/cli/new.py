"""``penstock new``."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from penstock.base_error import PenstockError
from penstock.cli.extras import needs_extra


class Auth(StrEnum):
    """Who may write."""

    NONE = "none"
    JWT = "jwt"


class Cache(StrEnum):
    """Where responses are kept."""

    NONE = "none"
    REDIS = "redis"


def new(
    directory: Annotated[
        Path,
        typer.Argument(file_okay=False, help="Of the project. It may not have anything in it."),
    ] = Path(),
    *,
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the service: a-z, 0-9 and -. Without it: the directory's.", show_default=False
        ),
    ] = None,
    auth: Annotated[
        Auth | None,
        typer.Option(
            help="Who may write. jwt: users with a password, and tokens that expire. "
            "Without it: none, everybody.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Cache | None,
        typer.Option(
            help="Where responses are kept. redis: until a commit changes their tables. "
            "Without it: none, nowhere.",
            show_default=False,
        ),
    ] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Merge what is new in the starter into a project."),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="REQUIREMENT",
            help="With --update: where pip finds the penstock by which the project was made or "
            "last updated. Without it: as the project has it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start a service: settings, models, routes, migrations, tests, CI and compose.

    It runs, and its tests pass, on a PostgreSQL that they start themselves:

        penstock new notes && cd notes && make test

    With users, tokens and a cache of responses in Redis that a commit invalidates:

        penstock new notes --auth jwt --cache redis

    Later, with a newer penstock, in the project, which is a git repository without changes:

        pip install --upgrade 'penstock[new]' && penstock new --update

    That merges what is new in the starter. Conflicts are marked as git does; the exit status is
    1 then.
    """
    with needs_extra("new"):
        from penstock import starter  # noqa: PLC0415 - copier comes with an extra

    if update:
        given = {"--name": name, "--auth": auth, "--cache": cache}
        if names := [option for option, value in given.items() if value is not None]:
            raise PenstockError(f"{names[0]} is for a new project: --update keeps what it has")
        _tell(directory, starter.update(directory, base))
        return
    if base is not None:
        raise PenstockError("--base belongs to --update, which is not given")
    choices = starter.Choices(
        starter.name_of(directory) if name is None else name,
        auth or Auth.NONE,
        cache or Cache.NONE,
    )
    starter.create(directory, choices)
    typer.echo(f"The service {choices.name} is written. Its README.md says more. Next:")
    typer.echo(f"  {_enter(directory)}make test")


def _enter(directory: Path) -> str:
    if directory == Path():
        return ""
    # Not an option of cd, nor anything that a shell would run.
    place = f"./{directory}" if str(directory).startswith("-") else str(directory)
    return f"cd {shlex.quote(place)} && "


def _tell(directory: Path, conflicts: list[str] | None) -> None:
    if conflicts is None:
        typer.echo(f"Nothing is new: {directory} has this penstock's starter.")
        return
    if not conflicts:
        typer.echo("Merged. `git diff` shows what is new; run `make check test`, then commit it.")
        return
    typer.echo("Merged, with conflicts in:", err=True)
    for path in conflicts:
        typer.echo(f"  {path}", err=True)
    raise typer.Exit(1)
