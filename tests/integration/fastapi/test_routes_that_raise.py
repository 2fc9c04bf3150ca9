"""An exception that ended the route rolls back, whatever status its handler answers."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import fastapi
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.errors import SessionClosed
from penstock.fastapi import install, write_session
from penstock.fastapi.request_sessions import HAS_EXIT_STACK

ROLLED_BACK: list[str] = []
COMMITTED = ["debit"]


class NotLoggedInError(Exception):
    """Answered by a redirect, as pages do."""


class SoftError(Exception):
    """Answered by a 200 that says so inside, as GraphQL does."""


def _answering(app: Any) -> None:
    async def soft(request: Request, error: Exception) -> Response:
        return JSONResponse({"errors": ["no"]})

    app.add_exception_handler(NotLoggedInError, lambda *_: RedirectResponse("/login", 303))
    for kind in (SoftError, 418, RequestValidationError, ResponseValidationError):
        app.add_exception_handler(kind, soft)


def _debit(session: AsyncSession) -> None:
    session.add(Note(text="debit"))


def _refuse() -> None:
    raise SoftError


RAISED: dict[str, Callable[[], Exception]] = {
    "HTTPException 204": lambda: HTTPException(204),
    "HTTPException 303": lambda: HTTPException(303, headers={"Location": "/login"}),
    "HTTPException 304": lambda: HTTPException(304),
    "HTTPException 400": lambda: HTTPException(400),
    "an exception answered by a redirect": NotLoggedInError,
    "an exception answered by 200": SoftError,
    "HTTPException 418, a status answered by 200": lambda: HTTPException(418),
    "an exception without a handler": lambda: RuntimeError("no handler"),
}

Case = Callable[[FastAPI, Any], None]
CASES: dict[str, tuple[Case, list[str]]] = {}


def case(expected: list[str]) -> Callable[[Case], Case]:
    """Make a case of a function that adds a route by POST / to an application.

    Args:
        expected: What is saved, by the request's session as by a dependency that commits after
            its ``yield``.
    """

    def keep(function: Case) -> Case:
        CASES[function.__name__.replace("_", " ")] = (function, expected)
        return function

    return keep


@case(ROLLED_BACK)
def raised_in_a_later_dependency(app: FastAPI, session_of: Any) -> None:
    def refuse(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        raise SoftError

    @app.post("/", dependencies=[Depends(refuse)])
    async def route() -> None: ...


@case(ROLLED_BACK)
def raised_by_a_dependency_of_the_application(app: FastAPI, session_of: Any) -> None:
    async def refuse(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        await session.flush()
        raise NotLoggedInError

    router = APIRouter(dependencies=[Depends(refuse)])

    @router.post("/")
    async def route() -> None: ...

    app.include_router(router)


@case(ROLLED_BACK)
def raised_in_a_nested_router(app: FastAPI, session_of: Any) -> None:
    inner, outer = APIRouter(), APIRouter()

    @inner.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        raise SoftError

    outer.include_router(inner)
    app.include_router(outer)


@case(ROLLED_BACK)
def raised_in_a_mounted_application_and_answered_outside(app: FastAPI, session_of: Any) -> None:
    mounted = FastAPI()

    @mounted.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        raise SoftError

    # It has no handler of its own, and its server error middleware passes the exception on.
    @app.middleware("http")
    async def answer(request: Request, call_next: Any) -> Response:
        try:
            response: Response = await call_next(request)
        except SoftError:
            return JSONResponse({"errors": ["no"]})
        return response

    app.mount("", mounted)


@case(ROLLED_BACK)
def raised_in_a_mounted_application_with_handlers(app: FastAPI, session_of: Any) -> None:
    mounted = FastAPI()
    _answering(mounted)

    @mounted.middleware("http")
    async def other_task(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    @mounted.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        raise SoftError

    app.mount("", mounted.__call__)  # which does not show that it is an application


@case(ROLLED_BACK)
def middleware_catches_the_exception_and_answers(app: FastAPI, session_of: Any) -> None:
    @app.middleware("http")
    async def answer(request: Request, call_next: Any) -> Response:
        try:
            response: Response = await call_next(request)
        except RuntimeError:
            return JSONResponse({"errors": ["no"]})
        return response

    @app.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        raise RuntimeError


@case(ROLLED_BACK)
def asgi_middleware_catches_the_exception_and_answers(app: FastAPI, session_of: Any) -> None:
    class Answers:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await self.app(scope, receive, send)
            except RuntimeError:
                await JSONResponse({"errors": ["no"]})(scope, receive, send)

    app.add_middleware(Answers)

    @app.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        raise RuntimeError


@case(ROLLED_BACK)
def a_handler_for_every_exception_answers(app: FastAPI, session_of: Any) -> None:
    @app.exception_handler(Exception)
    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"errors": ["no"]})

    @app.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        raise RuntimeError


@case(ROLLED_BACK)
def the_request_is_not_valid(app: FastAPI, session_of: Any) -> None:
    async def seen(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        await session.flush()

    @app.post("/", dependencies=[Depends(seen)])
    async def route(missing: int) -> None: ...


@case(ROLLED_BACK)
def the_result_is_not_valid(app: FastAPI, session_of: Any) -> None:
    @app.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> int:
        _debit(session)
        return "no number"  # type: ignore[return-value]  # what is refused


@case(COMMITTED)
def raised_and_caught_inside_the_route(app: FastAPI, session_of: Any) -> None:
    @app.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> Response:
        _debit(session)
        try:
            _refuse()
        except SoftError:
            return RedirectResponse("/elsewhere", 303)
        return Response()


@case(COMMITTED)
def middleware_runs_the_application_while_it_handles_an_exception(
    app: FastAPI, session_of: Any
) -> None:
    class Anonymous:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                _refuse()
            except SoftError:
                await self.app(scope, receive, send)

    app.add_middleware(Anonymous)

    @app.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)


@case(COMMITTED)
def a_background_task_raises(app: FastAPI, session_of: Any) -> None:
    @app.post("/")
    async def route(
        session: Annotated[AsyncSession, Depends(session_of, **FUNCTION)], tasks: BackgroundTasks
    ) -> None:
        _debit(session)
        tasks.add_task(_refuse)


@case(COMMITTED)
def a_stream_raises(app: FastAPI, session_of: Any) -> None:
    async def body() -> AsyncIterator[str]:
        yield "a"
        raise SoftError

    @app.post("/")
    async def route(
        session: Annotated[AsyncSession, Depends(session_of, **FUNCTION)],
    ) -> StreamingResponse:
        _debit(session)
        return StreamingResponse(body())


@case(COMMITTED)
def a_custom_route_runs_the_function_again(app: FastAPI, session_of: Any) -> None:
    class Again(APIRoute):
        def get_route_handler(self) -> Any:
            original = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await original(request)
                except SoftError:
                    return await original(request)

            return handler

    router = APIRouter(route_class=Again)
    attempts: list[int] = []

    @router.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise SoftError
        _debit(session)

    app.include_router(router)


@case(COMMITTED)
def middleware_runs_the_application_again(app: FastAPI, session_of: Any) -> None:
    class Again:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await self.app(scope, receive, send)
            except RuntimeError:
                await self.app(scope, receive, send)

    app.add_middleware(Again)
    attempts: list[int] = []

    @app.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError


FUNCTION: dict[str, Any] = {"scope": "function"} if HAS_EXIT_STACK else {}
if HAS_EXIT_STACK:

    @case(ROLLED_BACK)
    def raised_after_the_yield_of_a_dependency_of_the_function(
        app: FastAPI, session_of: Any
    ) -> None:
        async def audited() -> AsyncIterator[None]:
            yield
            raise SoftError

        @app.post("/")
        async def route(
            audit: Annotated[None, Depends(audited, scope="function")],
            session: Annotated[AsyncSession, Depends(session_of)],
        ) -> None:
            _debit(session)


@pytest.fixture(params=["a dependency that commits after its yield", "the request's session"])
async def session_of(
    request: pytest.FixtureRequest, tables: str, app: FastAPI
) -> AsyncIterator[Any]:
    """A dependency that gives a session: of SQLAlchemy's own and FastAPI's, or of ours."""
    if request.param == "the request's session":
        yield write_session()
        return
    engine = create_async_engine(tables)
    maker = async_sessionmaker(engine)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with maker() as session:
            yield session
            await session.commit()

    yield get_session
    await engine.dispose()


async def _answer_to_post(app: FastAPI) -> int | None:
    async with client_of(app) as client:
        try:
            return (await client.post("/", follow_redirects=False)).status_code
        except httpx.RemoteProtocolError:  # a stream that broke off
            return None


@pytest.mark.parametrize("raised", RAISED)
async def test_an_exception_that_ends_the_route_rolls_back(
    app: FastAPI, session_of: Any, onlooker: Onlooker, raised: str
) -> None:
    _answering(app)

    @app.post("/")
    async def transfer(session: Annotated[AsyncSession, Depends(session_of)]) -> None:
        _debit(session)
        await session.flush()
        error = RAISED[raised]()
        raise error

    await _answer_to_post(app)

    assert await onlooker.texts() == ROLLED_BACK
    assert await onlooker.backends("idle in transaction") == 0


@pytest.mark.parametrize("name", CASES)
async def test_the_transaction_ends_as_a_dependencys_would_that_commits_after_its_yield(
    app: FastAPI, session_of: Any, onlooker: Onlooker, name: str
) -> None:
    add_route, expected = CASES[name]
    if add_route is the_request_is_not_valid and fastapi.__version__.startswith("0.115."):
        pytest.skip("this FastAPI raises it when the dependencies have ended")
    _answering(app)
    add_route(app, session_of)

    await _answer_to_post(app)

    assert await onlooker.texts() == expected
    assert await onlooker.backends("idle in transaction") == 0


@pytest.mark.parametrize("status", [200, 204, 303, 304])
async def test_a_returned_response_below_400_commits(
    app: FastAPI, session_of: Any, onlooker: Onlooker, status: int
) -> None:
    @app.post("/")
    async def route(session: Annotated[AsyncSession, Depends(session_of)]) -> Response:
        _debit(session)
        return Response(status_code=status)

    assert await _answer_to_post(app) == status

    assert await onlooker.texts() == COMMITTED


async def test_an_exception_rolls_back_every_database_of_the_request(
    tables: str, onlooker: Onlooker
) -> None:
    app = FastAPI()
    _answering(app)
    for name in ("default", "second"):
        install(app, Database.from_url(tables, environment="testing"), name=name)

    @app.post("/")
    async def route(
        first: Annotated[AsyncSession, Depends(write_session())],
        second: Annotated[AsyncSession, Depends(write_session("second"))],
    ) -> None:
        for session in (first, second):
            session.add(Note(text=f"{id(session)}"))
            await session.flush()
        raise SoftError

    assert await _answer_to_post(app) == 200

    assert await onlooker.texts() == []
    assert await onlooker.backends("idle in transaction") == 0


async def test_a_handler_finds_the_connection_returned_and_the_objects_readable(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    seen: list[Any] = []

    @app.exception_handler(SoftError)
    async def answer(request: Request, error: SoftError) -> Response:
        seen.extend((database.pool.snapshot().checked_out, request.state.note.text))
        async with database.write() as session:
            session.add(Note(text="the handler's own"))
        return JSONResponse({})

    @app.post("/")
    async def route(
        request: Request, session: Annotated[AsyncSession, Depends(write_session())]
    ) -> None:
        request.state.note = Note(text="debit")
        session.add(request.state.note)
        await session.flush()
        raise SoftError

    assert await _answer_to_post(app) == 200

    assert seen == [0, "debit"]
    assert await onlooker.texts() == ["the handler's own"]


async def test_a_handler_that_goes_on_with_the_requests_session_is_told_so(
    app: FastAPI, onlooker: Onlooker
) -> None:
    told: list[str] = []

    @app.exception_handler(SoftError)
    async def answer(request: Request, error: SoftError) -> Response:
        try:
            request.state.session.add(Note(text="lost"))
        except SessionClosed as refusal:
            told.append(str(refusal))
            raise
        return JSONResponse({})

    @app.post("/")
    async def route(
        request: Request, session: Annotated[AsyncSession, Depends(write_session())]
    ) -> None:
        request.state.session = session
        raise SoftError

    assert await _answer_to_post(app) == 500

    assert "SoftError" in told[0]
    assert "async with database.write()" in told[0]
    assert await onlooker.texts() == []
