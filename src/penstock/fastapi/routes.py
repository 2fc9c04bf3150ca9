"""Operations routes: is the service alive, can it reach its database, how full is its pool."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import Depends, FastAPI, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.routing import Match
from starlette.types import Scope

from penstock.database import Database
from penstock.errors import PenstockError
from penstock.settings import Environment

__all__ = ["add_health_routes", "add_pool_routes", "is_open"]

_logger = logging.getLogger(__name__)
_NO_STORE = {"Cache-Control": "no-store"}


class OperationsRoute(APIRoute):
    """A route in front of the application's own, which costs their requests next to nothing."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Look at the path's end before its whole."""
        if not scope.get("path", "").endswith(self.path):
            return Match.NONE, {}
        return super().matches(scope)


def _add(app: FastAPI, path: str, endpoint: Callable[..., Any], **arguments: Any) -> None:
    # To the application's own router: one that is included costs each request more.
    app.router.add_api_route(
        path, endpoint, tags=["operations"], route_class_override=OperationsRoute, **arguments
    )


def add_health_routes(app: FastAPI, databases: Mapping[str, Database], timeout: float) -> None:
    """Add ``/health/live``, ``/health/ready`` and ``/health``; none says anything secret.

    Args:
        app: The application.
        databases: Every one of them has to answer for the service to be ready.
        timeout: Seconds within which each must.
    """

    async def live(response: Response) -> dict[str, str]:
        response.headers.update(_NO_STORE)
        return {"status": "ok"}

    async def ready(response: Response) -> dict[str, Any]:
        response.headers.update(_NO_STORE)
        answers = {name: await _answers(db, name, timeout) for name, db in databases.items()}
        healthy = all(answers.values())
        response.status_code = 200 if healthy else 503
        return {
            "status": "ok" if healthy else "unavailable",
            "databases": {name: "ok" if up else "unavailable" for name, up in answers.items()},
        }

    _add(app, "/health/live", live, summary="The process answers")
    _add(app, "/health/ready", ready, summary="Every database answers; 503 if not")
    _add(app, "/health", ready, summary="The process and its databases answer")


async def _answers(database: Database, name: str, timeout: float) -> bool:  # noqa: ASYNC109 - config
    try:
        await database.ping(timeout)
    except (TimeoutError, OSError, SQLAlchemyError, PenstockError) as error:
        _logger.warning("database %s does not answer: %s", name, error)
        return False
    return True


def add_pool_routes(
    app: FastAPI, databases: Mapping[str, Database], access: Callable[..., Any] | None
) -> None:
    """Add ``/pool-stats``: the numbers of this worker's pools.

    Args:
        app: The application.
        databases: Whose pools, by name.
        access: A dependency that refuses whoever may not look. With None everybody may, but
            sees only what :func:`is_open` says of each database.
    """
    guards = [] if access is None else [Depends(access)]

    async def pool_stats(response: Response) -> dict[str, dict[str, bool | int | float]]:
        response.headers.update(_NO_STORE)
        return {
            name: _stats(database)
            for name, database in databases.items()
            if access is not None or is_open(database)
        }

    _add(
        app,
        "/pool-stats",
        pool_stats,
        summary="The numbers of this worker's pools",
        dependencies=guards,
    )


def _stats(database: Database) -> dict[str, bool | int | float]:
    pool = database.pool
    numbers = asdict(pool)
    del numbers["last_open_error"]  # it names addresses: that is for the log
    return {**numbers, "utilisation": round(pool.utilisation, 4)}


def is_open(database: Database) -> bool:
    """Say whether anybody may see the pool's numbers: in development and testing only."""
    return database.settings.environment in (Environment.DEVELOPMENT, Environment.TESTING)
