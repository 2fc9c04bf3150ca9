"""Streams, background tasks and WebSockets neither hold nor lose the request's transaction."""

from collections.abc import AsyncIterator

import pytest
import websockets
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from tests.eventually import eventually
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of, serving

from penstock import Database
from penstock.errors import SessionClosed
from penstock.fastapi import CurrentDatabase, ReadSession, WriteSession


async def test_a_stream_holds_no_connection_of_the_request(
    app: FastAPI, database: Database
) -> None:
    lent: list[int] = []

    @app.get("/stream")
    async def stream(session: ReadSession) -> StreamingResponse:
        await session.execute(text("SELECT 1"))
        lent.append(database.pool.snapshot().checked_out)

        async def body() -> AsyncIterator[str]:
            lent.append(database.pool.snapshot().checked_out)
            yield "done"

        return StreamingResponse(body())

    async with client_of(app) as client:
        assert (await client.get("/stream")).text == "done"

    assert lent == [1, 0]


async def test_a_stream_that_uses_the_requests_session_is_told_so(
    app: FastAPI, onlooker: Onlooker
) -> None:
    told: list[SessionClosed] = []

    @app.get("/stream")
    async def stream(session: ReadSession) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            try:
                await session.execute(text("SELECT 1"))
            except SessionClosed as error:
                told.append(error)
            yield "done"

        return StreamingResponse(body())

    async with client_of(app) as client:
        await client.get("/stream")
        assert await onlooker.backends("idle in transaction") == 0

    assert "response (200) left" in str(told[0])
    assert "database.read()" in str(told[0])


async def test_a_stream_reads_through_a_session_of_its_own(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    await onlooker.execute(
        "INSERT INTO notes (text) SELECT g::text FROM generate_series(1, 5000) g"
    )

    @app.get("/export")
    async def export(database: CurrentDatabase) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async with database.read() as session:
                notes = await session.stream_scalars(select(Note.text).order_by(Note.id))
                async for note in notes:
                    yield f"{note}\n"

        return StreamingResponse(body())

    async with client_of(app) as client:
        assert len((await client.get("/export")).text.split()) == 5000

    assert database.pool.snapshot().checked_out == 0


async def test_a_stream_whose_client_goes_away_returns_its_connection(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    @app.get("/export")
    async def export(database: CurrentDatabase) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            async with database.read() as session:
                rows = await session.stream(
                    text("SELECT repeat('x', 65536) FROM generate_series(1, 9999)")
                )
                async for row in rows:
                    yield row[0].encode()

        return StreamingResponse(body())

    async with client_of(app) as client:
        async with client.stream("GET", "/export") as response:
            async for _ in response.aiter_bytes():
                break
        await eventually(lambda: database.pool.snapshot().checked_out == 0)

    assert await onlooker.backends("active") == 0


async def test_a_background_task_runs_after_the_commit_and_holds_nothing(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    seen: list[tuple[list[str], int]] = []

    async def look() -> None:
        seen.append((await onlooker.texts(), database.pool.snapshot().checked_out))

    @app.post("/notes")
    async def create(session: WriteSession, tasks: BackgroundTasks) -> None:
        tasks.add_task(look)
        session.add(Note(text="kept"))

    async with client_of(app) as client:
        await client.post("/notes")

    assert seen == [(["kept"], 0)]


async def test_a_background_task_that_fails_undoes_nothing(
    app: FastAPI, onlooker: Onlooker
) -> None:
    async def fail() -> None:
        raise RuntimeError("the mail server is away")

    @app.post("/notes")
    async def create(session: WriteSession, tasks: BackgroundTasks) -> None:
        tasks.add_task(fail)
        session.add(Note(text="kept"))

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == 200

    assert await onlooker.texts() == ["kept"]


async def test_a_background_task_that_writes_by_the_requests_session_is_told_so(
    app: FastAPI, onlooker: Onlooker
) -> None:
    told: list[SessionClosed] = []

    @app.post("/notes")
    async def create(session: WriteSession, tasks: BackgroundTasks) -> None:
        async def write() -> None:
            for attempt in (lambda: session.add(Note(text="lost")), session.begin):
                with pytest.raises(SessionClosed) as refusal:
                    attempt()
                told.append(refusal.value)
            with pytest.raises(SessionClosed):
                await session.commit()

        tasks.add_task(write)
        session.add(Note(text="kept"))

    async with client_of(app) as client:
        await client.post("/notes")

    assert len(told) == 2
    assert await onlooker.texts() == ["kept"]
    assert await onlooker.backends("idle in transaction") == 0


async def test_a_background_task_writes_through_a_session_of_its_own(
    app: FastAPI, onlooker: Onlooker
) -> None:
    @app.post("/notes")
    async def create(database: CurrentDatabase, tasks: BackgroundTasks) -> None:
        async def write() -> None:
            async with database.write() as session:
                session.add(Note(text="from the task"))

        tasks.add_task(write)

    async with client_of(app) as client:
        await client.post("/notes")

    assert await onlooker.texts() == ["from the task"]


async def test_objects_of_the_request_can_be_read_after_the_commit(app: FastAPI) -> None:
    @app.post("/notes")
    async def create(session: WriteSession) -> StreamingResponse:
        session.add(note := Note(text="kept"))

        async def body() -> AsyncIterator[str]:
            yield f"{note.id > 0} {note.text}"

        return StreamingResponse(body())

    async with client_of(app) as client:
        assert (await client.post("/notes")).text == "True kept"


async def test_a_websocket_opens_a_session_for_each_message(
    app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    lent: list[int] = []

    @app.websocket("/ws")
    async def talk(socket: WebSocket, database: CurrentDatabase) -> None:
        await socket.accept()
        async for message in socket.iter_text():
            async with database.write() as session:
                session.add(Note(text=message))
            lent.append(database.pool.snapshot().checked_out)
            await socket.send_text(f"kept {message}")

    async with (
        serving(app) as base_url,
        websockets.connect(base_url.replace("http", "ws") + "/ws") as socket,
    ):
        for word in ("one", "two"):
            await socket.send(word)
            assert await socket.recv() == f"kept {word}"

    assert await onlooker.texts() == ["one", "two"]
    assert lent == [0, 0]


async def test_a_websocket_is_not_given_a_session_for_its_whole_life(app: FastAPI) -> None:
    refusals: list[str] = []

    @app.exception_handler(SessionClosed)
    async def note_down(socket: WebSocket, error: SessionClosed) -> None:
        refusals.append(str(error))
        await socket.close(1011)

    @app.websocket("/ws")
    async def talk(socket: WebSocket, session: WriteSession) -> None:
        await socket.accept()

    async with serving(app) as base_url:
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(base_url.replace("http", "ws") + "/ws")

    assert "async with database.write()" in refusals[0]
