"""What clients are told of database errors, and what they are not."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from tests.integration.fastapi.notes import Note, Onlooker, out_of_service
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import ReadSession, WriteSession, install


async def test_exhaustion_is_a_503_with_retry_after(lone: Database) -> None:
    app = FastAPI()
    install(app, lone)
    held, release = asyncio.Event(), asyncio.Event()

    @app.get("/hold")
    async def hold(session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))
        held.set()
        await release.wait()

    @app.get("/ask")
    async def ask(session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))

    async with client_of(app) as client:
        holding = asyncio.create_task(client.get("/hold"))
        await held.wait()
        answer = await client.get("/ask")
        release.set()
        assert (await holding).status_code == 200
        assert (await client.get("/ask")).status_code == 200

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "pool_exhausted"


async def test_a_duplicate_is_a_409_that_tells_nothing_of_the_table(
    app: FastAPI, onlooker: Onlooker
) -> None:
    await onlooker.execute("INSERT INTO notes (text) VALUES ('secret value')")

    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="secret value"))
        await session.flush()

    async with client_of(app) as client:
        answer = await client.post("/notes")

    assert answer.status_code == 409
    assert answer.json() == {
        "title": "Conflict",
        "status": 409,
        "code": "unique_violation",
        "detail": "The request contradicts data that is already stored.",
    }


async def test_no_row_is_a_404(app: FastAPI) -> None:
    @app.get("/get_one")
    async def get_one(session: ReadSession) -> str:
        return (await session.get_one(Note, 1)).text

    @app.get("/one")
    async def one(session: ReadSession) -> str:
        return (await session.scalars(select(Note.text))).one()

    async with client_of(app) as client:
        for path in ("/get_one", "/one"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_deadlock_is_a_503_that_invites_another_try(
    app: FastAPI, onlooker: Onlooker
) -> None:
    await onlooker.execute("INSERT INTO notes (id, text) VALUES (1, 'a'), (2, 'b')")
    both = asyncio.Barrier(2)

    @app.post("/swap/{first}/{second}")
    async def swap(first: int, second: int, session: WriteSession) -> None:
        lock = select(Note).with_for_update()
        await session.execute(lock.where(Note.id == first))
        await both.wait()
        await session.execute(lock.where(Note.id == second))

    async with client_of(app) as client:
        answers = await asyncio.gather(client.post("/swap/1/2"), client.post("/swap/2/1"))

    codes = {answer.status_code: answer for answer in answers}
    assert set(codes) == {200, 503}
    assert codes[503].json()["code"] == "transaction_conflict"
    assert codes[503].headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM no_such_table", "SELECT 'secret value'::int", "SELECT 1/0"],
)
async def test_any_other_database_error_is_a_500_without_its_text(
    app: FastAPI, statement: str
) -> None:
    @app.get("/")
    async def ask(session: ReadSession) -> None:
        await session.execute(text(statement))

    async with client_of(app) as client:
        answer = await client.get("/")

    assert answer.status_code == 500
    assert answer.text == "Internal Server Error"


async def test_errors_in_a_mounted_application_are_answered_alike(app: FastAPI) -> None:
    inner = FastAPI()
    app.mount("/inner", inner)

    @inner.get("/")
    async def ask(session: ReadSession) -> str:
        return (await session.get_one(Note, 1)).text

    async with client_of(app) as client:
        assert (await client.get("/inner/")).json()["code"] == "not_found"


async def test_a_database_that_goes_away_is_a_503_until_it_is_back(
    app: FastAPI, database: Database, tables: str
) -> None:
    @app.get("/")
    async def ask(session: ReadSession) -> Any:
        return await session.scalar(text("SELECT 1"))

    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 200
        await database.close()
        async with out_of_service(tables):
            answer = await client.get("/")
            assert answer.status_code == 503
            assert answer.json()["code"] == "database_unavailable"
            assert answer.headers["retry-after"] == "5"
        assert (await client.get("/")).status_code == 200
