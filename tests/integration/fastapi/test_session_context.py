"""What session_context says of a request holds for all that it does, and for that alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

import httpx
import pytest
import websockets
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import insert, text
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.eventually import eventually
from tests.integration.fastapi.notes import Note
from tests.servers.web import client_of, serving

from penstock import Database, PenstockError, SessionContext, query
from penstock.errors import ContextError, ContextRequired
from penstock.fastapi import CurrentDatabase, Reader, ReadSession, Writer, WriteSession, install
from penstock.testing import rollback_after

TENANT = text("SELECT coalesce(current_setting('app.tenant', true), '') AS tenant")
WRITE = text(
    "INSERT INTO notes (text) VALUES (coalesce(current_setting('app.tenant', true), '') || :text)"
    " RETURNING coalesce(current_setting('app.tenant', true), '') AS tenant"
)
asked = query(TENANT)


class Tenants:
    """Says whose a request is, and remembers how often it was asked.

    Args:
        makes: What it returns for a request; by default what a header says.
    """

    def __init__(self, makes: Callable[[Any], Any] | None = None) -> None:
        self.makes = makes or (
            lambda request: SessionContext(settings={"app.tenant": request.headers["x-tenant"]})
        )
        self.requests: list[Any] = []

    def __call__(self, request: Any) -> Any:
        self.requests.append(request)
        return self.makes(request)


class AsyncTenants(Tenants):
    """Takes its time."""

    async def __call__(self, request: Any) -> Any:
        self.requests.append(request)
        await asyncio.sleep(0.01)
        return self.makes(request)


@pytest.fixture(params=[Tenants, AsyncTenants])
def tenants(request: pytest.FixtureRequest) -> Tenants:
    made: Tenants = request.param()
    return made


@pytest.fixture
def app(lone: Database, tenants: Tenants) -> FastAPI:
    app = FastAPI()
    install(app, lone, session_context=tenants)
    add_routes(app)
    return app


def add_routes(app: FastAPI) -> None:  # noqa: C901 - one route for each way
    @app.get("/nothing")
    async def nothing(session: WriteSession, reader: Reader) -> None: ...

    @app.get("/reading")
    async def reading(session: ReadSession) -> Any:
        return [await session.scalar(TENANT) for _ in range(2)]

    @app.get("/writing")
    async def writing(session: WriteSession) -> Any:
        session.add(Note(text="by a session"))
        before = await session.scalar(TENANT)
        await session.commit()
        return [before, await session.scalar(TENANT)]

    @app.get("/both")
    async def both(reading: ReadSession, writing: WriteSession) -> Any:
        return [await s.scalar(TENANT) for s in (reading, writing, reading, writing)]

    @app.get("/lanes")
    async def lanes(reader: Reader, writer: Writer, database: CurrentDatabase) -> Any:
        async with reader.stream(TENANT) as rows:
            streamed = [row.tenant async for row in rows]
        async with reader.snapshot() as moment:
            streamed.append(await moment.scalar(TENANT))
        await writer.execute_many(insert(Note), [{"text": "one"}, {"text": "two"}])
        await writer.copy_in(Note, [{"text": "three"}])
        return [
            *streamed,
            await reader.scalar(asked),
            await writer.scalar(WRITE, text="four"),
            await database.reader.scalar(TENANT),
            await database.writer.scalar(TENANT),
        ]

    @app.get("/database")
    async def opened(database: CurrentDatabase) -> Any:
        async with database.read() as session:
            read = await session.scalar(TENANT)
        async with database.write() as writing:
            return [read, await writing.scalar(TENANT)]

    @app.get("/at-once")
    async def at_once(reader: Reader) -> Any:
        return await asyncio.gather(*(reader.scalar(TENANT) for _ in range(5)))

    @app.get("/stream")
    async def stream(database: CurrentDatabase) -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            async with database.read() as session:
                yield str(await session.scalar(TENANT))

        return StreamingResponse(rows())

    @app.get("/explicit")
    async def explicit(database: CurrentDatabase, reader: Reader) -> Any:
        other = reader.with_context(settings={"app.person": "eve"})
        async with database.read(settings={"App.Tenant": "explicit"}) as session:
            told = await session.scalar(TENANT)
        return [told, await other.scalar(TENANT), await other.scalar(text("SHOW app.person"))]


ROUTES = ["/reading", "/writing", "/both", "/lanes", "/database", "/at-once"]


async def answer(app: FastAPI, path: str, tenant: str | None = None) -> Any:
    headers = {} if tenant is None else {"x-tenant": tenant}
    async with client_of(app) as client:
        response = await client.get(path, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def fail(app: FastAPI, path: str) -> None:
    """Raise what the application raises."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        await client.get(path)


@pytest.mark.parametrize("path", ROUTES)
async def test_everything_runs_under_it_and_nothing_after_the_request(
    app: FastAPI, tenants: Tenants, lone: Database, path: str
) -> None:
    for number, tenant in enumerate(("red", "blue"), 1):
        async with lone.engine.begin() as connection:
            await connection.execute(text("DELETE FROM notes"))
        assert set(await answer(app, path, tenant)) == {tenant}
        assert len(tenants.requests) == number
        assert isinstance(tenants.requests[-1], Request)
        assert await lone.reader.scalar(TENANT) == ""
        assert lone.pool.snapshot().checked_out == 0


async def test_a_request_that_uses_no_database_does_not_ask(app: FastAPI, tenants: Tenants) -> None:
    await answer(app, "/nothing")
    await answer(app, "/health/ready")

    assert tenants.requests == []


async def test_a_stream_of_the_response_and_a_background_task_belong_to_the_request(
    app: FastAPI, tenants: Tenants, lone: Database
) -> None:
    found: list[Any] = []
    begun: list[asyncio.Task[None]] = []

    @app.get("/later")
    async def later(tasks: BackgroundTasks, session: ReadSession) -> None:
        async def task() -> None:
            found.append(await lone.reader.scalar(TENANT))
            async with lone.write() as writing:
                found.append(await writing.scalar(TENANT))

        await session.scalar(TENANT)

        async def begin_another() -> None:
            begun.append(asyncio.create_task(task()))

        tasks.add_task(task)
        tasks.add_task(begin_another)

    async with client_of(app) as client:
        assert (await client.get("/later", headers={"x-tenant": "red"})).status_code == 200
        assert (await client.get("/stream", headers={"x-tenant": "blue"})).text == "blue"
        await eventually(lambda: len(found) == 4)

    assert found == ["red"] * 4
    assert len(tenants.requests) == 2


async def test_explicit_settings_override_it_by_name_and_lose_nothing(app: FastAPI) -> None:
    assert await answer(app, "/explicit", "red") == ["explicit", "red", "eve"]


async def test_it_is_asked_when_a_dependency_has_said_who_it_is(lone: Database) -> None:
    app = FastAPI()
    install(
        app,
        lone,
        session_context=lambda request: SessionContext(
            settings={"app.tenant": request.state.user + request.path_params["name"]}
        ),
    )

    async def authenticated(request: Request) -> None:
        request.state.user = "eve"

    @app.get("/of/{name}")
    async def of(
        session: WriteSession, user: Annotated[None, Depends(authenticated)]
    ) -> str | None:
        return str(await session.scalar(TENANT))

    assert await answer(app, "/of/red") == "evered"


async def test_what_it_raises_answers_and_nothing_is_sent(lone: Database) -> None:
    def refuse(_: Request) -> SessionContext:
        raise HTTPException(401, "who are you?")

    app = FastAPI()
    install(app, lone, session_context=refuse)
    add_routes(app)
    async with client_of(app) as client:
        for path in ROUTES:
            response = await client.get(path)
            assert (response.status_code, response.json()) == (401, {"detail": "who are you?"})
    assert lone.pool.snapshot().opened_total == 0


def _always(context: SessionContext | None, _: Request) -> SessionContext | None:
    return context


async def test_none_and_an_empty_one_are_no_context(lone: Database) -> None:
    for context in (None, SessionContext()):
        app = FastAPI()
        install(app, lone, session_context=partial(_always, context))
        add_routes(app)
        assert await answer(app, "/database") == ["", ""]


@pytest.mark.parametrize("returned", [{"settings": {"app.tenant": "7"}}, "7", 7, ("a", "b")])
async def test_anything_else_is_refused(lone: Database, returned: object) -> None:
    app = FastAPI()
    install(app, lone, session_context=lambda _: returned)  # type: ignore[arg-type, return-value]
    add_routes(app)

    with pytest.raises(ContextError, match=f"returned a {type(returned).__name__}"):
        await fail(app, "/reading")


async def test_it_may_look_the_tenant_up_in_the_same_database(lone: Database) -> None:
    async def look_up(_: Request) -> SessionContext:
        tenant = await lone.reader.scalar(text("SELECT 'found'"))
        async with lone.read() as session:
            assert await session.scalar(TENANT) == ""
        return SessionContext(settings={"app.tenant": tenant})

    app = FastAPI()
    install(app, lone, session_context=look_up)
    add_routes(app)
    async with lone.engine.begin() as connection:
        await connection.execute(text("DELETE FROM notes"))

    for path in ("/reading", "/database", "/lanes"):
        assert set(await answer(app, path)) == {"found"}


async def test_it_does_not_wait_for_itself(lone: Database) -> None:
    async def ask_the_requests_session(request: Request) -> SessionContext:
        tenant = await request.state.session.scalar(TENANT)
        return SessionContext(settings={"app.tenant": tenant})

    app = FastAPI()
    install(app, lone, session_context=ask_the_requests_session)

    @app.get("/")
    async def route(session: ReadSession, request: Request) -> None:
        request.state.session = session
        await session.scalar(TENANT)

    with pytest.raises(ContextError, match="session_context"):
        await fail(app, "/")


async def test_a_first_use_that_is_cancelled_leaves_it_to_the_next(
    lone: Database, tables: str
) -> None:
    tenants = AsyncTenants()
    app = FastAPI()
    install(app, lone, session_context=tenants)

    @app.get("/")
    async def route(reader: Reader) -> Any:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.scalar(TENANT), 0.001)
        return await reader.scalar(TENANT)

    assert await answer(app, "/", "red") == "red"
    assert len(tenants.requests) == 2


async def test_requests_side_by_side_have_their_own(database: Database) -> None:
    app = FastAPI()
    install(app, database, session_context=AsyncTenants())
    add_routes(app)
    names = [f"tenant-{number}" for number in range(30)]

    async with client_of(app) as client:
        answers = await asyncio.gather(
            *(
                client.get(path, headers={"x-tenant": name})
                for name in names
                for path in ("/reading", "/database", "/at-once")
            )
        )
    assert [set(a.json()) for a in answers] == [{name} for name in names for _ in range(3)]


async def test_a_websocket_has_one_for_its_connection(
    app: FastAPI, tenants: Tenants, lone: Database
) -> None:
    @app.websocket("/ws")
    async def talk(socket: WebSocket, reader: Reader) -> None:
        await socket.accept()
        async with lone.read() as session:
            told = await session.scalar(TENANT)
        await socket.send_text(f"{told} {await reader.scalar(TENANT)}")

    async with (
        serving(app) as url,
        websockets.connect(
            url.replace("http", "ws") + "/ws", additional_headers={"x-tenant": "red"}
        ) as socket,
    ):
        assert await socket.recv() == "red red"
    assert [type(request) for request in tenants.requests] == [HTTPConnection]


async def test_a_mounted_application_has_its_own_or_that_of_the_outer_one(
    lone: Database, database: Database
) -> None:
    def context(name: str) -> Tenants:
        return Tenants(lambda _: SessionContext(settings={"app.tenant": name}))

    outer, inner = FastAPI(), FastAPI()
    install(outer, lone, session_context=context("outer"))
    install(outer, database, name="other", session_context=context("outer's other"))
    install(inner, lone, session_context=context("inner"))

    for app in (outer, inner):

        @app.get("/who")
        async def who(session: ReadSession) -> list[str]:
            told = [await lone.reader.scalar(TENANT), await database.reader.scalar(TENANT)]
            return [await session.scalar(TENANT), *told]

    outer.mount("/inner", inner)
    assert await answer(outer, "/who") == ["outer", "outer", "outer's other"]
    assert await answer(outer, "/inner/who") == ["inner", "inner", "outer's other"]


async def test_what_is_required_is_an_error_of_the_request_that_lacks_it(tables: str) -> None:
    async with Database.from_url(
        tables, environment="testing", requires_context=("app.tenant",)
    ) as database:
        app = FastAPI()
        install(
            app,
            database,
            session_context=Tenants(
                lambda request: SessionContext(
                    settings={"app.tenant": t} if (t := request.headers.get("x-tenant")) else {}
                )
            ),
        )
        add_routes(app)
        for path in ROUTES:
            with pytest.raises(ContextRequired):
                await fail(app, path)
        assert await answer(app, "/reading", "red") == ["red", "red"]
        assert (await answer(app, "/health/ready"))["status"] == "ok"


async def test_in_undone_no_request_has_that_of_the_one_before(
    app: FastAPI, lone: Database
) -> None:
    async with client_of(app) as client, rollback_after(lone):
        for tenant in ("red", "blue"):
            for path in ("/reading", "/both", "/database"):
                answered = await client.get(path, headers={"x-tenant": tenant})
                assert set(answered.json()) == {tenant}
                assert await lone.reader.scalar(TENANT) == ""


async def test_a_dependency_may_set_it_as_on_sqlalchemys_own_sessions(database: Database) -> None:
    app = FastAPI()
    install(app, database)

    async def tenant(reading: ReadSession, writing: WriteSession, request: Request) -> None:
        values = {"tenant": request.headers["x-tenant"]}
        for session in (reading, writing):
            await session.execute(text("SELECT set_config('app.tenant', :tenant, true)"), values)

    @app.get("/", dependencies=[Depends(tenant)])
    async def route(reading: ReadSession, writing: WriteSession) -> Any:
        return [await writing.scalar(TENANT), await reading.scalar(TENANT)]

    assert await answer(app, "/", "red") == ["red", "red"]
    assert await database.reader.scalar(TENANT) == ""


async def test_a_middleware_of_the_application_has_it_as_well(
    lone: Database, tenants: Tenants
) -> None:
    seen: list[Any] = []

    class Looking:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                seen.append(await lone.reader.scalar(TENANT))
            await self.app(scope, receive, send)

    app = FastAPI()
    app.add_middleware(Looking)
    install(app, lone, session_context=tenants)
    add_routes(app)

    assert await answer(app, "/reading", "red") == ["red", "red"]
    assert seen == ["red"]
    assert len(tenants.requests) == 1


def test_install_refuses_what_is_no_function_and_databases_that_know_no_context() -> None:
    postgres = Database.from_url("postgresql://nobody@localhost/nothing")
    with pytest.raises(PenstockError, match=r"session_context=\.\.\.\) takes a function"):
        install(FastAPI(), postgres, session_context=SessionContext())  # type: ignore[arg-type]
    for url in ("sqlite://", "mysql+asyncmy://nobody@localhost/nothing"):
        app = FastAPI()
        with pytest.raises(ContextError, match="PostgreSQL only"):
            install(app, Database.from_url(url), session_context=Tenants())
        assert not hasattr(app.state, "penstock")
