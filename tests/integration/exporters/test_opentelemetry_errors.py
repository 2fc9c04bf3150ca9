"""Statements that fail: what their spans say of it, and what they do not say."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import StatusCode
from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.exc import IntegrityError
from tests.integration.exporters.otel_recording import Recording, recorded, said
from tests.integration.fastapi.notes import Note

from penstock import Database, query

NEW = query(insert(Note).values(text=bindparam("text")).returning(Note.id))
ALL = query(select(Note).order_by(Note.id))
SECRET = "anna@example.org"


@pytest.fixture
async def both(database_url: str) -> AsyncIterator[tuple[Database, Recording]]:
    """A database and its recording."""
    async with recorded(database_url) as pair:
        yield pair


async def write_by_express(database: Database) -> None:
    await database.writer.one(NEW, text=SECRET)


async def write_by_session(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(text=SECRET))


@pytest.mark.parametrize("write", [write_by_express, write_by_session])
async def test_an_error_is_reported_without_the_row_that_it_quotes(
    both: tuple[Database, Recording], write: Any
) -> None:
    database, recording = both
    await write(database)
    recording.forget_spans()

    with pytest.raises(IntegrityError) as caught:
        await write(database)

    assert caught.value.orig is not None
    assert SECRET in str(caught.value.orig.__cause__)
    (span,) = recording.spans("INSERT")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "23505"
    assert span.attributes["db.response.status_code"] == "23505"
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "asyncpg.exceptions.UniqueViolationError"
    assert "exception.stacktrace" in event.attributes
    assert SECRET not in said(span)


@pytest.mark.parametrize("lane", ["express", "session"])
async def test_a_statement_that_is_cancelled_ends_its_span(
    both: tuple[Database, Recording], lane: str
) -> None:
    database, recording = both
    sleep = text("SELECT pg_sleep(60)")

    async def run() -> None:
        if lane == "express":
            await database.reader.scalar(sleep)
        else:
            async with database.read() as session:
                await session.execute(sleep)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run()

    (span,) = recording.spans("SELECT")
    assert span.attributes is not None
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"


async def test_each_try_of_a_read_that_is_repeated_has_a_span(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both
    await database.reader.all(ALL)
    recording.forget_spans()

    end = query(text("SELECT pg_terminate_backend(pg_backend_pid()) FROM notes"))
    await database.writer.one(NEW, text="one")
    with pytest.raises(Exception, match=r"terminat|closed"):
        await database.reader.all(end)

    assert [span.status.status_code for span in recording.spans("SELECT")] == [StatusCode.ERROR] * 2


@pytest.mark.parametrize("driver", ["psycopg", "aiosqlite"])
async def test_other_drivers_tell_the_same(database_url: str, tmp_path: Path, driver: str) -> None:
    urls = {
        "psycopg": database_url.replace("asyncpg", "psycopg"),
        "aiosqlite": f"sqlite:///{tmp_path}/app.db",
    }
    async with recorded(urls[driver]) as (database, recording):
        await database.writer.one(NEW, text=SECRET)
        with pytest.raises(IntegrityError):
            await database.writer.one(NEW, text=SECRET)

    written, failed = recording.spans("INSERT notes")
    assert written.status.status_code is StatusCode.UNSET
    assert failed.status.status_code is StatusCode.ERROR
    kinds = {"psycopg": "23505", "aiosqlite": "sqlite3.IntegrityError"}
    assert (failed.attributes or {})["error.type"] == kinds[driver]
    assert SECRET not in said(failed)
