"""The operations routes beside routes of the application that have their paths."""

from collections.abc import Callable

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.servers.web import client_of

PATHS = ["/health", "/metrics", "/pool"]


async def own(_: Request) -> Response:
    return PlainTextResponse("my own")


def as_route(app: FastAPI, path: str) -> None:
    app.add_api_route(path, own)


def by_router(app: FastAPI, path: str) -> None:
    router = APIRouter()
    router.add_api_route(path, own)
    app.include_router(router)


def mounted(app: FastAPI, path: str) -> None:
    app.mount(path, Starlette(routes=[Route("/", own)]))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("add", [as_route, by_router, mounted])
async def test_a_route_of_the_applications_own_takes_the_place_of_ours(
    app: FastAPI, add: Callable[[FastAPI, str], None], path: str
) -> None:
    add(app, path)

    async with client_of(app) as client:
        assert (await client.get(path, follow_redirects=True)).text == "my own"
        for other in {*PATHS, "/health/live"} - {path}:
            assert (await client.get(other)).text != "my own"


@pytest.mark.parametrize("path", PATHS)
async def test_a_route_for_another_method_or_for_every_path_does_not(
    app: FastAPI, path: str
) -> None:
    app.add_api_route(path, own, methods=["POST"])
    app.add_api_route("/{page:path}", own)

    async with client_of(app) as client:
        assert (await client.get(path)).text != "my own"
        assert (await client.post(path)).text == "my own"
        assert (await client.get(f"{path}/elsewhere")).text == "my own"


@pytest.mark.parametrize("path", PATHS)
async def test_a_route_of_the_applications_own_does_so_where_no_lifespan_is_run(
    app: FastAPI, path: str
) -> None:
    app.add_api_route(path, own)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))

    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get(path)).text == "my own"
