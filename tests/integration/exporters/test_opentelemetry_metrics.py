"""The pool's numbers and times at the readers of OpenTelemetry's SDK."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import make_url, text
from tests.eventually import eventually
from tests.integration.exporters.otel_recording import Recording, recorded

from penstock import Database, query
from penstock.errors import PoolTimeout
from penstock.exporters.opentelemetry import instrument

ONE = query(text("SELECT 1 AS one"))


@pytest.fixture
async def both(database_url: str) -> AsyncIterator[tuple[Database, Recording]]:
    """A pool of two connections that waits for a second, and its recording."""
    async with recorded(
        database_url, pool_size=2, max_overflow=1, min_idle=1, pool_timeout=1
    ) as pair:
        yield pair


async def test_each_read_is_one_use_and_one_wait(both: tuple[Database, Recording]) -> None:
    database, recording = both

    for _ in range(5):
        await database.reader.scalar(ONE)

    for name in ("use_time", "wait_time"):
        (point,) = recording.points(name)
        assert point.count == 5
        assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
        assert recording.metrics()[f"db.client.connection.{name}"].unit == "s"


async def test_sessions_are_counted_like_the_express_lane(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both

    for session in (database.read, database.write):
        async with session() as opened:
            await opened.execute(text("SELECT 1"))

    (point,) = recording.points("use_time")
    assert point.count == 2


async def test_the_pool_is_reported_as_it_is(both: tuple[Database, Recording]) -> None:
    database, recording = both

    async with database.engine.connect():
        assert recording.value("count", state="used") == 1
        assert recording.value("count", state="idle") == database.pool.snapshot().checked_in
    assert recording.value("count", state="used") == 0
    assert recording.value("max") == 3
    assert recording.value("idle.max") == 2
    assert recording.value("idle.min") == 1
    assert recording.value("pending_requests") == 0


async def test_who_waits_is_pending_and_who_waited_too_long_is_a_timeout(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both

    async with (
        database.engine.connect(),
        database.engine.connect(),
        database.engine.connect(),
        asyncio.TaskGroup() as group,
    ):
        waiting = group.create_task(refused(database))
        await eventually(lambda: database.pool.snapshot().waiting == 1)
        assert recording.value("pending_requests") == 1
        await waiting

    assert recording.value("timeouts") == 1


async def refused(database: Database) -> None:
    with pytest.raises(PoolTimeout):
        await database.reader.scalar(ONE)


async def test_every_opened_connection_has_a_create_time(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both
    opened = database.pool.snapshot().opened_total

    async with database.engine.connect(), database.engine.connect(), database.engine.connect():
        pass

    (point,) = recording.points("create_time")
    assert point.count == database.pool.snapshot().opened_total - opened
    assert point.count >= 1


async def test_a_pool_is_named_by_its_address_and_its_database(
    both: tuple[Database, Recording], database_url: str
) -> None:
    _, recording = both
    url = make_url(database_url)

    (point,) = recording.points("max")

    assert dict(point.attributes) == {
        "db.client.connection.pool.name": f"{url.host}:{url.port}/{url.database}"
    }


async def test_the_pool_that_replaces_a_disposed_one_is_reported_as_well(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both
    await database.engine.dispose()

    async with database.engine.connect():
        assert recording.value("count", state="used") == 1

    (point,) = recording.points("use_time")
    assert point.count == 1


async def test_two_pools_of_one_provider_are_distinguished(
    both: tuple[Database, Recording], database_url: str
) -> None:
    _, recording = both

    other = Database.from_url(database_url, telemetry=False, pool_size=7, max_overflow=0)
    async with other:
        with recording.of(other, pool_name="analytics"):
            await other.reader.scalar(ONE)
            assert recording.value("max", name="analytics") == 7

    counts = [point.count for point in recording.points("use_time")]
    assert counts == [1]


async def test_what_is_removed_is_reported_no_more_and_can_be_reported_again(
    database_url: str,
) -> None:
    recording = Recording()
    async with Database.from_url(database_url, telemetry=False) as database:
        first = recording.of(database)
        await database.reader.scalar(ONE)
        first.remove()
        first.remove()
        await database.reader.scalar(ONE)

        assert recording.points("count") == []
        assert [point.count for point in recording.points("use_time")] == [1]

        with recording.of(database):
            await database.reader.scalar(ONE)
            assert recording.value("count", state="idle") == 1
            assert [point.count for point in recording.points("use_time")] == [2]
    recording.close()


async def test_an_exporters_thread_reads_while_the_pool_is_at_work(
    both: tuple[Database, Recording],
) -> None:
    database, recording = both

    async def work() -> None:
        for _ in range(100):
            await database.reader.scalar(ONE)

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        read = [await asyncio.to_thread(recording.value, "max") for _ in range(20)]

    assert read == [3] * 20


async def test_in_serverless_there_is_no_pool_to_tell_of(database_url: str) -> None:
    async with recorded(database_url, environment="serverless") as (database, recording):
        async with database.read() as session:
            await session.execute(text("SELECT 1"))

        assert recording.metrics() == {}
        assert recording.spans("SELECT")


async def test_without_providers_the_global_ones_are_used(database_url: str) -> None:
    async with Database.from_url(database_url, telemetry=False) as database:
        with instrument(database):  # which do nothing, unless somebody has set them
            assert await database.reader.scalar(ONE) == 1
