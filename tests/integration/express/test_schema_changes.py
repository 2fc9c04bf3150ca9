"""Changes of the schema, one right after another, under statements that are kept prepared."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy import bindparam, event, insert, make_url, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import selectinload
from tests.integration.express.pooled_service import Entry, Item, behind_pgbouncer, fill
from tests.servers.pgbouncer import Era, PgbouncerServer, pgbouncer_of, pgbouncer_server
from tests.servers.postgres import PostgresServer
from tests.servers.web import client_of

from penstock import Database, query
from penstock.fastapi import ReadSession, WriteSession, install
from penstock.fastapi.request_sessions import RequestSessions

SERVERS = 2
SMALL = "ALTER TABLE items ALTER hits TYPE int USING 0; ALTER TABLE entries ALTER way TYPE varchar"
LARGE = "ALTER TABLE items ALTER hits TYPE text; ALTER TABLE entries ALTER way TYPE text"
by_id = Item.id == bindparam("item_id")
read = query(select(Item.id, Item.hits).where(by_id))
loaded = query(select(Item).where(by_id).options(selectinload(Item.entries)))
written = query(update(Item).where(by_id).values(name=Item.name).returning(Item.id, Item.hits))
silent = query(update(Item).where(by_id).values(name=Item.name))
added = query(insert(Entry).returning(Entry.id, Entry.way))


class Client:
    """Reads and writes in one of the ways, with or without a context or a limit."""

    def __init__(self, database: Database, settings: dict[str, str], seconds: float | None) -> None:
        self.database, self.settings, self.seconds = database, settings, seconds

    @property
    def reader(self) -> Any:
        return self.limited(self.database.reader)

    @property
    def moments(self) -> Any:
        """Of streams and snapshots, which take no limit."""
        return Client(self.database, self.settings, None).reader

    @property
    def writer(self) -> Any:
        return self.limited(self.database.writer)

    def limited(self, executor: Any) -> Any:
        if self.settings:
            executor = executor.with_context(settings=self.settings)
        return executor.with_timeout(self.seconds) if self.seconds else executor


async def one(client: Client) -> None:
    assert (await client.reader.one(read, item_id=1)).id == 1


async def related(client: Client) -> None:
    assert (await client.reader.one(loaded, item_id=1)).id == 1


async def stream(client: Client) -> None:
    async with client.moments.stream(read, item_id=1) as rows:
        assert [row.id async for row in rows] == [1]


async def related_stream(client: Client) -> None:
    async with client.moments.stream(loaded, item_id=1) as rows:
        assert [row.id async for row in rows] == [1]


async def snapshot(client: Client) -> None:
    async with client.moments.snapshot() as moment:
        assert (await moment.one(read, item_id=1)).id == 1


async def within_session(client: Client) -> None:
    units = RequestSessions({"default": client.database})
    session, reader = units.unit("default").writer, client.limited(units.reader("default"))
    await session.connection()
    assert (await reader.one(read, item_id=1)).id == 1
    await units.commit()
    units.refuse("the test was over")
    await units.end()


async def write(client: Client) -> None:
    assert (await client.writer.one(written, item_id=1)).id == 1


async def silent_write(client: Client) -> None:
    assert await client.writer.execute(silent, item_id=1) == 1


async def writes_of_many(client: Client) -> None:
    rows = [{"item_id": 1, "way": "many"}] * 3
    assert len(await client.writer.all(added, rows)) == 3


async def quiet_writes_of_many(client: Client) -> None:
    await client.writer.execute_many(silent, [{"item_id": 1}] * 3)


WAYS = [
    one,
    related,
    stream,
    related_stream,
    snapshot,
    within_session,
    write,
    silent_write,
    writes_of_many,
    quiet_writes_of_many,
]
CONTEXTS: dict[str, tuple[dict[str, str], float | None]] = {
    "plain": ({}, None),
    "context": ({"app.tenant": "7"}, None),
    "timeout": ({}, 20.0),
}


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[PgbouncerServer]:
    with pgbouncer_server(
        postgres,
        binary=pgbouncer_of(Era.FOLLOWING),
        pool_mode="transaction",
        default_pool_size=SERVERS,
        max_prepared_statements=100,
    ) as server:
        yield server


@pytest.fixture
async def operator(database_url: str) -> AsyncIterator[psycopg.Connection[Any]]:
    await fill(database_url)
    url = make_url(database_url).set(drivername="postgresql").render_as_string(False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def opened(url: str, pooler: PgbouncerServer | None = None) -> Database:
    if pooler is not None:
        return behind_pgbouncer(pooler.url(url), pool_size=4, statement_cache_size=100)
    return Database.from_url(url, environment="testing", pool_size=4, slow_query=None)


@pytest.mark.parametrize("where", ["direct", "with listeners", "pooled"])
async def test_every_way_is_repeated_after_changes_in_close_succession(
    where: str,
    operator: psycopg.Connection[Any],
    database_url: str,
    pooler: PgbouncerServer,
) -> None:
    failed: dict[str, str] = {}
    async with opened(database_url, pooler if where == "pooled" else None) as database:
        if where == "with listeners":
            event.listen(database.engine.sync_engine, "checkout", lambda *_: None)
        for name, (settings, seconds) in CONTEXTS.items():
            client = Client(database, settings, seconds)
            for way in WAYS:
                try:
                    # Twice, so that it is prepared wherever it is run.
                    for _ in range(2):
                        await asyncio.gather(*(way(client) for _ in range(4)))
                    for change in (LARGE, SMALL):
                        operator.execute(change)
                        await way(client)
                except DBAPIError as error:
                    failed[f"{way.__name__}, {name}"] = str(error)
    assert failed == {}


@pytest.mark.parametrize("where", ["asyncpg", "psycopg", "pooled"])
async def test_a_session_that_meets_a_change_is_answered_by_503(
    where: str,
    operator: psycopg.Connection[Any],
    database_url: str,
    pooler: PgbouncerServer,
) -> None:
    url = database_url.replace("asyncpg", "psycopg" if where == "psycopg" else "asyncpg")
    async with opened(url, pooler if where == "pooled" else None) as database:
        app = FastAPI()
        install(app, database)

        @app.get("/items/{item_id}")
        async def get(item_id: int, session: ReadSession) -> str:
            return str((await session.execute(read.statement, {"item_id": item_id})).one().hits)

        @app.post("/items/{item_id}")
        async def post(item_id: int, session: WriteSession) -> None:
            session.add(Entry(item_id=item_id, way="session"))
            await session.flush()
            await session.execute(written.statement, {"item_id": item_id})

        changes = [SMALL, LARGE]
        async with client_of(app) as client:
            # psycopg forgets what it has prepared at a ROLLBACK, with which each read ends.
            for method in ("POST",) if where == "psycopg" else ("GET", "POST"):
                for _ in range(12):
                    assert (await client.request(method, "/items/1")).status_code == 200
                saved = operator.execute("SELECT count(*) FROM entries").fetchone()
                operator.execute(changes.pop())
                answer = await client.request(method, "/items/1")
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["code"] == "schema_changed"
                assert operator.execute("SELECT count(*) FROM entries").fetchone() == saved
                assert (await client.request(method, "/items/1")).status_code == 200
