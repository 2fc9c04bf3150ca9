"""How often a service waits for the server: counted by a proxy, on both event loops, with TLS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest
import uvloop
from pydantic import create_model
from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy, proxy_before

from penstock import Database, query
from penstock.deadlines import Deadline, Limits, current_limits
from penstock.express import JsonQuery
from penstock.fastapi.request_sessions import RequestSessions


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """Something to be written and read."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]


line_of = query(select(Note.line).where(Note.id == bindparam("note_id")))
lines_as_json = JsonQuery(line_of, create_model("Line", line=(str, ...)))
add = query(insert(Note).values(line=bindparam("line")))
add_returning = query(insert(Note).values(line=bindparam("line")).returning(Note))


async def express_read(database: Database) -> None:
    assert await database.reader.scalar(line_of, note_id=1) == "first"


async def express_json(database: Database) -> None:
    assert await database.reader.json(lines_as_json, note_id=1) == b'[{"line":"first"}]'


async def express_text(database: Database) -> None:
    assert await database.reader.scalar(text("SELECT line FROM notes WHERE id = 1")) == "first"


async def session_read(database: Database) -> None:
    async with database.read() as session:
        assert await session.scalar(select(Note.line).where(Note.id == 1)) == "first"


async def session_write(database: Database) -> None:
    async with database.write() as session:
        session.add(Note(line="by a session"))


async def express_write(database: Database) -> None:
    assert await database.writer.execute(add, line="express") == 1


async def express_write_returning(database: Database) -> None:
    assert (await database.writer.one(add_returning, line="express")).line == "express"


async def express_write_many(database: Database) -> None:
    await database.writer.execute_many(add, [{"line": str(number)} for number in range(10)])


async def ping(database: Database) -> None:
    await database.ping()


Operation = Callable[[Database], Awaitable[None]]

ROUND_TRIPS: dict[Operation, int] = {
    express_read: 1,
    express_text: 1,
    express_json: 1,
    session_read: 1,
    session_write: 2,
    express_write: 1,
    express_write_returning: 1,
    express_write_many: 1,
    ping: 1,
}


@asynccontextmanager
async def one_connection(
    host: str, port: int, url: str, *, max_overflow: int = 0, **settings: Any
) -> AsyncIterator[tuple[Database, Proxy]]:
    """Give a pool of one connection through a proxy, and a table with one note."""
    async with (
        proxy_before(host, port) as proxy,
        Database.from_url(
            proxy.url(url),
            environment="testing",
            pool_size=1,
            max_overflow=max_overflow,
            **settings,
        ) as database,
    ):
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        await database.writer.execute(add, line="first")
        proxy.keeps_rollbacks = True
        for operation in ROUND_TRIPS:  # each statement is prepared once
            await operation(database)
        yield database, proxy


async def spent(database: Database, proxy: Proxy, operation: Operation) -> int:
    before = proxy.round_trips
    await operation(database)
    await asyncio.sleep(0)
    return proxy.round_trips - before


async def count_all_orders(host: str, port: int, url: str, **settings: Any) -> None:
    """Run every operation after every other, and hold the round trips of each to its number."""
    async with one_connection(host, port, url, **settings) as (database, proxy):
        counted = {}
        for before, operation in product(ROUND_TRIPS, repeat=2):
            await before(database)
            counted[before.__name__, operation.__name__] = await spent(database, proxy, operation)
        assert counted == {
            (before.__name__, operation.__name__): ROUND_TRIPS[operation]
            for before, operation in product(ROUND_TRIPS, repeat=2)
        }
        assert proxy.connects == 1


async def test_every_operation_costs_the_same_in_every_order(
    postgres: PostgresServer, database_url: str
) -> None:
    await count_all_orders(postgres.host, postgres.port, database_url)


async def test_limits_are_told_to_the_server_at_no_round_trip(
    postgres: PostgresServer, database_url: str
) -> None:
    async with one_connection(postgres.host, postgres.port, database_url) as (database, proxy):
        current_limits.set(Limits(5.0, Deadline.after(30)))
        await express_read(database)  # the first asks once what the connection has anyway
        counted = {each: await spent(database, proxy, each) for each in ROUND_TRIPS}
    assert counted == ROUND_TRIPS


def test_every_operation_costs_the_same_on_uvloop(
    postgres: PostgresServer, database_url: str
) -> None:
    work = count_all_orders(postgres.host, postgres.port, database_url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


async def test_a_snapshot_begins_with_a_round_trip_and_ends_with_none(
    postgres: PostgresServer, database_url: str
) -> None:
    async def snapshot(database: Database) -> None:
        async with database.reader.snapshot() as moment:
            assert await moment.scalar(line_of, note_id=1) == "first"
            assert await moment.scalar(line_of, note_id=1) == "first"

    async with one_connection(postgres.host, postgres.port, database_url) as (database, proxy):
        await snapshot(database)  # prepares what it begins with
        for before in ROUND_TRIPS:
            await before(database)
            assert await spent(database, proxy, snapshot) == 3


async def test_a_read_on_the_connection_of_a_session_is_one_round_trip(
    postgres: PostgresServer, database_url: str
) -> None:
    async with one_connection(postgres.host, postgres.port, database_url) as (database, proxy):
        units = RequestSessions({"default": database})
        session, reader = units.unit("default").writer, units.reader("default")

        async def write(_: Database) -> None:
            await session.execute(insert(Note).values(line="flushed"))

        async def read(_: Database) -> None:
            assert await reader.scalar(line_of, note_id=1) == "first"

        await write(database)
        await read(database)
        counted = [await spent(database, proxy, each) for each in (read, write, read, read, write)]
        await units.commit()
        await units.end()

    assert counted == [1] * 5


async def test_what_is_asked_at_once_waits_for_its_turn_and_costs_no_more(
    postgres: PostgresServer, database_url: str
) -> None:
    async def all_at_once(database: Database) -> None:
        await asyncio.gather(*(operation(database) for operation in list(ROUND_TRIPS) * 5))

    there, alone = (postgres.host, postgres.port, database_url), 5 * sum(ROUND_TRIPS.values())
    async with one_connection(*there, batch_reads=False) as (database, proxy):
        assert await spent(database, proxy, all_at_once) == alone


async def test_what_is_asked_at_once_and_leaves_together_costs_less(
    postgres: PostgresServer, database_url: str
) -> None:
    async def together(database: Database) -> None:
        await asyncio.gather(*(express_read(database) for _ in range(20)))

    async with one_connection(postgres.host, postgres.port, database_url) as (database, proxy):
        assert await spent(database, proxy, together) < 20 * ROUND_TRIPS[express_read]


async def test_a_connection_that_replaces_another_has_prepared_its_statements(
    postgres: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pool.runtime.TICK_INTERVAL", 0.02)
    there = postgres.host, postgres.port, database_url
    async with one_connection(*there, max_overflow=1) as (database, proxy):
        pool: Any = database.engine.pool
        for slot in pool.ledger:
            slot.retire_at = 0.0
        await eventually(
            lambda: (
                database.pool.snapshot().closed_total == 1
                and database.pool.snapshot().checked_in == 1
            )
        )

        counted = {each: await spent(database, proxy, each) for each in ROUND_TRIPS}
        assert counted == ROUND_TRIPS
        assert proxy.connects == 2


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_encryption_costs_no_round_trip(
    postgres_with_tls: PostgresServer, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    server = postgres_with_tls
    work = count_all_orders(server.host, server.port, server.url(), tls="require")
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work)
