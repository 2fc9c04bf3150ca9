"""Sessions, readers, writers and databases that a route is given past FastAPI's solving.

What needs nothing but the request is there within microseconds; FastAPI takes some fifteen to solve
a dependency.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from fastapi import routing
from fastapi.dependencies.models import Dependant
from starlette.applications import Starlette
from typing_extensions import override

from penstock.fastapi.dependencies import Give, giver_of

_CONNECTION = "penstock_connection"
"""The argument in which FastAPI passes the connection to a route that has none for it."""
_PROVIDER = "dependency_overrides_provider"


def routes_with_dependant(app: Starlette) -> Iterator[Any]:
    """Return the routes of an application and of its routers that FastAPI solves dependencies for.

    Args:
        app: The application.
    """
    each: Callable[..., Iterator[Any]] = getattr(routing, "iter_route_contexts", iter)
    for route in each(app.routes):
        if isinstance(getattr(route, "dependant", None), Dependant):
            yield route


def inject_directly(app: Starlette) -> None:
    """Have the routes of an application given what needs nothing but the request.

    ``app.dependency_overrides`` holds as before. FastAPI goes on solving everything for WebSockets,
    for routes that are no coroutine functions and for those that come later.

    Args:
        app: The application.
    """
    for route in routes_with_dependant(app):
        dependant: Dependant = route.dependant
        is_done = isinstance(dependant.dependencies, _Unsolved)
        if hasattr(route, _PROVIDER) and iscoroutinefunction(dependant.call) and not is_done:
            _inject(dependant, dependant.call, getattr(route, _PROVIDER))


def _inject(dependant: Dependant, call: Callable[..., Any], provider: Any) -> None:
    every, own = dependant.dependencies, dependant.http_connection_param_name
    givers = {each.name: give for each in every if each.name and (give := giver_of(each.call))}
    if givers:
        dependant.http_connection_param_name = own or _CONNECTION
        dependant.dependencies = _Unsolved(every, givers, provider)
        dependant.call = _injected(call, givers, own)


class _Unsolved(list[Dependant]):
    """A route's dependencies, of which FastAPI comes across those that it has to solve.

    These are all of them as long as the application overrides any.

    Args:
        every: The route's dependencies.
        givers: What gives some of them, by name.
        provider: Has the overrides; None for none.
    """

    def __init__(self, every: list[Dependant], givers: Mapping[str, Give], provider: Any) -> None:
        super().__init__(every)
        self._rest = [each for each in every if each.name not in givers]
        self._provider = provider

    @override
    def __iter__(self) -> Iterator[Dependant]:
        is_overridden = self._provider is not None and self._provider.dependency_overrides
        return super().__iter__() if is_overridden else iter(self._rest)


def _injected(
    call: Callable[..., Any], givers: Mapping[str, Give], own: str | None
) -> Callable[..., Any]:
    @wraps(call)
    def injected(**values: Any) -> Any:
        connection = values[own] if own else values.pop(_CONNECTION)
        for name, give in givers.items():
            if name not in values:  # else FastAPI has solved it
                values[name] = give(connection)
        return call(**values)

    _keep_context(injected, call)
    return injected


def _keep_context(injected: Callable[..., Any], call: Callable[..., Any]) -> None:
    """Have FastAPI's messages about invalid values name the file of the route itself."""
    contexts = getattr(routing, "_endpoint_context_cache", None)
    extract = getattr(routing, "_extract_endpoint_context", None)
    if isinstance(contexts, dict) and extract is not None:
        contexts[id(injected)] = extract(call)
