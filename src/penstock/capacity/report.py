"""A plan, or a run beside it, as tables for people or as JSON for programs."""

import json
from collections.abc import Iterator, Mapping
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from penstock.doctor import Observation, findings_table
from penstock.findings import number_of
from penstock.planner import (
    Limit,
    Plan,
    Prediction,
    Simulated,
    shown,
    shown_rate,
    shown_share,
    shown_size,
)

if TYPE_CHECKING:
    from penstock.capacity.verification import Verification

UNBOUNDED = "grows"
"""What is shown for a wait that has no bound."""


def seconds(number: float | None) -> str:
    """Return a duration that may be infinite or not known."""
    if number is None:
        return "-"
    return shown(number) if isfinite(number) else UNBOUNDED


def title(plan: Plan) -> str:
    """Return what a plan is for, on one line."""
    inputs = plan.inputs
    return (
        f"{shown_rate(plan.rate)} requests/s, {number_of(inputs.workers, 'worker')} x "
        f"{number_of(inputs.instances, 'instance')}, a connection held for {shown(plan.hold.mean)}"
    )


def bounded_by(plan: Plan) -> str | None:
    """Return what bounds the largest rate; None where the rate was given."""
    if plan.limit is None:
        return None
    inputs = plan.inputs
    why = {
        Limit.UTILISATION: f"utilisation, of {inputs.utilisation:.0%} at the most",
        Limit.WAIT: f"wait, of {shown(inputs.wait or 0.0)} at the most for 99 % of the requests",
        Limit.P99: "p99, of wait and hold time",
        Limit.CORES: "cores, of which the server has no more",
        Limit.BUDGET: "max_connections: no pool can have more connections",
        Limit.POOL: f"pool size: {plan.connections} connections, as many as the largest preset "
        "has; max_connections or pool_size sets another",
        Limit.RATE: "the largest rate that is planned",
    }
    return f"The largest rate; it is bounded by {why[plan.limit]}."


def _share(share: float) -> str:
    return f"{share:.1%}" if share < 1 else shown_share(share)


def settings_rows(plan: Plan) -> dict[str, str]:
    """Return what to set, by the variable of the environment."""
    return {
        "DATABASE_POOL_SIZE": str(plan.pool_size),
        "DATABASE_MAX_OVERFLOW": str(plan.max_overflow),
        "DATABASE_POOL_TIMEOUT": f"{plan.pool_timeout:g}",
        "DATABASE_COMMAND_TIMEOUT": f"{plan.statement_timeout:g}",
        "DATABASE_POOL_RECYCLE": str(plan.pool_recycle),
        "WEB_CONCURRENCY": str(plan.inputs.workers),
        "DATABASE_INSTANCES": str(plan.inputs.instances),
    }


def server_rows(plan: Plan) -> dict[str, str]:
    """Return what the server and PgBouncer need, by setting."""
    memory = plan.memory
    rows = {
        "max_connections": f"{plan.max_connections} or more "
        f"({plan.budget.wanted} open in a deployment)",
        "memory": f"{shown_size(memory.total)}: {memory.connections} open connections with "
        f"{memory.nodes} x work_mem {shown_size(memory.work_mem)} each, "
        + (
            f"and shared_buffers {shown_size(memory.shared_buffers)}"
            if memory.shared_buffers
            else "shared_buffers not counted (the server's memory is not known)"
        ),
    }
    if (pooler := plan.pgbouncer) is None:
        is_short = any(each.id == "connection-budget" for each in plan.findings)
        is_short = is_short or (plan.shortfall is not None and plan.shortfall.connections is None)
        return rows | {"PgBouncer": "does not suffice either" if is_short else "not needed"}
    return rows | {
        "PgBouncer": f"yes; then max_connections {pooler.max_connections} or more is enough",
        "default_pool_size": str(pooler.default_pool_size),
        "max_db_connections": str(pooler.max_db_connections),
        "max_client_conn": str(pooler.max_client_conn),
    }


def expected_rows(prediction: Prediction) -> dict[str, str]:
    """Return what to expect, by what it is."""
    queue = prediction.queue
    return {
        "connections in use": f"{_share(queue.utilisation)} of {queue.servers} in each pool",
        "requests that wait": f"{queue.waiting_probability:.2%}",
        "mean wait": seconds(queue.mean_wait),
        "p99 of the wait": seconds(queue.wait_quantile(0.99)),
        "p99 of wait and hold time": seconds(prediction.response_p99),
    }


SIMULATED_HEADINGS = ("", "by formula", "simulated")


def simulated_rows(plan: Plan, simulated: Simulated) -> Iterator[tuple[str, str, str]]:
    """Yield what to expect: its name, then by formula, and as simulated."""
    queue, wait, limit = plan.predicted.queue, simulated.wait, plan.pool_timeout
    found = (
        f"{simulated.utilisation:.1%}",
        f"{simulated.wait_probability:.2%}",
        *(seconds(None if isnan(each) else each) for each in (wait.mean, wait.p99)),
        seconds(None if isnan(simulated.response.p99) else simulated.response.p99),
    )
    for (name, formula), figure in zip(expected_rows(plan.predicted).items(), found, strict=True):
        yield name, formula, figure
    longer = f"{queue.share_waiting_longer(limit):.2%}" if queue.utilisation < 1 else UNBOUNDED
    timeouts, shed = (count / simulated.requests for count in (simulated.timeouts, simulated.shed))
    yield f"no connection within {shown(limit)}", longer, f"{timeouts + shed:.2%}"
    yield "of these rejected at once", "-", f"{shed:.2%}"


def what_if_rows(plan: Plan) -> tuple[list[str], list[tuple[bool, list[str]]]]:
    """Return the headings and the rows of the table, and of each whether it is the planned rate."""
    rows = plan.what_if()
    headings = ["requests/s", *(str(each.connections) for each in rows[0])]
    return headings, [
        (
            row[0].rate == plan.rate,
            [
                shown_rate(row[0].rate),
                *(
                    f"{seconds(each.response_p99)} {shown_share(each.queue.utilisation)}"
                    for each in row
                ),
            ],
        )
        for row in rows
    ]


def draw_plan(plan: Plan, simulated: Simulated | None = None) -> Iterator[RenderableType]:
    """Return what is printed of a plan.

    Args:
        plan: What was planned.
        simulated: Its simulation; None where there is none.
    """
    yield Text(f"penstock plan  {title(plan)}", style="bold")
    if (bound := bounded_by(plan)) is not None:
        yield Text(bound)
    for heading, rows in (
        ("Set", settings_rows(plan)),
        ("On the server", server_rows(plan)),
        ("Expect", expected_rows(plan.predicted)),
    ):
        yield _pairs(heading, rows)
    if simulated is not None:
        beside = Table(title="By formula beside simulated", title_justify="left")
        for name in SIMULATED_HEADINGS:
            beside.add_column(name, justify="right" if name else "left")
        for row in simulated_rows(plan, simulated):
            beside.add_row(*row)
        yield beside
    headings, body = what_if_rows(plan)
    table = Table(
        title="p99 of wait and hold time, and share in use, by rate and connections of each pool",
        title_justify="left",
    )
    for name in headings:
        table.add_column(name, justify="right")
    for is_planned, cells in body:
        table.add_row(*cells, style="bold" if is_planned else None)
    yield table
    found = findings_table(
        (each.id, Observation(each.severity, each.evidence, each.remedy)) for each in plan.findings
    )
    yield found if found.row_count else Text("ok: no check finds anything", style="green")


def _pairs(heading: str, rows: Mapping[str, str]) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False, title=heading, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value, style="bold"))
    return table


_SHARES = {"utilisation", "waiting_probability"}


def draw_verification(verification: "Verification") -> Iterator[RenderableType]:
    """Return what is printed of a run beside its plan."""
    table = Table(title="Predicted beside measured", title_justify="left")
    for name in ("", "planned", "predicted for the measured load", "measured"):
        table.add_column(name, justify="right" if name else "left")
    for name, numbers in verification.rows().items():
        table.add_row(name.replace("_", " "), *(_shown(name, number) for number in numbers))
    table.add_row("response p99 (HTTP, measured)", *map(seconds, verification.response_p99))
    yield table
    sent = verification.sent
    yield Text(
        f"{number_of(sent.requests, 'request')}, {sent.successes} succeeded; "
        f"{verification.measured.workers} x {verification.measured.connections} connections; "
        f"{sent.generator.late} started late, at most {sent.generator.late_max_ms:,.1f} ms"
    )
    if sent.is_late:
        yield Text(
            "The load generator was too slow, so that this comparison is worth nothing: run it on "
            "another machine, or plan for a lower rate",
            style="red",
        )


def _shown(name: str, number: float) -> str:
    if name in _SHARES:
        return f"{number:.2%}"
    return f"{number:,.1f}" if name == "checkouts_per_second" else seconds(number)


def write_json(
    plan: Plan,
    verification: "Verification | None" = None,
    simulated: Simulated | None = None,
) -> str:
    """Return a plan, and what a run and a simulation have shown of it, as a text of JSON."""
    document: dict[str, Any] = plan.document()
    if simulated is not None:
        document["simulated"] = simulated.document()
    if verification is not None:
        names = ("planned", "predicted", "measured")
        rows = {**verification.rows(), "response_p99": verification.response_p99}
        document["verification"] = {
            "requests": verification.sent.requests,
            "successes": verification.sent.successes,
            "late": verification.sent.generator.late,
            "late_max": verification.sent.generator.late_max_ms / 1000,
            "is_late": verification.sent.is_late,
            **{
                name: {
                    column: None if number is None or not isfinite(number) else number
                    for column, number in zip(names, numbers, strict=True)
                }
                for name, numbers in rows.items()
            },
        }
    return json.dumps(document, indent=2, allow_nan=False)
