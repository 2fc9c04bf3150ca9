"""A span for each checkout that took its time, below the request's own."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry.trace import StatusCode
from sqlalchemy import select
from tests.eventually import eventually
from tests.integration.exporters.otel_recording import Recording, recorded
from tests.integration.fastapi.notes import Note

from penstock import Database, query
from penstock.errors import PoolTimeout

ALL = query(select(Note).order_by(Note.id))


@pytest.fixture
async def both(database_url: str) -> AsyncIterator[tuple[Database, Recording]]:
    """A pool of one connection that waits for a second, and its recording."""
    async with recorded(database_url, pool_size=1, max_overflow=0, pool_timeout=1) as pair:
        yield pair


async def test_a_checkout_that_waits_has_a_span_and_one_that_does_not_has_none(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both
    await database.reader.all(ALL)
    assert recording.spans("penstock checkout") == []

    with recording.tracer.start_as_current_span("request") as request:
        connection = await database.engine.connect()
        reading = asyncio.create_task(database.reader.all(ALL))
        await eventually(lambda: database.pool.snapshot().waiting == 1)
        await connection.close()
        await reading

    (checkout,) = recording.spans("penstock checkout")
    assert checkout.parent == request.get_span_context()
    assert checkout.status.status_code is StatusCode.UNSET
    assert checkout.start_time is not None
    assert checkout.end_time is not None
    assert checkout.start_time < checkout.end_time
    assert checkout.attributes is not None
    assert "db.client.connection.pool.name" in checkout.attributes


@pytest.mark.parametrize("lane", ["express", "session"])
async def test_a_checkout_that_is_refused_is_an_error_of_the_request(
    both: tuple[Database, Recording], lane: str
) -> None:
    database, recording = both

    async with database.engine.connect():
        with recording.tracer.start_as_current_span("request") as request:
            task = asyncio.create_task(read_by(database, lane))
            with pytest.raises(PoolTimeout):
                await task

    (checkout,) = recording.spans("penstock checkout")
    assert checkout.parent == request.get_span_context()
    assert checkout.status.status_code is StatusCode.ERROR
    assert checkout.attributes is not None
    assert checkout.attributes["error.type"] == "waiting"
    assert recording.spans("SELECT notes") == []


async def read_by(database: Database, lane: str) -> None:
    if lane == "express":
        await database.reader.all(ALL)
    else:
        async with database.read() as session:
            await session.execute(ALL.statement)
