"""A route passes over a statement's error: what the server has given up is not called a success."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from tests.integration.engine.engines import with_driver
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import WriteSession

_FAILS = text("SELECT 1 / 0")


async def _by_the_session(session: AsyncSession) -> None:
    with contextlib.suppress(DBAPIError):
        await session.execute(_FAILS)


async def _by_its_connection(session: AsyncSession) -> None:
    connection = await session.connection()
    with contextlib.suppress(DBAPIError):
        await connection.execute(_FAILS)


async def _amid_other_work(session: AsyncSession) -> None:
    def work(connection: Connection) -> None:
        with contextlib.suppress(DBAPIError):
            connection.execute(_FAILS)

    await (await session.connection()).run_sync(work)


async def _in_a_savepoint(session: AsyncSession) -> None:
    with contextlib.suppress(DBAPIError):
        async with session.begin_nested():
            await session.execute(_FAILS)


async def _before_it_is_sent(session: AsyncSession) -> None:
    with contextlib.suppress(DBAPIError):
        await session.execute(text("SELECT CAST(:number AS integer)"), {"number": "no number"})


Fails = Callable[[AsyncSession], Awaitable[None]]


@pytest.mark.parametrize("fails", [_by_the_session, _by_its_connection, _amid_other_work])
async def test_a_transaction_that_the_server_has_given_up_is_no_success(
    app: FastAPI, onlooker: Onlooker, fails: Fails
) -> None:
    answer = await _create(app, fails)

    assert answer.status_code == 500
    assert await onlooker.texts() == []


@pytest.mark.parametrize("fails", [_in_a_savepoint, _before_it_is_sent])
async def test_what_was_undone_to_a_savepoint_or_never_sent_spoils_nothing(
    app: FastAPI, onlooker: Onlooker, fails: Fails
) -> None:
    answer = await _create(app, fails)

    assert answer.status_code == 200
    assert await onlooker.texts() == ["kept, or so it seems"]


async def _create(app: FastAPI, fails: Fails) -> Any:
    @app.post("/notes")
    async def create(session: WriteSession) -> None:
        session.add(Note(text="kept, or so it seems"))
        await session.flush()
        await fails(session)

    async with client_of(app) as client:
        return await client.post("/notes")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_neither_an_own_commit_nor_a_block_takes_it_for_one(
    tables: str, onlooker: Onlooker, driver: str
) -> None:
    async with Database.from_url(with_driver(tables, driver), environment="testing") as database:
        with pytest.raises(DBAPIError, match="transaction is aborted"):
            await _write(database)
        async with database.write() as session:
            with pytest.raises(DBAPIError, match="transaction is aborted"):
                async with session.begin():
                    await _by_the_session(session)
            session.add(Note(text="of the next transaction"))
            await session.commit()

    assert await onlooker.texts() == ["of the next transaction"]


async def _write(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(text="gone"))
        await session.flush()
        await _by_the_session(session)
