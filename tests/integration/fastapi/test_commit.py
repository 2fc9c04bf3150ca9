"""The transaction is over, one way or the other, before the client hears of the response."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.exc import IntegrityError
from starlette.requests import Request
from tests.integration.fastapi.notes import Note, Onlooker, Reply
from tests.servers.web import client_of

from penstock.fastapi import ReadSession, WriteSession


async def test_a_write_is_committed_when_the_response_starts(
    app: FastAPI, onlooker: Onlooker
) -> None:
    seen: list[list[str]] = []

    @app.post("/notes", status_code=201)
    async def create(session: WriteSession) -> None:
        session.add(Note(text="kept"))

    async with client_of(_looking(app, onlooker, seen)) as client:
        response = await client.post("/notes")

    assert response.status_code == 201
    assert seen == [["kept"]]


def _looking(app: FastAPI, onlooker: Onlooker, seen: list[list[str]]) -> Any:
    """Look at the table at the very moment when a response's first message leaves ``app``."""

    async def looking(scope: Any, receive: Any, send: Any) -> None:
        async def looking_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.append(await onlooker.texts())
            await send(message)

        await app(scope, receive, looking_send)

    return looking


async def test_a_reader_that_asks_right_after_the_answer_finds_the_row(app: FastAPI) -> None:
    @app.post("/notes", status_code=201)
    async def create(session: WriteSession) -> int:
        session.add(note := Note(text="kept"))
        await session.flush()
        return note.id

    @app.get("/notes/{note_id}")
    async def get(note_id: int, session: ReadSession) -> str:
        return (await session.get_one(Note, note_id)).text

    async with client_of(app) as client:
        created = await client.post("/notes")
        found = await client.get(f"/notes/{created.json()}")

    assert found.json() == "kept"


async def test_a_commit_that_fails_is_an_error_response(app: FastAPI, onlooker: Onlooker) -> None:
    @app.post("/replies", status_code=201)
    async def create(session: WriteSession) -> dict[str, str]:
        session.add(Reply(note_id=404))
        session.add(Note(text="lost with it"))
        await session.flush()
        return {"status": "created"}

    async with client_of(app) as client:
        response = await client.post("/replies")

    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "foreign_key_violation"
    assert "replies" not in response.text
    assert await onlooker.texts() == []
    assert await onlooker.backends("idle in transaction") == 0


async def test_a_withdrawn_response_keeps_the_headers_of_middleware_and_loses_its_own(
    app: FastAPI,
) -> None:
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])

    @app.post("/replies")
    async def create(session: WriteSession, response: Response) -> str:
        session.add(Reply(note_id=404))
        response.set_cookie("login", "granted")
        response.headers["Cache-Control"] = "max-age=60"
        return "a body of quite another length"

    async with client_of(app) as client:
        answer = await client.post("/replies", headers={"Origin": "https://shop.example"})

    assert answer.status_code == 409
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "x-process-time" in answer.headers
    assert "set-cookie" not in answer.headers
    assert "cache-control" not in answer.headers
    assert answer.headers.get_list("content-length") == [str(len(answer.content))]


async def test_an_own_handler_answers_a_failed_commit_too(app: FastAPI) -> None:
    @app.exception_handler(IntegrityError)
    async def teapot(request: Request, error: IntegrityError) -> Response:
        return JSONResponse({"mine": request.url.path}, status_code=418)

    @app.post("/replies")
    async def create(session: WriteSession) -> None:
        session.add(Reply(note_id=404))

    async with client_of(app) as client:
        answer = await client.post("/replies")

    assert (answer.status_code, answer.json()) == (418, {"mine": "/replies"})


async def test_background_tasks_of_a_withdrawn_response_do_not_run(app: FastAPI) -> None:
    ran: list[str] = []

    @app.post("/replies")
    async def create(session: WriteSession, tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, "a mail about something that does not exist")
        session.add(Reply(note_id=404))

    async with client_of(app) as client:
        assert (await client.post("/replies")).status_code == 409

    assert ran == []


async def test_a_commit_whose_answer_is_lost_says_that_the_outcome_is_unknown(
    app: FastAPI, onlooker: Onlooker
) -> None:
    await onlooker.execute(_TERMINATE_SELF_AT_COMMIT)

    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="who knows"))

    async with client_of(app) as client:
        answer = await client.post("/notes")

    assert answer.status_code == 503
    assert answer.json()["code"] == "commit_outcome_unknown"
    assert "retry-after" not in answer.headers


_TERMINATE_SELF_AT_COMMIT = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT ON notes
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()
"""


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 503])
async def test_a_returned_error_response_rolls_back(
    app: FastAPI, onlooker: Onlooker, status: int
) -> None:
    @app.post("/notes")
    async def create(session: WriteSession) -> Response:
        session.add(Note(text="refused"))
        await session.flush()
        return JSONResponse({"why": "so"}, status_code=status)

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == status

    assert await onlooker.texts() == []
    assert await onlooker.backends("idle in transaction") == 0


async def test_a_raised_http_exception_rolls_back(app: FastAPI, onlooker: Onlooker) -> None:
    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="refused"))
        await session.flush()
        raise HTTPException(403)

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == 403

    assert await onlooker.texts() == []


async def test_an_unexpected_error_rolls_back(app: FastAPI, onlooker: Onlooker) -> None:
    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="refused"))
        await session.flush()
        raise RuntimeError("a bug")

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == 500
        assert await onlooker.backends("idle in transaction") == 0

    assert await onlooker.texts() == []


@pytest.mark.parametrize("status", [200, 201, 204, 303])
async def test_success_and_redirection_commit(
    app: FastAPI, onlooker: Onlooker, status: int
) -> None:
    @app.post("/notes")
    async def create(session: WriteSession) -> Response:
        session.add(Note(text="kept"))
        if status == 303:
            return RedirectResponse("/elsewhere", status_code=status)
        return Response(status_code=status)

    async with client_of(app) as client:
        assert (await client.post("/notes")).status_code == status

    assert await onlooker.texts() == ["kept"]


async def test_every_dependency_of_a_request_gets_the_same_session(app: FastAPI) -> None:
    sessions: list[Any] = []

    async def audit(session: WriteSession) -> None:
        sessions.append(session)

    @app.post("/notes")
    async def create(session: WriteSession, _: Annotated[None, Depends(audit)]) -> None:
        sessions.append(session)

    async with client_of(app) as client:
        await asyncio.gather(client.post("/notes"), client.post("/notes"))

    assert len(sessions) == 4
    assert len(set(map(id, sessions))) == 2


# Starlette 0.38 leaves the stream between the two to the garbage collector when a response
# is not sent to its end, as when a client leaves.
@pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")
async def test_middleware_that_relays_the_response_changes_none_of_it(
    app: FastAPI, onlooker: Onlooker
) -> None:
    ran: list[str] = []
    seen: list[list[str]] = []

    @app.middleware("http")
    async def relay(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers["X-Relayed"] = "yes"
        return response

    @app.post("/notes")
    async def create(session: WriteSession, tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, "note")
        session.add(Note(text="kept"))

    @app.post("/replies")
    async def reply(session: WriteSession, tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, "reply")
        session.add(Reply(note_id=404))

    async with client_of(_looking(app, onlooker, seen)) as client:
        created = await client.post("/notes")
        refused = await client.post("/replies")

    gc.collect()
    assert (created.status_code, created.headers["x-relayed"]) == (200, "yes")
    assert (refused.status_code, refused.headers["x-relayed"]) == (409, "yes")
    assert seen == [["kept"], ["kept"]]
    assert ran == ["note"]
