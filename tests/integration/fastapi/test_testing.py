"""What Penstock gives to the tests of those who use it."""

import subprocess
import sys

import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import ReadSession, WriteSession
from penstock.testing import rollback_after, simulate_exhausted


@pytest.fixture
def notes_app(app: FastAPI) -> FastAPI:
    @app.post("/notes/{word}", status_code=201)
    async def create(word: str, session: WriteSession) -> None:
        session.add(Note(text=word))

    @app.get("/notes")
    async def read(session: ReadSession) -> list[str]:
        return list(await session.scalars(select(Note.text).order_by(Note.id)))

    return app


async def test_what_is_written_is_seen_within_the_block_and_undone_at_its_end(
    notes_app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    async with client_of(notes_app) as client, rollback_after(database):
        assert (await client.post("/notes/one")).status_code == 201
        assert (await client.post("/notes/one")).status_code == 409
        async with database.write() as session:
            session.add(Note(text="two"))
        assert (await client.get("/notes")).json() == ["one", "two"]
        assert await onlooker.texts() == []

    assert await onlooker.texts() == []
    assert database.pool.snapshot().checked_out == 0


async def test_the_database_is_itself_again_after_the_block(
    notes_app: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    async with client_of(notes_app) as client:
        async with rollback_after(database):
            await client.post("/notes/lost")
        await client.post("/notes/kept")

    assert await onlooker.texts() == ["kept"]


async def test_reading_stays_read_only_within_the_block(database: Database) -> None:
    async with rollback_after(database), database.read() as session:
        with pytest.raises(Exception, match="read-only transaction"):
            await session.execute(text("INSERT INTO notes (text) VALUES ('x')"))


@pytest.mark.parametrize("isolated", [True, False])
async def test_a_pool_that_looks_exhausted_answers_503_and_recovers(
    notes_app: FastAPI, database: Database, isolated: bool
) -> None:
    async with client_of(notes_app) as client:
        if isolated:
            async with rollback_after(database):
                with simulate_exhausted(database):
                    assert (await client.get("/notes")).status_code == 503
                assert (await client.get("/notes")).status_code == 200
        with simulate_exhausted(database):
            answer = await client.get("/notes")
            with pytest.raises(PoolTimeoutError):
                async with database.read() as session:
                    await session.execute(text("SELECT 1"))
        assert answer.headers["retry-after"] == "1"
        assert (await client.get("/notes")).status_code == 200

    assert database.pool.snapshot().checked_out == 0


def test_a_test_client_is_entered_or_told_so(database_url: str) -> None:
    # In a process of its own: the loop of a client that is not entered ends with sockets open.
    command = [sys.executable, "-m", "tests.integration.fastapi.entered", database_url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[:2] == ["[1, 1]", "[1, 1]"]
    assert "`with TestClient(app)`" in run.stdout.splitlines()[2]
