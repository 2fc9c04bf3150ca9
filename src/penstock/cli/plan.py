"""``penstock plan``."""

import asyncio
import os
import sys
from collections.abc import Mapping
from inspect import Parameter, signature
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.base_error import PenstockError
from penstock.cli.doctor import HEADERS
from penstock.cli.extras import needs_extra
from penstock.findings import exit_status
from penstock.planner import (
    SIMULATED,
    Plan,
    PlanInputs,
    Simulated,
    input_default,
    input_kind,
    overridden,
    read_inputs,
    write_inputs,
)
from penstock.planner import plan as make_plan

if TYPE_CHECKING:
    from penstock.capacity.verification import Verification
    from penstock.watch import Client

NOT_PLANNED = 3
"""Exit status where there is no plan; 1 and 2 tell of what was found."""
_OPTIONS = {name: f"--{name.replace('_', '-')}" for name in PlanInputs.model_fields}


def plan(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A plan that --save has written; options have priority over what is in it.",
            show_default=False,
        ),
    ] = None,
    *,
    service: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URL",
            help="Take rate, hold times, workers and max_connections from a running service.",
            show_default=False,
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of the service's databases.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with charts, too.", show_default=False),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the plan in plan.json or plan.toml. DATABASE_PLAN names it to the service.",
            show_default=False,
        ),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate", help=f"Simulate {SIMULATED:,} requests of it, beside the formulae."
        ),
    ] = False,
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Load a running instance as planned, and show what it measured beside the plan.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        str, typer.Option(metavar="PATH", help="What --verify asks for, by GET.")
    ] = "/",
    seconds: Annotated[
        float,
        typer.Option(min=1, max=3600, metavar="SECONDS", help="How long --verify sends requests."),
    ] = 10.0,
    **given: str | None,
) -> None:
    """Plan the sizes of pools, PgBouncer and server for a load, and say what to expect.

        penstock plan --rate 800 --query-time 4ms --workers 4 --instances 2

    With what is known of the server, every check of the plan is made:

        penstock plan --rate 800 --query-time 4ms --query-p99 20ms --queries 2 --workers 4
          --max-connections 100 --cores 4 --memory 16GB --proxy aws-rds-proxy

    Backwards: the largest rate that keeps a percentile of wait and hold time:

        penstock plan --p99 50ms --query-time 4ms --workers 4 --pool-size 5 --max-overflow 0

    From a running service, with twice its load; kept with it, drift from it becomes a finding:

        penstock plan --from http://127.0.0.1:8000 --rate 1600 --save plan.json

    Held against a simulation of its pools, which has their timeouts:

        penstock plan --rate 800 --query-time 4ms --query-p99 20ms --workers 4 --simulate

    Held against a real run of one instance:

        penstock plan plan.json --verify http://127.0.0.1:8000 --path /users/1

    The exit status is 0 where no check finds anything above info, 1 for warnings, 2 for critical
    findings, 3 if there is no plan: a value is refused, a file cannot be read, a service not
    reached. As with every command, it is 2 for an option that does not exist.
    """
    try:
        inputs: dict[str, object] = {} if file is None else dict(read_inputs(file))
        inputs |= {} if service is None else _measured(service, database, given)
        chosen = {name: text for name, text in given.items() if text is not None}
        in_file = {name: f"{file}: {name}" for name in inputs} if service is None else {}
        made = make_plan(
            overridden(inputs, chosen),
            {**_OPTIONS, **{name: x for name, x in in_file.items() if name not in chosen}},
        )
        verification = _verify(made, verify, path, seconds, database) if verify else None
        if save is not None:
            write_inputs(save, made.settled())
        simulated = _simulated(made) if simulate else None
        _print(made, verification, simulated, json=json, html=html)
    except PenstockError as error:
        typer.echo(f"penstock: {error}", err=True)
        raise typer.Exit(NOT_PLANNED) from error
    raise typer.Exit(exit_status(finding.severity for finding in made.findings))


def _with_options(function: Any) -> Any:
    """Give a command an option for each field of the inputs, in place of its ``**given``."""
    own = [each for each in signature(function).parameters.values() if each.name != "given"]
    options = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    option, metavar=input_kind(name), help=_help(name), show_default=False
                ),
            ],
        )
        for name, option in _OPTIONS.items()
    ]
    function.__signature__ = signature(function).replace(parameters=[*own, *options])
    function.__annotations__ |= {each.name: each.annotation for each in options}
    return function


def _help(name: str) -> str:
    default = input_default(name)
    shown = "" if default is None else f" [default: {default}]"
    return f"{PlanInputs.model_fields[name].description}{shown}"


def _client(url: str) -> "Client":
    with needs_extra("cli"):
        from penstock.watch import Client, service_url  # noqa: PLC0415 - an extra
    return Client(service_url(url), _headers(), timeout=10.0)


def _headers() -> Mapping[str, str]:
    from penstock.watch import headers_from  # noqa: PLC0415 - an extra

    return headers_from(os.environ.get(HEADERS, "").splitlines())


def _measured(url: str, database: str | None, given: dict[str, str | None]) -> dict[str, object]:
    with needs_extra("cli"):
        from penstock.capacity import measured_inputs, only_database  # noqa: PLC0415 - an extra
    instances = given.get("instances") or "1"
    with _client(url) as client:
        found = only_database(client.document(), database)
    return measured_inputs(found, int(instances) if instances.isdigit() else 1)


def _verify(
    made: Plan, url: str, path: str, seconds: float, database: str | None
) -> "Verification":
    with needs_extra("demo"):
        from penstock.capacity.verification import verify  # noqa: PLC0415 - aiohttp is an extra
    with _client(url) as client:
        running = verify(
            made,
            client,
            path,
            seconds=seconds,
            random=SystemRandom(),
            headers=_headers(),
            database=database,
        )
        return asyncio.run(running)


def _simulated(made: Plan) -> Simulated:
    with needs_extra("cli"):
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.progress import Progress  # noqa: PLC0415 - so is this
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Simulating", total=SIMULATED)
        return made.simulated(
            SIMULATED, on_progress=lambda arrived: bar.update(task, completed=arrived)
        )


def _print(
    made: Plan,
    verification: "Verification | None",
    simulated: Simulated | None,
    *,
    json: bool,
    html: Path | None,
) -> None:
    with needs_extra("cli"):
        from penstock.capacity import (  # noqa: PLC0415 - rich is an extra
            draw_plan,
            draw_verification,
            write_json,
            write_page,
        )
        from penstock.watch import terminal  # noqa: PLC0415 - so is this
    if html is not None:
        write_page(html, made, simulated)
    if json:
        sys.stdout.write(write_json(made, verification, simulated) + "\n")
        return
    console = terminal()
    for part in draw_plan(made, simulated):
        console.print(part)
    for part in draw_verification(verification) if verification else ():
        console.print(part)


plan = _with_options(plan)
