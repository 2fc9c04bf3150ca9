"""``penstock doctor``."""

import asyncio
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from penstock.base_error import PenstockError
from penstock.cli.extras import needs_extra

if TYPE_CHECKING:
    from penstock.doctor import Check, Examination, SlowUse
    from penstock.settings import DatabaseSettings

HEADERS = "PENSTOCK_WATCH_HEADER"
"""Headers for a service, one a line, as ``penstock watch`` has them."""

USAGE = 3
"""Exit status of a wrong call: the 2 that it has elsewhere tells of a critical finding here."""


class DoctorCommand(TyperCommand):
    """The command, whose exit status 2 never means a wrong option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and give what is refused the status of a wrong call."""
        try:
            return super().parse_args(ctx, args)
        except typer.Exit:
            raise
        except Exception as error:
            # A usage error, of a class that typer does not export.
            vars(error)["exit_code"] = USAGE
            raise


def doctor(
    url: Annotated[
        str | None,
        typer.Argument(
            help="The server's, such as postgresql://user@host/name. Without it, DATABASE_URL, "
            "which no process list shows.",
            show_default=False,
        ),
    ] = None,
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Run this check, once or several times.", show_default=False
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Leave this check out.", show_default=False),
    ] = None,
    pgbouncer: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Examine a PgBouncer, too: postgresql://admin@host:6432/pgbouncer.",
            show_default=False,
        ),
    ] = None,
    declared: Annotated[
        bool,
        typer.Option("--declared", help="Hold the pools of DATABASE_... against the server."),
    ] = False,
    service: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Join a running service's slow statements with the server's: "
            "http://127.0.0.1:8000.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, with all SQL.")] = False,
    end_idle: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="End connections of --application that are idle for longer, such as 10m.",
            show_default=False,
        ),
    ] = None,
    application: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose idle connections to end.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="End them without asking.")] = False,
) -> None:
    """Examine a PostgreSQL, and say what is wrong and what to do.

    Looks at connections, transactions, locks, replication, vacuum, indexes, sequences, settings,
    roles and versions, read-only, over one connection, within two seconds:

        penstock doctor postgresql://user@host/name

    Any role can run it; one with `pg_monitor` sees more. For a script:

        penstock doctor --json

    The exit status is 0 where there is nothing above info, 1 for warnings, 2 for critical
    findings, 3 if the call was wrong or the server could not be examined.
    """
    try:
        with needs_extra("cli"):
            from penstock.doctor import doctor_settings  # noqa: PLC0415 - rich is an extra
        examines = only or skip or pgbouncer or declared or service or json
        _refuse_mixed(end_idle, application, is_confirmed=yes, examines=bool(examines))
        settings = doctor_settings(_service(url))
        if end_idle is not None:
            _end_idle(settings, end_idle, application, is_confirmed=yes)
            return
        uses = _uses(service) if service else None
        checks = _checks(only or [], skip or [], declared=declared, has_service=uses is not None)
        examination = asyncio.run(_examine(settings, checks, pgbouncer, uses or []))
    except PenstockError as error:
        typer.echo(f"penstock: {error}", err=True)
        raise typer.Exit(USAGE) from error
    _print(examination, json=json)
    raise typer.Exit(examination.exit_status)


def _service(url: str | None) -> "DatabaseSettings":
    from penstock.doctor import refuse_other_databases  # noqa: PLC0415 - rich is an extra
    from penstock.settings import (  # noqa: PLC0415 - it takes a moment
        DatabaseSettings,
        settings_from_environment,
    )

    if url is None:
        return settings_from_environment()
    refuse_other_databases(url.partition("://")[0] if "://" in url else "")
    return DatabaseSettings.of(url)


def _refuse_mixed(
    end_idle: str | None, application: str | None, *, is_confirmed: bool, examines: bool
) -> None:
    if end_idle is None and (application is not None or is_confirmed):
        option = "--yes" if application is None else "--application"
        raise PenstockError(f"{option} belongs to --end-idle DURATION, which is not given")
    if end_idle is not None and examines:
        raise PenstockError(
            "--end-idle ends connections and examines nothing: beside it go --application and --yes"
        )


def _uses(url: str) -> "list[SlowUse]":
    from penstock.doctor import SlowUse  # noqa: PLC0415 - rich is an extra
    from penstock.watch import Client, headers_from, service_url  # noqa: PLC0415 - httpx is another

    headers = headers_from(os.environ.get(HEADERS, "").splitlines())
    with Client(service_url(url), headers, timeout=10.0) as client:
        databases = client.document().databases
    return [
        SlowUse(
            use.text("route"), use.text("statement"), use.count("calls"), use.number("seconds") or 0
        )
        for database in databases
        for use in database.parts("statements")
    ]


def _checks(
    only: list[str], skip: list[str], *, declared: bool, has_service: bool
) -> "list[Check]":
    from penstock.doctor import (  # noqa: PLC0415 - rich is an extra
        SLOW_ROUTES,
        DeclaredPools,
        chosen,
        declared_checks,
    )

    pools = declared_checks(DeclaredPools.of(_service(None))) if declared else ()
    return chosen(only, skip, [*pools, *([SLOW_ROUTES] if has_service else [])])


async def _examine(
    settings: "DatabaseSettings",
    checks: "list[Check]",
    pgbouncer: str | None,
    uses: "list[SlowUse]",
) -> "Examination":
    from penstock.doctor import Result, examine, examine_pgbouncer  # noqa: PLC0415 - rich is an extra

    of_pgbouncer = [check for check in checks if check.query.of_pgbouncer]
    if pgbouncer is None and len(of_pgbouncer) == len(checks):
        raise PenstockError("These checks are PgBouncer's: --pgbouncer names its console.")
    of_server = [check for check in checks if not check.query.of_pgbouncer]
    examination = await examine(settings, of_server, uses)
    if pgbouncer is None:
        return examination
    try:
        with needs_extra("psycopg"):
            found = await examine_pgbouncer(pgbouncer, of_pgbouncer)
    except PenstockError as error:
        found = tuple(Result(check, skipped=str(error)) for check in of_pgbouncer)
        examination = replace(examination, is_partial=True)
    return replace(examination, results=examination.results + found)


def _print(examination: "Examination", *, json: bool) -> None:
    from penstock.doctor import draw, write_json  # noqa: PLC0415 - rich is an extra
    from penstock.watch import terminal  # noqa: PLC0415 - so is this

    if json:
        sys.stdout.write(write_json(examination) + "\n")
        return
    console = terminal()
    for part in draw(examination):
        console.print(part)


def _end_idle(
    settings: "DatabaseSettings", duration: str, application: str | None, *, is_confirmed: bool
) -> None:
    from penstock.doctor import end_idle, find_idle, seconds_of  # noqa: PLC0415 - rich is an extra

    if application is None:
        raise PenstockError("--end-idle ends connections of one application: name --application")
    idle = asyncio.run(find_idle(settings, application, seconds_of(duration)))
    typer.echo(str(idle))
    if not idle.rows:
        return
    if not is_confirmed and not typer.confirm("End them?"):
        typer.echo("Nothing was ended.")
        return
    typer.echo(f"{asyncio.run(end_idle(settings, idle))} ended.")
