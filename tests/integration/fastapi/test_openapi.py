"""What an application's OpenAPI says of its routes' problems."""

import pytest
from fastapi import APIRouter, Depends, FastAPI
from tests.integration.fastapi.things import add_routes

from penstock import Database
from penstock.fastapi import ReadSession, WriteSession, install


def problems_of(app: FastAPI, path: str, method: str) -> set[str]:
    responses = app.openapi()["paths"][path][method]["responses"]
    return {
        status
        for status, response in responses.items()
        if "application/problem+json" in response.get("content", {})
    }


@pytest.fixture
def described() -> FastAPI:
    """Never started: nothing is connected."""
    app = FastAPI()
    install(app, Database.from_url("postgresql://nowhere/app"))
    add_routes(app)
    return app


def test_routes_that_use_a_database_tell_their_problems(described: FastAPI) -> None:
    reading, writing = {"404", "422", "503"}, {"404", "409", "422", "503"}
    assert problems_of(described, "/session/{thing_id}", "get") == reading
    assert problems_of(described, "/reader/{thing_id}", "get") == reading
    assert problems_of(described, "/flushed", "post") == writing
    assert problems_of(described, "/writer", "post") == writing


def test_other_routes_tell_of_none_and_operations_routes_are_not_there(described: FastAPI) -> None:
    @described.get("/other")
    async def other() -> None: ...

    assert problems_of(described, "/other", "get") == set()
    own = described.openapi()["paths"].keys()
    assert own >= {"/other", "/session/{thing_id}"}
    assert not any(path.startswith(("/health", "/pool", "/metrics")) for path in own)


def test_what_a_route_says_itself_stays(described: FastAPI) -> None:
    mine = {"description": "Mine", "content": {"text/plain": {}}}

    @described.get("/own/{thing_id}", responses={404: mine})
    async def own(thing_id: int, session: ReadSession) -> None: ...

    responses = described.openapi()["paths"]["/own/{thing_id}"]["get"]["responses"]
    assert responses["404"] == mine
    assert responses["422"]["content"].keys() == {"application/json", "application/problem+json"}


def test_a_router_that_is_included_and_a_dependency_in_between_tell_them_too(
    described: FastAPI,
) -> None:
    def repository(session: WriteSession) -> object:
        return session

    router = APIRouter(prefix="/inner")

    @router.post("/things")
    async def create(things: object = Depends(repository)) -> None: ...

    described.include_router(router, prefix="/outer")
    assert "409" in problems_of(described, "/outer/inner/things", "post")


def test_the_schema_of_a_problem_is_there_once(described: FastAPI) -> None:
    schema = described.openapi()
    assert schema == described.openapi()
    assert "code" in schema["components"]["schemas"]["PenstockProblem"]["properties"]


def test_answers_that_are_not_given_are_not_told() -> None:
    for answers, told in ((False, set()), ({"unique_violation"}, {"409"})):
        app = FastAPI()
        install(app, Database.from_url("postgresql://nowhere/app"), answers=answers)
        add_routes(app)
        assert problems_of(app, "/flushed", "post") == told
