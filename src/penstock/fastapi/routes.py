"""Operations routes: is the service alive, how full is its pool; its metrics; who may see them."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Self

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from penstock.base_error import PenstockError
from penstock.database import Database
from penstock.engine import pool_snapshot
from penstock.fastapi.drain import Drain
from penstock.fastapi.errors import Problem
from penstock.pool import PoolTimeout
from penstock.pool.queue import RejectReason
from penstock.settings import Environment

_logger = logging.getLogger(__name__)
_NO_STORE = {"Cache-Control": "no-store"}
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
"""Headers by which a proxy on this machine says that it asks for another."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may see the operations routes.

    Args:
        guards: Dependencies, as in ``dependencies=``, that refuse those who may not look.
        shows_all: Whether those who may look see every database; else those alone that
            :func:`is_open` names.
    """

    guards: Sequence[Any]
    shows_all: bool

    @classmethod
    def by(cls, guard: Callable[..., Any] | None, databases: Mapping[str, Database]) -> Self:
        """Return the access that a guard of the application gives.

        Args:
            guard: Refuses those who may not look. Without one all may, but this machine alone
                where the environment of a database was not named.
            databases: By name; read anew for every request.
        """
        if guard is not None:
            return cls([Depends(guard)], shows_all=True)
        return cls([Depends(_of_this_machine(databases))], shows_all=False)

    def shows(self, database: Database) -> bool:
        """Return whether a database is shown to those who may look."""
        return self.shows_all or is_open(database)


def is_open(database: Database) -> bool:
    """Return whether the pool's numbers are shown without a guard: in development and testing."""
    return database.settings.environment in (Environment.DEVELOPMENT, Environment.TESTING)


def _of_this_machine(
    databases: Mapping[str, Database],
) -> Callable[[HTTPConnection], Awaitable[None]]:
    async def guard(connection: HTTPConnection) -> None:
        if _is_loopback(connection) and not any(name in connection.headers for name in _FORWARDED):
            return
        if not all(database.settings.names_environment for database in databases.values()):
            raise HTTPException(404)

    return guard


def _is_loopback(connection: HTTPConnection) -> bool:
    try:
        return connection.client is not None and ip_address(connection.client.host).is_loopback
    except ValueError:  # the path of a Unix socket, or a test client's name
        return False


_BUSY = (
    RejectReason.WAITING,
    RejectReason.SHED,
    RejectReason.DEADLINE_UNREACHABLE,
    RejectReason.FULL,
)
"""Why a pool gives no connection while all of them are in use."""


class OperationsRoute(APIRoute):
    """A route that costs the requests of others next to nothing where it is asked before them."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Look at the path's end before its whole."""
        if not scope.get("path", "").endswith(self.path):
            return Match.NONE, {}
        return super().matches(scope)


def add(app: FastAPI, path: str, endpoint: Callable[..., Any], **arguments: Any) -> None:
    """Add a GET route for the operators of the service.

    Args:
        app: The application.
        path: Where.
        endpoint: What answers.
        **arguments: As ``add_api_route`` has them.
    """
    # To the application's own router: one that is included costs each request more.
    app.router.add_api_route(
        path,
        endpoint,
        include_in_schema=False,
        route_class_override=OperationsRoute,
        **arguments,
    )


def let_others_first(app: FastAPI) -> None:
    """Put the operations routes behind all others, whose requests then never come by them.

    One that would be hidden there, as by a page for every path, stays where it is; one whose very
    path is the application's own is gone.

    Args:
        app: The application, with all of its routes.
    """
    routes = app.router.routes
    others = [route for route in routes if not isinstance(route, OperationsRoute)]
    own = [
        route
        for route in routes
        if isinstance(route, OperationsRoute) and not any(_is_for(route.path, by) for by in others)
    ]
    hidden = [route for route in own if any(_answers_for(route.path, by) for by in others)]
    routes[:] = [*hidden, *others, *(route for route in own if route not in hidden)]


def _is_for(path: str, route: BaseRoute) -> bool:
    # A router that is included does not list its paths: it is asked for a neighbour as well. A
    # mounted application and a redirect begin behind the slash.
    return any(
        _answers_for(f"{path}{end}", route) and not _answers_for(f"{path}-{end}", route)
        for end in ("", "/")
    )


def _answers_for(path: str, route: BaseRoute) -> bool:
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return route.matches(scope)[0] is Match.FULL


def add_health_routes(
    app: FastAPI, databases: Mapping[str, Database], timeout: float, drain: Drain
) -> None:
    """Add ``/health/live``, ``/health/ready`` and ``/health``; none says anything secret.

    Args:
        app: The application.
        databases: Every one of them has to answer for the service to be ready.
        timeout: Seconds within which each must.
        drain: Says whether the process is about to end, and so not ready.
    """

    async def live(response: Response) -> dict[str, str]:
        response.headers.update(_NO_STORE)
        return {"status": "ok"}

    async def ready(response: Response) -> dict[str, Any]:
        response.headers.update(_NO_STORE)
        if drain.is_on:
            response.status_code = 503
            return {"status": "stopping", "databases": {}}
        states = {name: await _state(db, name, timeout) for name, db in databases.items()}
        is_ready = "unavailable" not in states.values()
        response.status_code = 200 if is_ready else 503
        return {"status": "ok" if is_ready else "unavailable", "databases": states}

    add(app, "/health/live", live, summary="The process answers")
    add(app, "/health/ready", ready, summary="Every database answers; 503 if not")
    add(app, "/health", ready, summary="The process and its databases answer")


async def _state(database: Database, name: str, timeout: float) -> str:  # noqa: ASYNC109 - config
    try:
        await database.ping(timeout)
    except PoolTimeout as error:
        if error.phase in _BUSY:
            # Its connections are at work: without this worker the others would have more to do.
            return "busy"
        _logger.warning("database %s does not answer: %s", name, error)
        return "unavailable"
    except (TimeoutError, OSError, SQLAlchemyError, PenstockError) as error:
        _logger.warning("database %s does not answer: %s", name, error)
        return "unavailable"
    return "ok"


def add_pool_routes(app: FastAPI, databases: Mapping[str, Database], access: Access) -> None:
    """Add ``/pool-stats``: the numbers of this worker's pools.

    Args:
        app: The application.
        databases: Whose pools, by name.
        access: Who may look, and what they see.
    """

    async def pool_stats(response: Response) -> dict[str, dict[str, Any]]:
        response.headers.update(_NO_STORE)
        return {
            name: _stats(database) for name, database in databases.items() if access.shows(database)
        }

    add(
        app,
        "/pool-stats",
        pool_stats,
        summary="The numbers of this worker's pools",
        dependencies=access.guards,
    )


def _stats(database: Database) -> dict[str, Any]:
    pool = pool_snapshot(database.engine)
    numbers = asdict(pool)
    del numbers["last_open_error"]  # it names addresses: that is for the log
    cluster = {} if database.cluster is None else {"cluster": asdict(database.cluster.snapshot())}
    return {**numbers, "utilisation": round(pool.utilisation, 4), **cluster}


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
    clusters = {name: db.cluster.snapshot() for name, db in shown.items() if db.cluster}
    collector = PoolCollector(lambda: readings, min_idle, clusters=lambda: clusters)
    body, content_type = exposition(collector, accept)
    return Response(body, 200, {**_NO_STORE, "Content-Type": content_type})


def _unavailable() -> Problem:
    problem = Problem(HTTPStatus.NOT_IMPLEMENTED, "metrics_unavailable", _MISSING)
    problem.headers.update(_NO_STORE)
    return problem
