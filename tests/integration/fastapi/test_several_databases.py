"""Two databases in one application."""

from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.errors import PenstockError
from penstock.fastapi import WriteSession, install, write_session


async def test_two_databases_are_both_committed_or_neither_when_a_flush_fails(
    database: Database, onlooker: Onlooker, tables: str, app: FastAPI
) -> None:
    other = Database.from_url(tables, environment="testing", pool_size=1, max_overflow=0)
    install(app, other, name="other")
    await onlooker.execute("INSERT INTO notes (text) VALUES ('taken')")

    @app.post("/notes/{text}")
    async def create(
        text: str,
        session: WriteSession,
        second: Annotated[AsyncSession, Depends(write_session("other"))],
    ) -> None:
        session.add(Note(text=f"{text} in the first"))
        second.add(Note(text=text))

    async with client_of(app) as client:
        assert (await client.post("/notes/free")).status_code == 200
        assert (await client.post("/notes/taken")).status_code == 409

    assert sorted(await onlooker.texts()) == ["free", "free in the first", "taken"]


async def test_a_database_that_is_not_installed_is_named(app: FastAPI) -> None:
    @app.get("/")
    async def route(session: Annotated[AsyncSession, Depends(write_session("ledger"))]) -> None:
        """Never reached."""

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://service"
    ) as client:
        with pytest.raises(PenstockError, match=r"named 'ledger'.*installed: default"):
            await client.get("/")
