"""Blocks of ``begin()`` and ``begin_nested()`` in a route: they flush and commit as it does."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.database import UnitOfWork
from penstock.errors import SessionClosed
from penstock.fastapi import ReadSession, WriteSession, install

Writes = Callable[[AsyncSession], Awaitable[None]]


async def _in_a_transaction(session: AsyncSession) -> None:
    async with session.begin():
        session.add(Note(text="kept"))


async def _in_a_savepoint(session: AsyncSession) -> None:
    async with session.begin_nested():
        session.add(Note(text="kept"))


async def _before_a_savepoint(session: AsyncSession) -> None:
    session.add(Note(text="kept"))
    async with session.begin_nested():
        pass


async def _by_hand(session: AsyncSession) -> None:
    transaction = await session.begin()
    session.add(Note(text="kept"))
    await transaction.commit()


@pytest.mark.parametrize(
    "writes", [_in_a_transaction, _in_a_savepoint, _before_a_savepoint, _by_hand]
)
async def test_reading_and_then_writing_in_a_block_needs_one_connection(
    lone: Database, onlooker: Onlooker, writes: Writes
) -> None:
    app = FastAPI()
    install(app, lone)

    @app.post("/notes")
    async def create(reader: ReadSession, writer: WriteSession) -> list[str]:
        assert (await reader.scalars(select(Note.text))).all() == []
        await writes(writer)
        return list((await reader.scalars(select(Note.text))).all())

    async with client_of(app) as client:
        answer = await client.post("/notes")

    assert answer.json() == ["kept"]
    assert await onlooker.texts() == ["kept"]
    assert lone.pool.snapshot().checked_out == 0


async def test_a_read_amid_a_block_sees_what_was_flushed_there(
    lone: Database, onlooker: Onlooker
) -> None:
    app = FastAPI()
    install(app, lone)

    @app.post("/notes")
    async def create(reader: ReadSession, writer: WriteSession) -> list[str]:
        async with writer.begin_nested() as savepoint:
            writer.add(Note(text="undone"))
            await writer.flush()
            seen = list((await reader.scalars(select(Note.text))).all())
            await savepoint.rollback()
        writer.add(Note(text="kept"))
        return seen

    async with client_of(app) as client:
        assert (await client.post("/notes")).json() == ["undone"]

    assert await onlooker.texts() == ["kept"]


async def test_a_block_does_not_commit_what_another_answer_has_undone(
    database: Database, onlooker: Onlooker
) -> None:
    with pytest.raises(SessionClosed, match="left"):
        await _end_amid_a_block(database.unit())

    assert await onlooker.texts() == []


async def test_a_cancellation_leaves_a_block_as_one(database: Database) -> None:
    with pytest.raises(asyncio.CancelledError):
        await _end_amid_a_block(database.unit(), asyncio.CancelledError())


async def _end_amid_a_block(unit: UnitOfWork, error: BaseException | None = None) -> None:
    async with unit.writer.begin():
        unit.writer.add(Note(text="too late"))
        await unit.end("its response (504) left")
        if error is not None:
            raise error
