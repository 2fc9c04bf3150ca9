"""``penstock provision``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from penstock.base_error import PenstockError
from penstock.budget import ServerLimits

if TYPE_CHECKING:
    from penstock.settings import DatabaseSettings


class _Parts(typer.core.TyperGroup):
    """Takes what is no command for the directory of all parts."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front of its directory."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["all", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_Parts, no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def provision() -> None:
    """Write the files of a deployment, from the service's settings.

    The settings are those of the service: `DATABASE_URL`, `DATABASE_WORKERS` and so on, in the
    environment or `.env`; without `ENVIRONMENT`, production's.

    Everything, for a PostgreSQL on a machine of 16 GB:

        penstock provision deploy --memory 16GB --cores 4 --application app.main:app

    Some parts, of postgresql, pgbouncer, systemd, nginx, compose, kubernetes, cloudnativepg and
    prometheus:

        penstock provision deploy --only compose --only postgresql

    PgBouncer alone, in front of the server that `DATABASE_URL` names:

        penstock provision pgbouncer deploy/pgbouncer

    No file has a password. Files that are there and differ are shown and left as they are, unless
    `--force` is given.
    """


@app.command("all")
def write_all(
    directory: Annotated[Path, typer.Argument(help="Where the files go, each part's in its own.")],
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="Write this part, once or several times."),
    ] = None,
    application: Annotated[
        str, typer.Option(metavar="MODULE:NAME", help="The service, as uvicorn has it.")
    ] = "app.main:app",
    image: Annotated[
        str | None,
        typer.Option(help="Of the service's container. Without it: its DATABASE_APPLICATION_NAME."),
    ] = None,
    domain: Annotated[str, typer.Option(help="By which it is reached.")] = "service.example",
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of PostgreSQL's machine, such as 16GB. Without: this."),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(help="Of PostgreSQL's machine. Without: this one's.")
    ] = None,
    disk: Annotated[
        str | None, typer.Option(help="ssd or hdd. Without: what the directory is on.")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Of PostgreSQL. Without: what suits the machine.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="PostgreSQL's address, where DATABASE_URL leads to PgBouncer.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
) -> None:
    """Write all parts of a deployment, or some. This command's name can be left out.

    PostgreSQL's settings for its machine, PgBouncer, a systemd unit, nginx for blue and green, a
    compose file, Kubernetes manifests, a CloudNativePG cluster, Prometheus and Grafana:

        DATABASE_URL=postgresql://app:password@10.0.0.5/app penstock provision deploy

    Only what Docker needs, for a PostgreSQL that has 16 GB:

        penstock provision deploy --only compose --memory 16GB --cores 4
    """
    from penstock.provision import (  # noqa: PLC0415 - it takes a moment
        Deployment,
        Machine,
        PgbouncerOptions,
        write_files,
    )

    here = Machine.here(next(path for path in directory.absolute().parents if path.exists()))
    machine = Machine.of(
        memory or f"{here.memory // 1024**2}MB",
        here.cores if cores is None else cores,
        disk or here.disk,
    )
    deployment = Deployment(
        settings=_settings(),
        machine=machine,
        application=application,
        image=image,
        domain=domain,
        max_connections=max_connections,
        pgbouncer=PgbouncerOptions(
            address=server, userlist=_text_of(directory / "pgbouncer/userlist.txt")
        ),
        userlist=_text_of(directory / "compose/secrets/userlist.txt"),
    )
    typer.echo(f"PostgreSQL has {machine}.")
    for path in write_files(deployment.files(only or ()), directory, force=force):
        typer.echo(path)


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
            min=1,
            help="Server connections that it uses. Without it: two per core and one, or 20.",
            show_default=False,
        ),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Of PostgreSQL's machine.")
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
    from penstock.provision import (  # noqa: PLC0415 - it takes a moment
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
        cores=cores,
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
