"""Behind PgBouncer of both eras: every answer is right, and nothing stays on what is shared."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, func, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError
from tests.eventually import eventually
from tests.integration.express.batches import Batches, at_once
from tests.integration.express.leftovers import CLEAN, SERVERS, leftovers
from tests.integration.express.pooled_service import (
    ENTRIES,
    HITS,
    ITEMS,
    REQUESTS,
    TASKS,
    Entry,
    Item,
    behind_pgbouncer,
    expected_name,
    fill,
    name_of,
    work,
)
from tests.servers.pgbouncer import Era, PgbouncerServer, pgbouncer_of, pgbouncer_server
from tests.servers.postgres import PostgresServer

from penstock import Database, query
from penstock.fastapi.request_sessions import RequestSessions

POOLERS: dict[str, tuple[Era, int | None]] = {
    "before-1.21": (Era.BLIND, None),
    "since-1.21": (Era.FOLLOWING, None),
    "since-1.21-following-none": (Era.FOLLOWING, 0),
}
"""Each an era and its max_prepared_statements."""


@pytest.fixture(scope="module", params=list(POOLERS))
def pooler(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[PgbouncerServer]:
    era, max_prepared_statements = POOLERS[request.param]
    with pgbouncer_server(
        postgres,
        binary=pgbouncer_of(era),
        pool_mode="transaction",
        default_pool_size=SERVERS,
        max_prepared_statements=max_prepared_statements,
    ) as server:
        yield server


@pytest.fixture
async def pooled_url(database_url: str, pooler: PgbouncerServer) -> str:
    await fill(database_url)
    return pooler.url(database_url)


@pytest.fixture
async def database(pooled_url: str) -> AsyncIterator[Database]:
    async with behind_pgbouncer(pooled_url, pool_size=10) as database:
        yield database


async def errors_of_a_process(url: str, first: int) -> str:
    module = "tests.integration.express.pooled_service"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, url, str(first), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    return errors.decode()


async def test_several_processes_on_few_server_connections_get_what_they_asked_for(
    pooled_url: str, database: Database
) -> None:
    starts = range(0, 2 * TASKS, TASKS)
    errors = await asyncio.gather(*(errors_of_a_process(pooled_url, each) for each in starts))

    assert "".join(errors) == ""
    hits = await database.reader.all(select(Item.hits, func.count()).group_by(Item.hits))
    ways = await database.reader.all(select(Entry.way, func.count()).group_by(Entry.way))
    assert {tuple(row) for row in hits} == {(HITS * REQUESTS, 2 * TASKS), (0, ITEMS - 2 * TASKS)}
    assert {tuple(row) for row in ways} == {
        (way, count * REQUESTS * 2 * TASKS) for way, count in ENTRIES.items()
    }


async def test_nothing_stays_on_a_server_connection(database: Database, pooled_url: str) -> None:
    await work(database, first=0)

    assert await leftovers(pooled_url) == CLEAN


async def test_reads_that_leave_together_are_each_their_callers_own(
    database: Database, pooled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches(monkeypatch)
    tenants = {name: database.reader.with_context(settings={"app.tenant": name}) for name in "abc"}
    readers = [database.reader, *tenants.values()]
    for reader in readers:
        await reader.scalar(name_of, item_id=1)
    for _ in range(3):
        found = await at_once(
            readers[each % 4].scalar(name_of, item_id=each) for each in range(1, ITEMS)
        )
        assert found == [expected_name(each) for each in range(1, ITEMS)]

    assert await leftovers(pooled_url) == CLEAN
    keeps_statements = database.settings.statement_cache_size > 0
    assert bool(batches.sizes) or not keeps_statements


async def test_no_reader_makes_a_writer_read_only(database: Database) -> None:
    async def read_and_write(item_id: int) -> None:
        async with database.read() as session:
            assert await session.scalar(select(Item.name).where(Item.id == item_id))
        assert await database.reader.scalar(name_of, item_id=item_id) == expected_name(item_id)
        await database.writer.execute(insert(Entry).values(item_id=item_id, way="express"))
        async with database.write() as writing:
            writing.add(Entry(item_id=item_id, way="session"))

    await asyncio.gather(*(read_and_write(each) for each in range(50)))

    assert await database.reader.scalar(select(func.count()).select_from(Entry)) == 100


async def test_a_reader_reads_within_its_requests_session(database: Database) -> None:
    async def write_and_read(item_id: int) -> None:
        units = RequestSessions({"default": database})
        session, reader = units.unit("default").writer, units.reader("default")
        session.add(Entry(item_id=item_id, way="session"))
        await session.flush()
        written = select(Entry.way).where(Entry.item_id == item_id)
        assert await reader.scalar(written) == "session"
        with pytest.raises(DBAPIError):
            await reader.scalar(text("SELECT 1/0"))
        with pytest.raises(DBAPIError):
            await reader.scalar(select(func.nextval("numbers")))
        session.add(Entry(item_id=item_id, way="session"))
        await units.commit()
        units.refuse("the test was over")
        await units.end()

    await asyncio.gather(*(write_and_read(each) for each in range(50)))

    assert await database.reader.scalar(select(func.count()).select_from(Entry)) == 100


WRITING = {
    "text": text("WITH gone AS (DELETE FROM items RETURNING id) SELECT id FROM gone"),
    "cte": select(delete(Item).returning(Item.id).cte().c.id),
    "function": select(func.nextval("numbers")),
    "lock": select(Item.id).with_for_update(),
}


@pytest.mark.parametrize("statement", WRITING.values(), ids=list(WRITING))
async def test_the_server_refuses_a_write_in_every_kind_of_read(
    database: Database, pooled_url: str, statement: Any
) -> None:
    await database.writer.execute(text("CREATE SEQUENCE numbers"))

    async def by_reader() -> None:
        await database.reader.all(statement)

    async def by_stream() -> None:
        async with database.reader.stream(statement) as rows:
            assert [row async for row in rows] == []

    async def by_snapshot() -> None:
        async with database.reader.snapshot() as snapshot:
            await snapshot.all(statement)

    async def by_session() -> None:
        async with database.read() as session:
            await session.execute(statement)

    ways = [by_reader, by_stream, by_snapshot, by_session]
    for way in ways:
        assert set(await asyncio.gather(*(sqlstate_of(way) for _ in range(10)))) == {"25006"}
    assert await leftovers(pooled_url) == CLEAN
    assert await database.reader.scalar(select(func.count()).select_from(Item)) == ITEMS


async def sqlstate_of(way: Callable[[], Awaitable[None]]) -> object:
    try:
        await way()
    except DBAPIError as refusal:
        return getattr(refusal.orig, "sqlstate", None)
    return "accepted"


by_id = Item.id == bindparam("item_id")
select_hits = select(Item.id, Item.hits).where(by_id)
hits_of = query(select_hits)
touch = query(update(Item).where(by_id).values(name=Item.name).returning(Item.id, Item.hits))


async def ask_until_text_comes(database: Database, item_id: int, seen: Counter[object]) -> None:
    while seen[str] < 1000:
        rows = [
            await database.reader.one(hits_of, item_id=item_id),
            await database.writer.one(touch, item_id=item_id),
        ]
        async with database.read() as session:
            rows += await session.execute(select_hits, {"item_id": item_id})
        assert {row.id for row in rows} == {item_id}
        assert {row.hits for row in rows} <= {0, f"hits of {item_id}"}
        seen.update(type(row.hits) for row in rows)


async def test_a_schema_change_under_running_requests_goes_unnoticed(
    database: Database, database_url: str, postgres: PostgresServer
) -> None:
    seen: Counter[object] = Counter()
    change = "ALTER TABLE items ALTER hits TYPE text USING 'hits of ' || id"

    async with asyncio.TaskGroup() as tasks:
        for item_id in range(20):
            tasks.create_task(ask_until_text_comes(database, item_id, seen))
        await eventually(lambda: seen[int] > 300)
        await asyncio.to_thread(postgres.execute, change, make_url(database_url).database or "")


async def test_a_request_that_is_given_up_leaves_its_server_connection_clean(
    database: Database, pooled_url: str
) -> None:
    statement = select(Item.name, func.pg_sleep(bindparam("seconds")))
    slow = query(statement)

    async def read() -> None:
        await database.reader.all(slow, seconds=1)

    async def stream() -> None:
        async for _ in database.reader.stream(slow, seconds=1).yield_per(1):
            pass

    async def read_in_session() -> None:
        async with database.read() as session:
            await session.execute(statement, {"seconds": 1})

    for way in (read, stream, read_in_session):
        ended = await asyncio.gather(
            *(asyncio.wait_for(way(), 0.2) for _ in range(SERVERS)), return_exceptions=True
        )
        assert {type(each) for each in ended} == {TimeoutError}

    names = [database.reader.scalar(name_of, item_id=each) for each in range(ITEMS)]
    assert await asyncio.gather(*names) == [expected_name(each) for each in range(ITEMS)]
    assert await leftovers(pooled_url) == CLEAN


async def test_a_value_that_the_driver_refuses_keeps_no_server_connection(
    database: Database, pooled_url: str
) -> None:
    async def read() -> None:
        await database.reader.one(hits_of, item_id="no number")

    async def write() -> None:
        await database.writer.one(touch, item_id="no number")

    async def read_in_session() -> None:
        async with database.read() as session:
            await session.execute(select_hits, {"item_id": "no number"})

    for way in (read, write, read_in_session):
        refused = await asyncio.gather(*(way() for _ in range(SERVERS)), return_exceptions=True)
        assert {isinstance(each, DBAPIError) for each in refused} == {True}
        assert await leftovers(pooled_url) == CLEAN


async def test_a_statement_whose_columns_became_more_keeps_no_server_connection(
    database: Database, database_url: str, pooled_url: str, postgres: PostgresServer
) -> None:
    everything = query(text("SELECT * FROM items ORDER BY id LIMIT 1"))
    change = "ALTER TABLE items ADD note text DEFAULT 'new'"
    assert tuple(await database.reader.one(everything)) == (0, expected_name(0), 0)
    await asyncio.to_thread(postgres.execute, change, make_url(database_url).database or "")

    rows = await asyncio.gather(*(database.reader.one(everything) for _ in range(10)))

    assert {tuple(row) for row in rows} == {(0, expected_name(0), 0, "new")}
    assert await leftovers(pooled_url) == CLEAN
