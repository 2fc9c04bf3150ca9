"""Read-only sessions: refused by type, by the object, and in the end by the server."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.errors import ReadOnlyError
from penstock.fastapi import ReadSession, WriteSession, install

WRITES_IN_DISGUISE = [
    "INSERT INTO notes (text) VALUES ('x')",
    "WITH written AS (INSERT INTO notes (text) VALUES ('x') RETURNING id) SELECT id FROM written",
    "SELECT setval('notes_id_seq', 1)",
    "SELECT id FROM notes FOR UPDATE",
    "CREATE TABLE sneaked (id int)",
]


@pytest.mark.parametrize("statement", WRITES_IN_DISGUISE)
async def test_the_server_refuses_a_write_however_it_is_disguised(
    database: Database, onlooker: Onlooker, statement: str
) -> None:
    async with database.read() as session:
        with pytest.raises(DBAPIError) as refusal:
            await session.execute(text(statement))

    assert getattr(refusal.value.orig, "sqlstate", None) == "25006"
    assert await onlooker.texts() == []


@pytest.mark.parametrize("statement", WRITES_IN_DISGUISE)
async def test_the_server_refuses_it_inside_the_requests_open_write_transaction_too(
    lone: Database, onlooker: Onlooker, statement: str
) -> None:
    unit = lone.unit()
    unit.writer.add(Note(text="of the writer"))
    await unit.writer.flush()
    with pytest.raises(DBAPIError) as refusal:
        await unit.reader.execute(text(statement))
    unit.writer.add(Note(text="of the writer, later"))
    await unit.commit()
    await unit.end("the test is over")

    assert getattr(refusal.value.orig, "sqlstate", None) == "25006"
    assert await onlooker.texts() == ["of the writer", "of the writer, later"]


@pytest.mark.parametrize("method", ["add", "delete", "merge", "flush", "commit", "add_all"])
async def test_writing_methods_refuse_at_once(database: Database, method: str) -> None:
    async with database.read() as session:
        with pytest.raises(ReadOnlyError, match=r"database\.write\(\)"):
            getattr(session, method)(Note(text="x"))


async def test_a_change_to_an_object_that_was_only_read_is_not_lost_silently(
    app: FastAPI, onlooker: Onlooker
) -> None:
    await onlooker.execute("INSERT INTO notes (text) VALUES ('original')")

    @app.post("/rename")
    async def rename(session: ReadSession) -> None:
        note = (await session.scalars(select(Note))).one()
        note.text = "renamed"

    async with client_of(app) as client:
        assert (await client.post("/rename")).status_code == 500

    assert await onlooker.texts() == ["original"]


async def test_an_expunged_object_may_be_changed(database: Database, onlooker: Onlooker) -> None:
    await onlooker.execute("INSERT INTO notes (text) VALUES ('original')")

    async with database.read() as session:
        note = (await session.scalars(select(Note))).one()
        session.expunge(note)
        note.text = "for display"

    assert await onlooker.texts() == ["original"]


async def test_reading_then_writing_needs_one_connection(
    lone: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, lone)

    @app.post("/notes")
    async def create(reader: ReadSession, writer: WriteSession) -> list[Any]:
        before = (await reader.scalars(select(Note.text))).all()
        writer.add(Note(text="one"))
        await writer.flush()
        during = (await reader.scalars(select(Note.text))).all()
        writer.add(Note(text="two"))
        await writer.flush()
        after = (await reader.scalars(select(Note.text).order_by(Note.id))).all()
        return [before, during, after]

    async with client_of(app) as client:
        answer = await client.post("/notes")

    assert answer.json() == [[], ["one"], ["one", "two"]]
    assert await onlooker.texts() == ["one", "two"]


async def test_reading_and_writing_at_the_same_time_needs_one_connection(
    lone: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, lone)

    @app.post("/notes")
    async def create(reader: ReadSession, writer: WriteSession) -> list[int | None]:
        writer.add(Note(text="kept"))
        count, _ = await asyncio.gather(
            reader.scalar(text("SELECT 1 FROM pg_sleep(0.1)")), writer.flush()
        )
        return [count, await reader.scalar(text("SELECT 2"))]

    async with client_of(app) as client:
        assert (await client.post("/notes")).json() == [1, 2]

    assert await onlooker.texts() == ["kept"]


async def test_a_failed_read_does_not_spoil_the_writers_transaction(
    lone: Database, onlooker: Onlooker
) -> None:
    unit = lone.unit()
    with pytest.raises(DBAPIError):
        await unit.reader.execute(text("SELECT 1/0"))
    unit.writer.add(Note(text="kept"))
    await unit.writer.flush()
    with pytest.raises(DBAPIError):
        await unit.reader.execute(text("SELECT 1/0"))
    await unit.commit()
    await unit.end("the test is over")

    assert await onlooker.texts() == ["kept"]


async def test_a_connection_that_read_only_can_write_afterwards(
    lone: Database, onlooker: Onlooker
) -> None:
    async with lone.read() as session:
        await session.execute(text("SELECT 1"))
    async with lone.write() as session:
        await session.execute(insert(Note).values(text="kept"))

    assert await onlooker.texts() == ["kept"]


async def test_an_open_stream_keeps_its_connection_while_the_request_writes(
    database: Database, onlooker: Onlooker
) -> None:
    await onlooker.execute("INSERT INTO notes (text) SELECT g::text FROM generate_series(1, 500) g")
    unit = database.unit()
    copied = 0
    async for (note,) in await unit.reader.stream(select(Note.text)):
        unit.writer.add(Note(text=f"copy of {note}"))
        await unit.writer.flush()
        copied += 1
    await unit.commit()
    await unit.end("the test is over")

    assert copied == 500
    assert len(await onlooker.texts()) == 1000
