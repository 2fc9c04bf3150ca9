"""A stream that its client left gives its connection back, without the garbage collector."""

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.exc import ResourceClosedError
from tests.eventually import eventually
from tests.integration.fastapi.notes import Onlooker
from tests.servers.web import client_of, serving

from penstock import Database
from penstock.errors import SessionClosed
from penstock.express import ExpressError
from penstock.fastapi import CurrentDatabase, ReadSession, install

ROW = "x" * 4096
SOME = text(f"SELECT repeat('x', {len(ROW)}) FROM generate_series(1, 20)")
MANY = text(f"SELECT repeat('x', {len(ROW)}) FROM generate_series(1, 20000)")
"""Far more than the buffers of two sockets hold."""

Export = Callable[[Database, Any], AsyncGenerator[str, None]]


async def session_stream(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async with database.read() as session:
        async for row in await session.stream(rows):
            yield row[0]


async def session_read(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async with database.read() as session:
        for row in await session.execute(rows):
            yield row[0]


async def writing_session(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async with database.write() as session:
        await session.execute(text("INSERT INTO notes (text) VALUES ('half')"))
        for row in await session.execute(rows):
            yield row[0]
        raise RuntimeError("nothing of it is kept")


async def express_stream(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async with database.reader.stream(rows) as results:
        async for row in results:
            yield row[0]


async def express_plain_loop(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async for row in database.reader.stream(rows):
        yield row[0]


async def express_snapshot(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async with database.reader.snapshot() as snapshot:
        for row in await snapshot.all(rows):
            yield row[0]


async def stream_in_a_snapshot(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async with database.reader.snapshot() as snapshot, snapshot.stream(rows) as results:
        async for row in results:
            yield row[0]


async def nested_generators(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async for _ in express_plain_loop(database, rows):
        break
    async for row in session_stream(database, rows):
        yield row


async def two_at_once(database: Database, rows: Any) -> AsyncGenerator[str, None]:
    async with database.read() as session, database.reader.stream(rows) as results:
        await session.execute(text("SELECT 1"))
        async for row in results:
            yield row[0]


EXPORTS: list[Export] = [
    session_stream,
    session_read,
    writing_session,
    express_stream,
    express_plain_loop,
    express_snapshot,
    stream_in_a_snapshot,
    nested_generators,
    two_at_once,
]


async def _after_its_last_row(source: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    async for row in source:
        yield row
    await asyncio.sleep(3600)


def by_name(value: Any) -> str | None:
    """Name a case by its function."""
    return getattr(value, "__name__", None)


@pytest.fixture(autouse=True)
def collector_off() -> Iterator[None]:
    """No collection comes to help, also when ``install`` has set the collector up."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.fixture
async def pool(tables: str) -> AsyncIterator[Database]:
    """A pool of five connections, with little patience."""
    database = Database.from_url(
        tables, environment="testing", pool_size=5, max_overflow=0, pool_timeout=2, slow_query=None
    )
    yield database
    await database.close()


def _application(database: Database, export: Export, middlewares: int) -> FastAPI:
    app = FastAPI()
    install(app, database)
    for _ in range(middlewares):
        app.middleware("http")(lambda request, call_next: call_next(request))

    @app.get("/many")
    async def many(database: CurrentDatabase) -> StreamingResponse:
        return StreamingResponse(export(database, MANY))

    @app.get("/some")
    async def some(database: CurrentDatabase) -> StreamingResponse:
        return StreamingResponse(_after_its_last_row(export(database, SOME)))

    @app.get("/one")
    async def one(session: ReadSession) -> int:
        return int(await session.scalar(text("SELECT 1")))

    return app


async def _leave(base_url: str, path: str, after: int) -> int:
    """Ask by a socket, take some bytes of the answer, and close it; return how many came."""
    address = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    await writer.drain()
    taken = 0
    async with asyncio.timeout(20):
        while taken < after and (part := await reader.read(after - taken)):
            taken += len(part)
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return taken


async def _is_idle(database: Database, onlooker: Onlooker) -> None:
    """Wait until nothing is checked out, and the server has nothing open either."""
    await eventually(lambda: database.pool.snapshot().checked_out == 0)
    async with asyncio.timeout(10):
        while await onlooker.backends() != await onlooker.backends("idle"):  # noqa: ASYNC110 - as there
            await asyncio.sleep(0.005)


async def _is_found_ended(
    database: Database, onlooker: Onlooker, caplog: pytest.LogCaptureFixture
) -> None:
    """Let the collector find the generators while others hold all connections."""
    caplog.clear()
    gc.collect()
    async with (
        database.read() as first,
        database.read() as second,
        database.write() as third,
        database.reader.snapshot() as fourth,
        database.reader.snapshot() as fifth,
    ):
        lanes: list[Any] = [first, second, third, fourth, fifth]
        for lane in lanes:
            await lane.scalar(text("SELECT 1"))
        gc.collect()
        for _ in range(20):
            await asyncio.sleep(0)
        for lane in lanes:
            assert await lane.scalar(text("SELECT 2")) == 2
    await _is_idle(database, onlooker)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


LEAVING = {
    "before the first byte": ("/many", 0),
    "with the first byte": ("/many", 1),
    "in the middle": ("/many", 300_000),
    "after the last row": ("/some", 20 * len(ROW)),
}


@pytest.mark.parametrize("export", EXPORTS, ids=by_name)
async def test_a_stream_that_its_client_left_gives_its_connection_back(
    pool: Database, onlooker: Onlooker, caplog: pytest.LogCaptureFixture, export: Export
) -> None:
    for middlewares in (0, 1, 2):
        async with serving(_application(pool, export, middlewares)) as base_url:
            for path, taken in LEAVING.values():
                await asyncio.gather(*(_leave(base_url, path, taken) for _ in range(2)))
                await _is_idle(pool, onlooker)
            await _is_found_ended(pool, onlooker, caplog)

    assert await onlooker.texts() == []


@pytest.mark.parametrize("export", [session_stream, express_stream], ids=by_name)
async def test_two_hundred_clients_that_leave_exhaust_no_pool_of_five(
    pool: Database, onlooker: Onlooker, export: Export
) -> None:
    places = asyncio.Semaphore(5)
    statuses: list[int] = []

    async with (
        serving(_application(pool, export, 1)) as base_url,
        httpx.AsyncClient(base_url=base_url, timeout=30, trust_env=False) as client,
    ):

        async def one() -> None:
            async with places:
                await _leave(base_url, "/many", 4096)
                statuses.append((await client.get("/one")).status_code)

        await asyncio.gather(*(one() for _ in range(200)))
        await _is_idle(pool, onlooker)

    assert statuses == [200] * 200


async def _call(app: FastAPI, path: str, receive: Any, send: Any) -> None:
    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [],
            "client": ("test", 1),
            "server": ("test", 80),
        },
        receive,
        send,
    )


@pytest.mark.parametrize("middlewares", [0, 1])
@pytest.mark.parametrize("export", EXPORTS, ids=by_name)
async def test_a_request_that_is_cancelled_gives_its_connection_back(
    pool: Database,
    onlooker: Onlooker,
    caplog: pytest.LogCaptureFixture,
    export: Export,
    middlewares: int,
) -> None:
    app = _application(pool, export, middlewares)
    begun = asyncio.Event()
    requested = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return requested.pop() if requested else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            begun.set()
            await asyncio.Event().wait()

    request = asyncio.create_task(_call(app, "/many", receive, send))
    await begun.wait()
    request.cancel()
    with suppress(asyncio.CancelledError):
        await request

    await _is_idle(pool, onlooker)
    await _is_found_ended(pool, onlooker, caplog)
    assert await onlooker.texts() == []


@pytest.mark.parametrize("export", EXPORTS, ids=by_name)
async def test_a_generator_that_raises_gives_its_connection_back(
    pool: Database, onlooker: Onlooker, export: Export
) -> None:
    async def failing(database: Database, rows: Any) -> AsyncGenerator[str, None]:
        async for row in export(database, rows):
            yield row
            raise RuntimeError("in the middle of it")

    for middlewares in (0, 1):
        async with client_of(_application(pool, failing, middlewares)) as client:
            with suppress(httpx.RemoteProtocolError):
                await client.get("/many")
            await _is_idle(pool, onlooker)

    assert await onlooker.texts() == []


@pytest.mark.parametrize("export", EXPORTS, ids=by_name)
async def test_what_a_route_leaves_unread_ends_with_its_request(
    pool: Database, onlooker: Onlooker, caplog: pytest.LogCaptureFixture, export: Export
) -> None:
    app = _application(pool, export, 0)
    kept: list[Any] = []

    @app.get("/first")
    async def first(database: CurrentDatabase) -> int:
        async for row in (source := export(database, MANY)):
            kept.append(source)  # as a reference cycle would
            return len(row)
        return 0

    async with client_of(app) as client:
        assert (await client.get("/first")).json() == len(ROW)
        await _is_idle(pool, onlooker)
        kept.clear()
        await _is_found_ended(pool, onlooker, caplog)


@pytest.mark.parametrize("export", EXPORTS, ids=by_name)
async def test_a_websocket_ends_what_it_left_unread(
    pool: Database, onlooker: Onlooker, caplog: pytest.LogCaptureFixture, export: Export
) -> None:
    app = _application(pool, export, 1)
    kept: list[Any] = []

    @app.websocket("/ws")
    async def talk(socket: WebSocket, database: CurrentDatabase) -> None:
        await socket.accept()
        async for row in (source := export(database, MANY)):
            kept.append(source)
            await socket.send_text(row)
            break
        await socket.close()

    async with serving(app) as base_url:
        async with websockets.connect(base_url.replace("http", "ws") + "/ws") as socket:
            assert await socket.recv() == ROW
        await _is_idle(pool, onlooker)
        kept.clear()
        await _is_found_ended(pool, onlooker, caplog)


@pytest.mark.parametrize("export", EXPORTS, ids=by_name)
async def test_a_task_of_its_own_keeps_its_stream_beyond_the_request(
    pool: Database, onlooker: Onlooker, export: Export
) -> None:
    app = _application(pool, export, 1)
    go_on, tasks = asyncio.Event(), []

    async def count(source: AsyncIterator[str]) -> int:
        rows = 0
        with suppress(RuntimeError):  # of the one that writes
            async for _ in source:
                rows += 1
                if rows == 1:
                    await go_on.wait()
        return rows

    @app.get("/started")
    async def started(database: CurrentDatabase) -> None:
        tasks.append(asyncio.create_task(count(export(database, SOME))))

    async with client_of(app) as client:
        await client.get("/started")
        await eventually(lambda: pool.pool.snapshot().checked_out > 0)
        assert (await client.get("/one")).status_code == 200
        assert pool.pool.snapshot().checked_out > 0
        go_on.set()
        assert await tasks[0] == 20

    await _is_idle(pool, onlooker)


@pytest.mark.parametrize("way", ["read", "write", "snapshot"])
async def test_what_was_handed_to_a_task_stays_open(pool: Database, way: str) -> None:
    app = FastAPI()
    install(app, pool)
    go_on, tasks = asyncio.Event(), []

    async def work(block: Any, lane: Any) -> Any:
        first = await lane.scalar(text("SELECT pg_backend_pid()"))
        await go_on.wait()
        second = await lane.scalar(text("SELECT pg_backend_pid()"))
        await block.__aexit__(None, None, None)
        return first == second

    @app.get("/handed")
    async def handed(database: CurrentDatabase) -> None:
        block = getattr(database.reader if way == "snapshot" else database, way)()
        lane = await block.__aenter__()
        tasks.append(asyncio.create_task(work(block, lane)))

    async with client_of(app) as client:
        assert (await client.get("/handed")).status_code == 200
        assert pool.pool.snapshot().checked_out == 1
        go_on.set()
        assert await tasks[0]

    assert pool.pool.snapshot().checked_out == 0


@pytest.mark.parametrize("rows", [SOME, MANY], ids=["all fetched", "more to fetch"])
@pytest.mark.parametrize("export", EXPORTS, ids=by_name)
async def test_a_generator_that_is_resumed_after_its_request_touches_no_ones_connection(
    pool: Database, onlooker: Onlooker, export: Export, rows: Any
) -> None:
    app = FastAPI()
    install(app, pool)
    kept: list[AsyncGenerator[str, None]] = []

    @app.get("/first")
    async def first(database: CurrentDatabase) -> None:
        kept.append(export(database, rows))
        await anext(kept[0])

    async with client_of(app) as client:
        await client.get("/first")
        async with pool.write() as other, pool.write() as another:
            for session in (other, another):
                await session.execute(text("SELECT 1"))
            with suppress(SessionClosed, ResourceClosedError, ExpressError, RuntimeError):
                async for _ in kept[0]:
                    pass
            for session in (other, another):
                await session.execute(text("INSERT INTO notes (text) VALUES (gen_random_uuid())"))

    assert len(await onlooker.texts()) == 2
    assert await onlooker.backends("idle in transaction") == 0


@pytest.mark.parametrize("scalars", [False, True])
@pytest.mark.parametrize("way", ["read", "write"])
async def test_rows_that_outlive_their_session_touch_no_ones_connection(
    lone: Database, onlooker: Onlooker, way: str, scalars: bool
) -> None:
    block: Any = getattr(lone, way)()

    async with lone:
        async with block as session:
            rows: Any = await session.stream(MANY)
            rows = rows.scalars() if scalars else rows
            await anext(rows)
        async with lone.write() as other:
            await other.execute(text("INSERT INTO notes (text) VALUES ('kept')"))
            with pytest.raises(ResourceClosedError):
                await rows.all()

    assert await onlooker.texts() == ["kept"]


async def test_a_body_of_the_requests_own_stream_touches_no_ones_connection(
    lone: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, lone)

    @app.get("/")
    async def route(session: ReadSession, database: CurrentDatabase) -> StreamingResponse:
        rows = await session.stream(MANY)

        async def body() -> AsyncGenerator[str, None]:
            async with database.write() as other:
                await other.execute(text("INSERT INTO notes (text) VALUES ('kept')"))
                with pytest.raises(ResourceClosedError):
                    await rows.all()
            yield "refused"

        return StreamingResponse(body())

    async with client_of(app) as client:
        assert (await client.get("/")).text == "refused"

    assert await onlooker.texts() == ["kept"]
