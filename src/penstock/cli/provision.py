"""``penstock provision``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.base_error import PenstockError
from penstock.cli.extras import needs_extra

if TYPE_CHECKING:
    from penstock.settings import DatabaseSettings

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def provision() -> None:
    """Write the files of a deployment, from the service's settings.

    The settings are those of the service: `DATABASE_URL`, `DATABASE_WORKERS` and so on, in the
    environment or `.env`; without `ENVIRONMENT`, production's.

    PgBouncer in front of the server that `DATABASE_URL` names:

        penstock provision pgbouncer deploy/pgbouncer
    """


@app.command()
def pgbouncer(
    directory: Annotated[Path, typer.Argument(help="Where the files go.")] = Path(),
    *,
    pool_mode: Annotated[
        str, typer.Option(metavar="MODE", help="transaction or session.")
    ] = "transaction",
    pool_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Server connections that it uses. Without it: 20.", show_default=False
        ),
    ] = None,
    max_connections: Annotated[int, typer.Option(min=5, max=262143, help="Of PostgreSQL.")] = 100,
    poolers: Annotated[
        int, typer.Option(min=1, max=1000, help="PgBouncers that share the server.")
    ] = 1,
    version: Annotated[
        str, typer.Option(help="The oldest PgBouncer that reads the files, from 1.18.")
    ] = "1.21",
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="PostgreSQL's address, where DATABASE_URL leads to PgBouncer.",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[str, typer.Option(help="Addresses to listen on, or *.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 6432,
    installed_in: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the files are when it runs. Without it: where they are written.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its certificate: clients have to encrypt."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key of that.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
) -> None:
    """Write pgbouncer.ini, userlist.txt, pgbouncer.sql and service.env.

    Its pools come from the connection budget, its limits from the settings of the service, whose
    own pools become small:

        DATABASE_URL=postgresql://app:password@10.0.0.5/app penstock provision pgbouncer deploy

    Then let the server have the same secret of the password, and start it:

        cd deploy && psql -h 10.0.0.5 -U postgres -f pgbouncer.sql && pgbouncer pgbouncer.ini

    Files that are there and differ are shown and left as they are, unless `--force` is given.
    """
    with needs_extra("cli"):
        from penstock.planner import ServerLimits  # noqa: PLC0415 - it takes a moment
        from penstock.provision import (  # noqa: PLC0415 - so does this
            PgbouncerOptions,
            pgbouncer_files,
            write_files,
        )
    if pool_mode not in ("transaction", "session"):
        raise PenstockError(f"--pool-mode {pool_mode}: transaction or session is accepted")
    options = PgbouncerOptions(
        version=_version(version),
        pool_mode="session" if pool_mode == "session" else "transaction",
        server=ServerLimits(max_connections, 3),
        pool_size=pool_size,
        poolers=poolers,
        address=server,
        listen=listen,
        port=port,
        directory=installed_in or directory.absolute(),
        tls_cert_file=tls_cert and tls_cert.absolute(),
        tls_key_file=tls_key and tls_key.absolute(),
        userlist=_text_of(directory / "userlist.txt"),
    )
    for path in write_files(pgbouncer_files(_settings(), options), directory, force=force):
        typer.echo(path)


def _settings() -> "DatabaseSettings":
    from penstock.settings import settings_from_environment  # noqa: PLC0415 - it takes a moment

    settings = settings_from_environment()
    if settings.names_environment:
        return settings
    return settings_from_environment(environment="production")


def _version(text: str) -> tuple[int, int]:
    numbers = text.split(".")
    if len(numbers) not in (2, 3) or not all(map(str.isdecimal, numbers)):
        raise PenstockError(f"--version {text}: a version such as 1.21 is accepted")
    found = int(numbers[0]), int(numbers[1])
    if found < (1, 18):
        raise PenstockError(f"--version {text}: 1.18 or later is accepted")
    return found


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
