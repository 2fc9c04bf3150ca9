"""``install`` beside everything else that an application has."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from sqlalchemy import text
from tests.integration.fastapi.notes import Note, Onlooker, out_of_service
from tests.servers.web import client_of, serving
from tests.told import advised, numbers

from penstock import Database
from penstock.fastapi import ReadSession, WriteSession, install, read_session
from penstock.fastapi.request_sessions import request_sessions_of
from penstock.fastapi.routes import OperationsRoute


async def test_the_database_is_open_throughout_the_applications_own_lifespan(
    database: Database,
) -> None:
    told: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        async with database.read() as session:
            told.append(await session.scalar(text("SELECT 'start'")))
        yield {"greeting": "hello"}
        async with database.read() as session:
            told.append(await session.scalar(text("SELECT 'end'")))

    app = FastAPI(lifespan=lifespan)
    install(app, database)

    async with serving(app):
        assert told == ["start"]

    assert told == ["start", "end"]
    assert database.pool.snapshot().checked_in == 0


async def test_routers_and_mounted_applications_share_the_requests_session(
    app: FastAPI, onlooker: Onlooker
) -> None:
    router, inner = APIRouter(), FastAPI()
    for place in (router, inner):

        @place.post("/{word}")
        async def create(word: str, session: WriteSession) -> None:
            session.add(Note(text=word))

    app.include_router(router, prefix="/router")
    app.mount("/mounted", inner)

    async with client_of(app) as client:
        for path in ("/router/one", "/mounted/two"):
            assert (await client.post(path)).status_code == 200

    assert await onlooker.texts() == ["one", "two"]


async def test_a_mounted_application_may_have_a_database_of_its_own(
    app: FastAPI, tables: str, onlooker: Onlooker
) -> None:
    own = Database.from_url(tables, environment="testing", application_name="of the mounted one")
    inner = FastAPI()
    install(inner, own, routes=False)
    app.mount("/inner", inner)

    @inner.post("/")
    async def create(session: WriteSession) -> str:
        session.add(Note(text="inside"))
        name: str = await session.scalar(text("SHOW application_name"))
        return name

    async with client_of(app) as client:
        assert (await client.post("/inner/")).json() == "of the mounted one"

    assert await onlooker.texts() == ["inside"]
    await own.close()


async def test_a_mounted_application_keeps_its_database_though_the_outer_one_was_used_before(
    app: FastAPI, tables: str
) -> None:
    own = Database.from_url(tables, environment="testing", application_name="of the mounted one")
    inner = FastAPI()
    install(inner, own, routes=False)
    app.mount("/inner", inner)

    @app.middleware("http")
    async def authenticate(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        await request_sessions_of(request.scope).unit("default").reader.scalar(text("SELECT 1"))
        return await call_next(request)

    @inner.get("/")
    async def name(session: WriteSession) -> str:
        found: str = await session.scalar(text("SHOW application_name"))
        return found

    async with client_of(app) as client:
        assert (await client.get("/inner/")).json() == "of the mounted one"
    await own.close()


async def test_a_start_without_a_database_fails_with_its_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = FastAPI()
    install(app, Database.from_url("postgresql://u:hunter2@127.0.0.1:1/none"))

    with pytest.raises(RuntimeError):
        async with serving(app):
            """Never reached."""

    log = capsys.readouterr().err
    assert "ConnectFailed" in log
    assert "hunter2" not in log


async def test_a_budget_that_cannot_be_kept_warns_or_refuses(
    tables: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy: dict[str, Any] = {
        "workers": 100,
        "pool_size": 20,
        "max_overflow": 30,
        "environment": "testing",
    }
    async with Database.from_url(tables, **greedy):
        assert {"100", "20", "30", "5000"} <= set(numbers(caplog.text))
        assert "max_connections" in advised(caplog.text)

    app = FastAPI()
    install(app, Database.from_url(tables, budget="refuse", **greedy))
    with pytest.raises(RuntimeError):
        async with serving(app):
            """Never reached."""

    assert "BudgetExceeded" in capsys.readouterr().err


async def test_health_says_ready_only_while_the_database_answers(app: FastAPI, tables: str) -> None:
    async with client_of(app) as client:
        assert (await client.get("/health/ready")).json()["status"] == "ok"
        async with out_of_service(tables):
            for path in ("/health/ready", "/health"):
                answer = await client.get(path)
                assert answer.status_code == 503
                assert answer.json() == {
                    "status": "unavailable",
                    "databases": {"default": "unavailable"},
                }
            assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200


async def test_pool_stats_are_right_on_a_fresh_pool_and_on_a_busy_one(
    app: FastAPI, database: Database
) -> None:
    @app.get("/busy")
    async def busy(session: ReadSession) -> float:
        await session.execute(text("SELECT 1"))
        return database.pool.snapshot().utilisation

    assert database.pool.snapshot().utilisation == 0.0
    async with client_of(app) as client:
        assert (await client.get("/busy")).json() == 0.5
        stats = await client.get("/pool-stats")
        assert stats.json() == {
            "default": {
                "size": 2,
                "limit": 2,
                "checked_in": 1,
                "checked_out": 0,
                "overflow": 0,
                "opening": 0,
                "invalid": 0,
                "waiting": 0,
                "suspended": False,
                "closed": False,
                "opened_total": 1,
                "closed_total": 0,
                "open_failures_total": 0,
                "rejected_total": 0,
                "utilisation": 0.0,
            }
        }
        assert '"size":2,' in stats.text


async def test_production_shows_the_pool_only_to_those_who_have_access(tables: str) -> None:
    closed, guarded = FastAPI(), FastAPI()
    small: dict[str, Any] = {"environment": "production", "pool_size": 1, "max_overflow": 0}

    async def access(token: str = "") -> None:
        if token != "right":
            raise HTTPException(401)

    install(closed, Database.from_url(tables, **small))
    install(guarded, Database.from_url(tables, **small), access=access)

    async with client_of(closed) as client:
        assert (await client.get("/pool-stats")).status_code == 404
        assert (await client.get("/health")).status_code == 200
    async with client_of(guarded) as client:
        assert (await client.get("/pool-stats")).status_code == 401
        assert (await client.get("/pool-stats?token=right")).status_code == 200
        assert (await client.get("/health/live")).status_code == 200


async def test_requests_of_the_application_never_come_by_the_operations_routes(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    matches = OperationsRoute.matches

    def noted(route: OperationsRoute, scope: Any) -> Any:
        asked.append(route.path)
        return matches(route, scope)

    monkeypatch.setattr(OperationsRoute, "matches", noted)

    @app.get("/words/{word}")
    async def read(word: str) -> str:
        return word

    async with client_of(app) as client:
        assert (await client.get("/words/one")).status_code == 200
        assert not asked
        assert (await client.get("/health/live")).json() == {"status": "ok"}
        assert asked


async def test_a_page_for_every_path_hides_no_operations_route(app: FastAPI) -> None:
    @app.get("/{path:path}")
    async def page(path: str) -> str:
        return path

    async with client_of(app) as client:
        assert (await client.get("/health/live")).json() == {"status": "ok"}
        assert (await client.get("/elsewhere")).json() == "elsewhere"


async def test_each_response_carries_its_process_time(app: FastAPI) -> None:
    async with client_of(app) as client:
        for path in ("/health/live", "/nowhere"):
            assert float((await client.get(path)).headers["x-process-time"]) > 0


async def test_the_log_has_the_pools_state_and_no_more_than_one_warning_a_minute(
    lone: Database, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    install(app, lone)
    caplog.set_level(logging.INFO, "penstock")

    @app.get("/busy/{word}")
    async def busy(word: str, session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))

    async with client_of(app) as client:
        await client.get("/busy/a%0Ab")
        await client.get("/busy/again")
        await client.get("/health/live")
        await client.get("/busy/later")

    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert numbers(warning)[:3] == ["1", "1", "100"]
    assert "GET /busy/a%0Ab 200 pool=default size=1" in caplog.text


async def test_a_dependency_may_authenticate_by_reading_before_the_route_writes(
    lone: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, lone)

    async def current_user(session: ReadSession) -> str:
        user: str = await session.scalar(text("SELECT 'ada'"))
        return user

    @app.post("/notes")
    async def create(user: Annotated[str, Depends(current_user)], session: WriteSession) -> None:
        session.add(Note(text=f"by {user}"))

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == 200

    assert await onlooker.texts() == ["by ada"]


async def test_a_session_can_be_overridden_as_any_dependency(app: FastAPI) -> None:
    @app.get("/")
    async def route(session: ReadSession) -> str:
        return str(session)

    app.dependency_overrides[read_session()] = lambda: "a stand-in"

    async with client_of(app) as client:
        assert (await client.get("/")).json() == "a stand-in"


@pytest.mark.parametrize("process_time", [True, False])
@pytest.mark.parametrize("request_log", [True, False])
async def test_the_header_and_the_line_of_each_request_can_be_turned_off(
    database_url: str, caplog: pytest.LogCaptureFixture, process_time: bool, request_log: bool
) -> None:
    caplog.set_level(logging.INFO, "penstock.fastapi.middleware")
    app = FastAPI()
    database = Database.from_url(database_url, environment="testing")
    install(app, database, process_time=process_time, request_log=request_log)

    async with client_of(app) as client:
        answer = await client.get("/health/live")

    assert ("x-process-time" in answer.headers) is process_time
    lines = [line for line in caplog.records if line.name == "penstock.fastapi.middleware"]
    assert bool(lines) is request_log


async def test_a_pool_that_is_merely_busy_is_ready_and_says_so(lone: Database) -> None:
    app = FastAPI()
    install(app, lone, readiness_timeout=0.2)
    held, release = asyncio.Event(), asyncio.Event()

    @app.get("/hold")
    async def hold(session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))
        held.set()
        await release.wait()

    async with client_of(app) as client:
        holding = asyncio.create_task(client.get("/hold"))
        await held.wait()
        busy = await client.get("/health/ready")
        release.set()
        await holding
        idle = await client.get("/health/ready")

    assert (busy.status_code, busy.json()) == (
        200,
        {"status": "ok", "databases": {"default": "busy"}},
    )
    assert (idle.status_code, idle.json()) == (
        200,
        {"status": "ok", "databases": {"default": "ok"}},
    )


@pytest.mark.parametrize("state", ["suspended", "closed"])
async def test_a_pool_that_lends_nothing_is_not_ready(lone: Database, state: str) -> None:
    app = FastAPI()
    install(app, lone, readiness_timeout=0.2)

    async with client_of(app) as client:
        pool: Any = lone.engine.pool
        if state == "suspended":
            pool.suspend()
        else:
            await pool.drain()
        answer = await client.get("/health/ready")
        if state == "suspended":
            pool.resume()

    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
