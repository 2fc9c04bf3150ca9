"""Routes that are given their sessions, readers, writers and databases past FastAPI's solving."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isasyncgenfunction
from types import FrameType
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.dependencies.utils import solve_dependencies
from fastapi.exceptions import ResponseValidationError
from starlette.requests import HTTPConnection

from penstock import Database
from penstock.fastapi import (
    CurrentDatabase,
    Reader,
    ReadSession,
    Writer,
    WriteSession,
    current_database,
    install,
    read_session,
    reader,
    write_session,
    writer,
)

GIVEN: dict[str, tuple[Any, Callable[[], Any]]] = {
    "ReadingSession": (ReadSession, read_session),
    "WritingSession": (WriteSession, write_session),
    "Reader": (Reader, reader),
    "Writer": (Writer, writer),
    "Database": (CurrentDatabase, current_database),
}
"""What a route asks for, by the class of what it is given."""


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    url = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"  # which no route here speaks to
    install(app, Database.from_url(url, environment="testing"))
    return app


def of_the_application(app: FastAPI, add: Callable[[Any], Any]) -> None:
    add(app)


def of_a_router(app: FastAPI, add: Callable[[Any], Any]) -> None:
    router = APIRouter()
    add(router)
    app.include_router(router)


def of_a_mounted_application(app: FastAPI, add: Callable[[Any], Any]) -> None:
    mounted = FastAPI()
    mounted.dependency_overrides = app.dependency_overrides
    add(mounted)
    app.mount("/", mounted)


async def get(app: FastAPI) -> Any:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return (await client.get("/route")).json()


@contextmanager
def counting_solved() -> Iterator[list[str]]:
    """Note each dependency that FastAPI solves, the routes themselves included."""
    solved: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is solve_dependencies.__code__:
            solved.append(frame.f_locals["dependant"].call.__name__)

    sys.setprofile(note)
    yield solved
    sys.setprofile(None)


@pytest.mark.parametrize("place", [of_the_application, of_a_router, of_a_mounted_application])
@pytest.mark.parametrize("kind", GIVEN)
async def test_a_route_is_given_what_it_asks_for_without_fastapi_solving_it(
    app: FastAPI, place: Callable[..., None], kind: str
) -> None:
    async def route(given: GIVEN[kind][0]) -> str:  # type: ignore[valid-type]  # one of the above
        return type(given).__name__

    place(app, lambda router: router.get("/route")(route))

    with counting_solved() as solved:
        assert await get(app) == kind
    is_generator = isasyncgenfunction(GIVEN[kind][1]())  # a session's, before FastAPI 0.121
    assert set(solved) == ({"route", "generator"} if is_generator else {"route"})


@pytest.mark.parametrize("place", [of_the_application, of_a_router, of_a_mounted_application])
@pytest.mark.parametrize("kind", GIVEN)
async def test_an_override_takes_its_place_also_once_the_application_serves(
    app: FastAPI, place: Callable[..., None], kind: str
) -> None:
    async def route(given: GIVEN[kind][0], reader: Reader) -> list[str]:  # type: ignore[valid-type]  # as above
        return [type(given).__name__, type(reader).__name__]

    async def stand_in(named: str = "stand-in") -> Any:
        return type(named, (), {})()

    place(app, lambda router: router.get("/route")(route))

    assert await get(app) == [kind, "Reader"]
    app.dependency_overrides[GIVEN[kind][1]()] = stand_in
    assert (await get(app))[0] == "stand-in"
    app.dependency_overrides.clear()
    assert await get(app) == [kind, "Reader"]


async def test_another_dependency_is_solved_with_the_sessions_that_it_needs(app: FastAPI) -> None:
    async def of_dependency(session: WriteSession) -> Any:
        return session

    @app.get("/route")
    async def route(session: WriteSession, other: Annotated[Any, Depends(of_dependency)]) -> bool:
        return session is other

    with counting_solved() as solved:
        assert await get(app) is True
    assert solved.count("of_dependency") == 1


async def test_a_route_keeps_the_connection_that_it_asks_for_itself(app: FastAPI) -> None:
    @app.get("/route")
    async def route(given: Reader, connection: HTTPConnection) -> list[str]:
        return [type(given).__name__, connection.url.path]

    assert await get(app) == ["Reader", "/route"]


async def test_a_route_that_is_no_coroutine_function_is_given_the_same(app: FastAPI) -> None:
    @app.get("/route")
    def route(given: CurrentDatabase) -> str:
        return type(given).__name__

    assert await get(app) == "Database"


async def test_a_websocket_is_given_the_same_or_its_override(app: FastAPI) -> None:
    given: list[str] = []

    @app.websocket("/route")
    async def route(websocket: WebSocket, database: CurrentDatabase) -> None:
        given.append(type(database).__name__)

    scope = {"type": "websocket", "path": "/route", "query_string": b"", "headers": []}
    await app(dict(scope), _nothing, _nothing)
    app.dependency_overrides[current_database()] = lambda: "a stand-in"
    await app(dict(scope), _nothing, _nothing)

    assert given == ["Database", "str"]


async def _nothing(*_: object) -> Any:
    """Neither receive nor send."""


async def test_an_invalid_response_is_told_of_as_in_an_application_without(app: FastAPI) -> None:
    async def route(given: Annotated[Any, Depends(reader())]) -> Any:
        return given if isinstance(given, str) else "no number"

    told = []
    bare = FastAPI()
    bare.dependency_overrides[reader()] = lambda: "no number"
    for each in (app, bare):
        each.get("/route", response_model=int)(route)
        with pytest.raises(ResponseValidationError) as caught:
            await get(each)
        told.append(str(caught.value))

    assert told[0] == told[1]


def test_the_document_of_the_routes_is_as_before(app: FastAPI) -> None:
    bare = FastAPI()
    for each in (app, bare):

        @each.get("/route")
        async def route(number: int, given: Reader, session: WriteSession) -> int:
            return number

    before = app.openapi()
    app.openapi_schema = None
    app.build_middleware_stack()

    assert app.openapi() == before
    assert "503" in before["paths"]["/route"]["get"]["responses"]
