"""The problem details in an application's OpenAPI, at the routes that use its databases."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from fastapi import FastAPI, routing
from fastapi.dependencies.models import Dependant

from penstock.fastapi.dependencies import access_of
from penstock.fastapi.problems import Problem, statuses_of

__all__ = ["document_problems"]

_SCHEMA = {
    "title": "Problem",
    "description": "Problem details (RFC 9457) of a request that the database has not fulfilled.",
    "type": "object",
    "properties": {
        "title": {"title": "Title", "type": "string"},
        "status": {"title": "Status", "type": "integer"},
        "code": {"title": "Code", "type": "string"},
        "detail": {"title": "Detail", "type": "string"},
    },
    "required": ["title", "status", "code", "detail"],
}
_NAME = "PenstockProblem"
_CONTENT = {Problem.media_type: {"schema": {"$ref": f"#/components/schemas/{_NAME}"}}}


def document_problems(app: FastAPI, codes: Collection[str]) -> None:
    """Have an application's OpenAPI say how its routes answer when the database refuses.

    What a route or the application says itself of a status stays.

    Args:
        app: The application; it may get more routes.
        codes: Which answers are given.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        if codes:
            _add_problems(schema, app, codes)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does


def _add_problems(schema: dict[str, Any], app: FastAPI, codes: Collection[str]) -> None:
    for path, methods, writes in _routes_with_database(app):
        for method in methods:
            operation = schema.get("paths", {}).get(path, {}).get(method.lower())
            if operation is None:
                continue
            schema.setdefault("components", {}).setdefault("schemas", {})[_NAME] = _SCHEMA
            for status in statuses_of(codes, writes=writes):
                answers = operation.setdefault("responses", {})
                response = answers.setdefault(str(status.value), {"description": status.phrase})
                if status == VALIDATION or not response.get("content"):
                    response["content"] = {**response.get("content", {}), **_CONTENT}


VALIDATION = 422
"""The status with which FastAPI answers values that it refuses itself, in its own form."""


def _routes_with_database(app: FastAPI) -> Iterator[tuple[str, Collection[str], bool]]:
    """Return path, methods, and whether something may be written, of each route that asks."""
    each: Callable[..., Any] = getattr(routing, "iter_route_contexts", iter)
    for route in each(app.routes):
        dependant = getattr(route, "dependant", None)
        if isinstance(dependant, Dependant) and (uses := set(_uses(dependant))):
            yield route.path_format, route.methods or (), "write" in uses


def _uses(dependant: Dependant) -> Iterator[str]:
    if use := access_of(dependant.call):
        yield use
    for inner in dependant.dependencies:
        yield from _uses(inner)
