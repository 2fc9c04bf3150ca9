"""A span for each statement, on both lanes, below the request's own."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from sqlalchemy import bindparam, insert, make_url, select, text, update
from sqlalchemy.orm import selectinload
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.eventually import eventually
from tests.integration.exporters.otel_recording import Recording, recorded, said
from tests.integration.fastapi.notes import Note
from tests.servers.web import client_of

from penstock import Database, query
from penstock.fastapi import Reader, Writer, WriteSession, install
from penstock.telemetry.statement_watch import request_statements

BY_TEXT = query(select(Note.id, Note.text).where(Note.text == bindparam("text")))
NEW = query(insert(Note).values(text=bindparam("text")).returning(Note.id))
ALL = query(select(Note).order_by(Note.id))
SECRET = "anna@example.org"


@pytest.fixture
async def both(database_url: str) -> AsyncIterator[tuple[Database, Recording]]:
    """A pool of one connection that waits for a second, and its recording."""
    async with recorded(database_url, pool_size=1, max_overflow=0, pool_timeout=1) as pair:
        yield pair


class RequestSpans:
    """A middleware with a span for each request."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self.app = app
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with self.tracer.start_as_current_span("request"):
            await self.app(scope, receive, send)


def service(database: Database, recording: Recording) -> FastAPI:
    app = FastAPI()
    install(app, database)
    app.add_middleware(RequestSpans, tracer=recording.tracer)

    @app.get("/express")
    async def express(reader: Reader, writer: Writer) -> None:
        await writer.one(NEW, text="a note")
        await reader.all(BY_TEXT, text="a note")

    @app.get("/session")
    async def session(session: WriteSession) -> None:
        session.add(Note(text="another note"))
        await session.flush()
        await session.execute(select(Note.id))

    return app


def during(outer: ReadableSpan, inner: ReadableSpan) -> bool:
    times = (outer.start_time, inner.start_time, inner.end_time, outer.end_time)
    return list(times) == sorted(time or 0 for time in times)


@pytest.mark.parametrize("lane", ["express", "session"])
async def test_statements_are_children_of_the_requests_span(
    both: tuple[Database, Recording], lane: str
) -> None:
    database, recording = both

    async with client_of(service(database, recording)) as client:
        recording.forget_spans()
        assert (await client.get(f"/{lane}")).status_code == 200
        await eventually(lambda: bool(recording.spans("request")))

    (request,) = recording.spans("request")
    statements = [span for span in recording.spans() if span.kind is SpanKind.CLIENT]
    assert [span.name for span in statements] == ["INSERT notes", "SELECT notes"]
    for span in statements:
        assert span.parent == request.context
        assert during(request, span)


@pytest.mark.parametrize("lane", ["express", "session"])
async def test_a_statement_says_what_it_did_and_where(
    both: tuple[Database, Recording], database_url: str, lane: str
) -> None:
    database, recording = both
    await database.writer.one(NEW, text=SECRET)
    recording.forget_spans()

    if lane == "express":
        await database.reader.one(BY_TEXT, text=SECRET)
    else:
        async with database.read() as session:
            await session.execute(BY_TEXT.statement, {"text": SECRET})

    (span,) = recording.spans()
    url = make_url(database_url)
    said_of_the_query = {"db.query.text", "db.query.summary"}
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert {k: v for k, v in span.attributes.items() if k not in said_of_the_query} == {
        "db.system.name": "postgresql",
        "db.namespace": url.database,
        "server.address": url.host,
        "server.port": url.port,
        "db.operation.name": "SELECT",
        "db.collection.name": "notes",
        "db.response.returned_rows": 1,
    }
    assert span.attributes["db.query.text"] == (
        "SELECT notes.id, notes.text FROM notes WHERE notes.text = ?::VARCHAR"
    )
    assert SECRET not in said(span)


async def test_a_literal_is_left_out(both: tuple[Database, Recording]) -> None:
    database, recording = both

    async with database.read() as session:
        await session.execute(text(f"SELECT id FROM notes WHERE text = '{SECRET}'"))

    (span,) = recording.spans("SELECT notes")
    assert span.attributes is not None
    assert span.attributes["db.query.text"] == "SELECT id FROM notes WHERE text = ?"
    assert SECRET not in said(span)


async def test_many_rows_of_one_statement_are_one_span(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both
    rows = [{"text": word} for word in ("one", "two", "three")]

    await database.writer.execute_many(query(insert(Note).values(text=bindparam("text"))), rows)
    async with database.write() as session:
        await session.execute(
            update(Note), [{"id": number, "text": f"{number}"} for number in (1, 2, 3)]
        )

    inserted, updated = (span for span in recording.spans("BATCH"))
    assert inserted.name == "BATCH INSERT notes"
    assert updated.name == "BATCH UPDATE notes"
    for span in (inserted, updated):
        assert span.attributes is not None
        assert span.attributes["db.operation.batch.size"] == 3
        assert "db.response.returned_rows" not in span.attributes


async def test_each_further_statement_has_a_span_of_its_own(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both
    with_replies = ALL.statement.options(selectinload(Note.replies))
    written = insert(Note).returning(Note).options(selectinload(Note.replies))

    async def read() -> None:
        await database.reader.all(with_replies)

    async def read_in_a_snapshot() -> None:
        async with database.reader.snapshot() as snapshot:
            await snapshot.all(with_replies)

    await database.writer.all(written, [{"text": "first"}, {"text": "second"}])
    assert [span.name for span in recording.spans()] == ["BATCH INSERT notes", "SELECT replies"]
    for operation in (read, read_in_a_snapshot):
        recording.forget_spans()
        await operation()
        assert [span.name for span in recording.spans()] == ["SELECT notes", "SELECT replies"]
        rows = [
            (span.attributes or {}).get("db.response.returned_rows") for span in recording.spans()
        ]
        assert rows == [2, 0]


async def test_copies_streams_and_snapshots_have_spans(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both

    assert await database.writer.copy_in(Note, [{"text": f"{number}"} for number in range(5)]) == 5
    assert [span.name for span in recording.spans()] == ["COPY notes"]

    recording.forget_spans()
    async with database.reader.stream(ALL).yield_per(3) as notes:
        assert len([note async for note in notes]) == 5
    returned = [
        (span.attributes or {}).get("db.response.returned_rows") for span in recording.spans()
    ]
    assert returned == [None, 3, 2, 0]  # the cursor, and each batch of it

    recording.forget_spans()
    async with database.reader.snapshot() as reader:
        await reader.all(ALL)
    assert [span.name for span in recording.spans()] == ["SELECT notes"]


async def test_what_is_removed_makes_no_spans(database_url: str) -> None:
    recording = Recording()
    async with Database.from_url(database_url, telemetry=False) as database:
        with recording.of(database):
            pass
        await database.reader.scalar(text("SELECT 1"))
        async with database.read() as session:
            await session.execute(text("SELECT 1"))

    assert recording.spans() == []
    recording.close()


async def test_what_is_removed_takes_nothing_else_with_it(database_url: str) -> None:
    one, other = Recording(), Recording()
    async with Database.from_url(database_url, telemetry=False) as database:
        first, second = one.of(database), other.of(database)
        first.remove()
        await database.reader.scalar(text("SELECT 1"))
        second.remove()
        await database.reader.scalar(text("SELECT 1"))

    assert (len(one.spans()), len(other.spans())) == (0, 1)
    one.close()
    other.close()


async def test_what_a_request_repeats_within_a_snapshot_is_still_counted(
    both: tuple[Database, Recording],
) -> None:
    database, _ = both
    counted = request_statements.set({})

    async with database.reader.snapshot() as reader:
        for _ in range(3):
            await reader.all(ALL)

    (counts,) = (request_statements.get() or {}).values()
    request_statements.reset(counted)
    assert list(counts.values()) == [3]
