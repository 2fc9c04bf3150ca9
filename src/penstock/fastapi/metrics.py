"""The route that Prometheus scrapes."""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request, Response

from penstock.database import Database
from penstock.fastapi.access import Access
from penstock.fastapi.errors import Problem
from penstock.fastapi.routes import add

_NO_STORE = {"Cache-Control": "no-store"}
_MISSING = (
    "Metrics need the package prometheus-client, which is not installed. Install it with "
    "pip install 'penstock[prometheus]'"
)


def add_metrics_routes(app: FastAPI, databases: Mapping[str, Database], access: Access) -> None:
    """Add ``/metrics``: the numbers of all workers of this machine, whichever of them answers.

    Where ``prometheus-client`` is missing it answers 501, with how to install it.

    Args:
        app: The application.
        databases: Whose numbers, by name.
        access: Who may look, and what they see. A database without telemetry is left out.
    """
    # A thread of its own, so that scrapes neither hold up requests nor wait for their threads.
    alone = CapacityLimiter(1)

    async def metrics(request: Request) -> Response:
        shown = {name: db for name, db in databases.items() if access.shows(db)}
        accept = request.headers.get("accept", "")
        return await run_sync(_answer, shown, accept, limiter=alone)

    add(app, "/metrics", metrics, summary="The numbers for Prometheus", dependencies=access.guards)


def _answer(shown: Mapping[str, Database], accept: str) -> Response:
    try:
        # It comes with an extra.
        from penstock.exporters.prometheus import PoolCollector, exposition  # noqa: PLC0415 - so
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        return _unavailable()
    read = [replace(database.telemetry.read(), name=name) for name, database in shown.items()]
    readings = [reading for reading in read if reading.workers]
    min_idle = {name: database.settings.min_idle for name, database in shown.items()}
    body, content_type = exposition(PoolCollector(lambda: readings, min_idle), accept)
    return Response(body, 200, {**_NO_STORE, "Content-Type": content_type})


def _unavailable() -> Problem:
    problem = Problem(HTTPStatus.NOT_IMPLEMENTED, "metrics_unavailable", _MISSING)
    problem.headers.update(_NO_STORE)
    return problem
