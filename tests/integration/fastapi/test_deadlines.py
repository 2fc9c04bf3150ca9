"""How long a request may take: its statements' limit, and the deadline that its caller sends."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import websockets
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import event, insert, text
from tests.eventually import eventually
from tests.integration.engine.engines import with_driver
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of, serving

from penstock import Database, PenstockError, SessionContext
from penstock.errors import DeadlineExceeded, StatementTimeout
from penstock.fastapi import (
    CurrentDatabase,
    Reader,
    ReadSession,
    Writer,
    WriteSession,
    install,
    statement_timeout,
)

HEADER = "X-Request-Timeout"
SLEEP = text("SELECT CAST(pg_sleep(60) AS text)")
SLOW_INSERT = text("INSERT INTO notes (text) SELECT 'slow' FROM pg_sleep(60)")
SHOW = text("SHOW statement_timeout")


@pytest.fixture(params=["asyncpg", "psycopg"])
def each(request: pytest.FixtureRequest, tables: str) -> Database:
    """A pool of two connections, of each driver."""
    url = with_driver(tables, request.param)
    return Database.from_url(url, environment="testing", pool_size=2, max_overflow=0)


def add_slow_routes(app: FastAPI) -> list[str]:
    @app.post("/session-read")
    async def session_read(session: ReadSession) -> None:
        await session.execute(SLEEP)

    @app.post("/session-write")
    async def session_write(session: WriteSession) -> None:
        await session.execute(insert(Note).values(text="before"))
        await session.execute(SLOW_INSERT)

    @app.post("/express-read")
    async def express_read(reader: Reader) -> None:
        await reader.all(SLEEP)

    @app.post("/express-write")
    async def express_write(writer: Writer) -> None:
        await writer.execute(SLOW_INSERT)

    @app.post("/own-session")
    async def own_session(database: CurrentDatabase) -> None:
        async with database.write() as session:
            await session.execute(SLOW_INSERT)

    @app.post("/snapshot")
    async def snapshot(reader: Reader) -> None:
        async with reader.snapshot() as moment:
            await moment.all(SLEEP)

    @app.post("/stream")
    async def stream(reader: Reader) -> None:
        async with reader.stream(SLEEP) as rows:
            async for _ in rows:
                pass

    return [route.path for route in app.routes if "POST" in getattr(route, "methods", ())]  # type: ignore[attr-defined]


LIMITS: dict[str, tuple[dict[str, Any], dict[str, str], tuple[int, str, str | None]]] = {
    "the statements'": ({"statement_timeout": 0.3}, {}, (503, "statement_timeout", None)),
    "the caller's": (
        {"deadline_header": HEADER},
        {HEADER: "0.3"},
        (504, "deadline_exceeded", None),
    ),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_what_takes_too_long_is_answered_and_undone(
    each: Database, onlooker: Onlooker, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.deadlines.ANSWER_SHARE", 0.5)
    monkeypatch.setattr("penstock.deadlines.ANSWER_TIME", 10.0)
    arguments, headers, expected = LIMITS[limit]
    app = FastAPI()
    install(app, each, **arguments)
    paths = add_slow_routes(app)

    async with client_of(app) as client:
        answers = {path: await client.post(path, headers=headers) for path in paths}
        found = {
            path: (answer.status_code, answer.json()["code"], answer.headers.get("retry-after"))
            for path, answer in answers.items()
        }
        assert each.pool.snapshot().checked_out == 0
        assert await onlooker.backends("idle in transaction") == 0

    assert found == dict.fromkeys(paths, expected)
    assert await onlooker.texts() == []


async def test_a_read_that_takes_too_long_leaves_the_transaction_that_it_shares(
    database: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, database, statement_timeout=0.2)
    raised: list[Exception] = []

    @app.post("/")
    async def work(session: WriteSession, reader: Reader) -> str:
        session.add(Note(text="kept"))
        await session.flush()
        try:
            await reader.all(SLEEP)
        except StatementTimeout as error:
            raised.append(error)
        return str(await session.scalar(SHOW))

    async with client_of(app) as client:
        answer = await client.post("/")

    assert (answer.status_code, answer.json()) == (200, "200ms")
    assert "statement_timeout=0.2 s" in str(raised[0])
    assert await onlooker.texts() == ["kept"]


async def test_a_role_and_settings_go_with_the_limit(each: Database) -> None:
    app = FastAPI()
    context = SessionContext(settings={"app.tenant": "7"})
    install(app, each, statement_timeout=4, session_context=lambda _: context)
    asked = text(
        "SELECT current_setting('app.tenant') || ', ' || current_setting($$statement_timeout$$)"
    )

    @app.get("/")
    async def ask(session: ReadSession, reader: Reader, writer: Writer) -> list[str]:
        return [await each.scalar(asked) for each in (reader, writer, session, reader)]

    async with client_of(app) as client:
        assert (await client.get("/")).json() == ["7, 4s"] * 4
        assert (await client.get("/")).json() == ["7, 4s"] * 4


async def test_requests_without_patience_fill_no_log(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    install(app, database, deadline_header=HEADER)

    @app.get("/")
    async def ask(session: ReadSession) -> None:
        await session.scalar(text("SELECT 1"))

    async with client_of(app) as client:
        for _ in range(50):
            assert (await client.get("/", headers={HEADER: "0"})).status_code == 504

    lines = [each for each in caplog.records if "deadline_exceeded" in each.getMessage()]
    assert 0 < len(lines) < 50
    assert all(each.exc_info is None for each in lines)


async def test_the_route_counts_more_than_its_router_and_that_more_than_install(
    each: Database,
) -> None:
    app = FastAPI()
    install(app, each, statement_timeout=4)
    router = APIRouter(dependencies=[Depends(statement_timeout(3))])

    async def shown(session: ReadSession, reader: Reader, database: CurrentDatabase) -> list[str]:
        async with database.write() as own:
            return [
                await session.scalar(SHOW),
                await reader.scalar(SHOW),
                await own.scalar(SHOW),
            ]

    app.get("/install")(shown)
    router.get("/router")(shown)
    router.get("/route", dependencies=[Depends(statement_timeout(0.5))])(shown)
    router.get("/none", dependencies=[Depends(statement_timeout(None))])(shown)
    app.include_router(router)

    async with client_of(app) as client:
        found = {}
        for _ in range(2):  # what one request has set, the next does not find
            for path in ("/install", "/router", "/route", "/none"):
                found[path] = (await client.get(path)).json()

    own = "1min" if each.settings.driver == "psycopg" else "0"
    assert found == {
        "/install": ["4s"] * 3,
        "/router": ["3s"] * 3,
        "/route": ["500ms"] * 3,
        "/none": [own] * 3,
    }


IGNORED = ["", "soon", "nan", "inf", "e3", "0x10", "1_0", "+1", "1,5", "1, 2", "1e", "1s", "."]
OVER = ["0", "-1", "0.0", "-0", "-1e-05", "-0.30000000000000004", "0e5"]
CAPPED = [
    "5",
    "6",
    "999999999",
    "7.5",
    "9" * 40,
    "1e3",
    "5.30000000000000004",
    str(2.0**70),
    "1e999",
]


@pytest.fixture
def asked(database: Database) -> tuple[FastAPI, list[str]]:
    """An application that takes deadlines of at most five seconds, and what its statements had."""
    app, shown = FastAPI(), list[str]()
    install(app, database, deadline_header=HEADER, deadline_limit=5)

    @app.get("/")
    async def ask(reader: Reader) -> None:
        shown.append(await reader.scalar(SHOW))

    return app, shown


async def test_a_deadline_that_cannot_be_read_is_none(asked: tuple[FastAPI, list[str]]) -> None:
    app, shown = asked
    async with client_of(app) as client:
        for value in (*(each.encode() for each in IGNORED), "\N{ARABIC-INDIC DIGIT ONE}".encode()):
            answer = await client.get("/", headers=[(HEADER.encode(), value)])
            assert answer.status_code == 200
    assert set(shown) == {"0"}


async def test_a_deadline_that_is_over_is_answered_before_anything_is_sent(
    asked: tuple[FastAPI, list[str]], database: Database
) -> None:
    lent: list[Any] = []
    app, shown = asked
    async with client_of(app) as client:
        event.listen(database.engine.sync_engine.pool, "checkout", lambda *_: lent.append(1))
        for value in OVER:
            assert (await client.get("/", headers={HEADER: value})).status_code == 504
    assert shown == lent == []


async def test_a_deadline_is_cut_to_what_the_service_allows(
    asked: tuple[FastAPI, list[str]],
) -> None:
    app, shown = asked
    async with client_of(app) as client:
        for value in CAPPED:
            assert (await client.get("/", headers={HEADER: value})).status_code == 200
    assert all(4000 < int(each.removesuffix("ms")) <= 4950 for each in shown), shown


async def test_of_several_deadlines_the_first_counts(asked: tuple[FastAPI, list[str]]) -> None:
    app, _ = asked
    async with client_of(app) as client:
        headers = [(HEADER, "0"), (HEADER.lower(), "5")]
        assert (await client.get("/", headers=headers)).status_code == 504


async def test_waiting_for_a_connection_is_part_of_the_time(lone: Database) -> None:
    app = FastAPI()
    install(app, lone, deadline_header=HEADER, statement_timeout=0.5)
    held, release = asyncio.Event(), asyncio.Event()

    @app.get("/hold")
    async def hold(session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))
        held.set()
        await release.wait()

    @app.get("/session")
    async def ask(session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))

    @app.get("/express")
    async def ask_express(reader: Reader) -> None:
        await reader.scalar(text("SELECT 1"))

    async with client_of(app) as client:
        holding = asyncio.create_task(client.get("/hold"))
        await held.wait()
        found = {
            (path, seconds): await client.get(path, headers={HEADER: seconds})
            for path in ("/session", "/express")
            for seconds in ("0.1", "5")
        }
        release.set()
        assert (await holding).status_code == 200

    assert {
        asked: (answer.status_code, answer.json()["code"], answer.headers.get("retry-after"))
        for asked, answer in found.items()
    } == {
        ("/session", "0.1"): (504, "deadline_exceeded", None),
        ("/express", "0.1"): (504, "deadline_exceeded", None),
        ("/session", "5"): (503, "pool_exhausted", "1"),
        ("/express", "5"): (503, "pool_exhausted", "1"),
    }


async def test_a_request_whose_deadline_is_over_is_not_committed(
    database: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, database, deadline_header=HEADER)
    raised: list[Exception] = []

    @app.post("/")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="late"))
        await session.flush()
        await asyncio.sleep(0.3)

    @app.post("/rolled-back")
    async def roll_back(session: WriteSession) -> None:
        session.add(Note(text="late"))
        await session.flush()
        await asyncio.sleep(0.3)
        await session.rollback()  # no less wanted when the time is up
        try:
            await session.execute(text("SELECT 1"))
        except DeadlineExceeded as error:
            raised.append(error)

    async with client_of(app) as client:
        answer = await client.post("/", headers={HEADER: "0.2"})
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert (await client.post("/rolled-back", headers={HEADER: "0.2"})).status_code == 200

    assert await onlooker.texts() == []
    assert f"{HEADER}: 0.2" in str(raised[0])


async def test_what_goes_on_after_the_response_is_bounded_by_nothing_of_the_request(
    database: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, database, deadline_header=HEADER, statement_timeout=0.5)
    shown: dict[str, str] = {}

    async def later(kind: str) -> None:
        await asyncio.sleep(0.3)
        async with database.write() as session:
            shown[kind] = await session.scalar(SHOW)
        shown[f"{kind}, express"] = await database.reader.scalar(SHOW)

    @app.get("/task")
    async def task(reader: Reader, tasks: BackgroundTasks) -> None:
        await reader.scalar(text("SELECT 1"))
        tasks.add_task(later, "a background task")
        running.append(asyncio.create_task(later("a task of its own")))

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> Any:
            await later("a stream")
            yield "done"

        return StreamingResponse(body())

    running: list[asyncio.Task[None]] = []
    async with client_of(app) as client:
        for path in ("/task", "/stream"):
            assert (await client.get(path, headers={HEADER: "0.2"})).status_code == 200
        await asyncio.gather(*running)
        await eventually(lambda: len(shown) == 6)

    assert set(shown.values()) == {"0"}


async def test_a_websocket_route_may_limit_its_statements(database: Database) -> None:
    app = FastAPI()
    install(app, database, statement_timeout=9)

    async def shown(websocket: WebSocket, database: CurrentDatabase) -> None:
        await websocket.accept()
        async with database.read() as session:
            await websocket.send_text(await session.scalar(SHOW))

    app.websocket("/limited", dependencies=[Depends(statement_timeout(2))])(shown)
    app.websocket("/other")(shown)
    found = {}
    async with serving(app) as base_url:
        for path in ("/limited", "/other"):
            async with websockets.connect(base_url.replace("http", "ws") + path) as socket:
                found[path] = await socket.recv()
    assert found == {"/limited": "2s", "/other": "0"}


SERVERS: dict[str, tuple[str, tuple[int, str, str | None]]] = {
    "lock": (
        "SET LOCAL lock_timeout = 100; SELECT pg_advisory_xact_lock(1)",
        (503, "lock_timeout", "1"),
    ),
    "idle": (
        "SET LOCAL idle_in_transaction_session_timeout = 50",
        (503, "transaction_timeout", None),
    ),
    "statement": (
        "SET LOCAL statement_timeout = 50; " + str(SLEEP),
        (503, "statement_timeout", None),
    ),
}


@pytest.mark.parametrize("limit", SERVERS)
async def test_what_the_server_ends_is_answered(
    each: Database, onlooker: Onlooker, limit: str
) -> None:
    statements, expected = SERVERS[limit]
    await onlooker.execute("SELECT pg_advisory_lock(1)")
    app = FastAPI()
    install(app, each)

    @app.post("/")
    async def work(session: WriteSession) -> None:
        for statement in statements.split("; "):
            await session.execute(text(statement))
        await asyncio.sleep(0.3)

    async with client_of(app) as client:
        answer = await client.post("/")
        assert (await client.post("/")).status_code == 503
        assert each.pool.snapshot().checked_out == 0

    found = (answer.status_code, answer.json()["code"], answer.headers.get("retry-after"))
    assert found == expected


REFUSED: dict[str, Callable[[FastAPI, Database], object]] = {
    "statement_timeout=0": lambda app, database: install(app, database, statement_timeout=0),
    "statement_timeout=True": lambda app, database: install(app, database, statement_timeout=True),
    "nan": lambda app, database: install(app, database, statement_timeout=float("nan")),
    "deadline_limit=-1": lambda app, database: install(app, database, deadline_limit=-1),
    "deadline_header": lambda app, database: install(app, database, deadline_header="a b"),
    "empty": lambda app, database: install(app, database, deadline_header=""),
    "of a route": lambda app, database: statement_timeout("1"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("refused", REFUSED)
def test_limits_that_mean_nothing_are_refused(refused: str) -> None:
    database = Database.from_url("sqlite:///:memory:")
    with pytest.raises(PenstockError, match=r"accepted"):
        REFUSED[refused](FastAPI(), database)
