"""What the express lane says and does when the connection or the server fails."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from tests.eventually import eventually
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer, own_postgres, postgres_programs
from tests.servers.proxy import Proxy

from penstock import Database, query
from penstock.errors import CommitOutcomeUnknown

add = query(text("INSERT INTO notes VALUES (:line) RETURNING line"))
slow_add = query(text("INSERT INTO notes SELECT :line FROM pg_sleep(:seconds) RETURNING line"))
GATE = 7
"""An advisory lock, for which a write waits."""
gated_add = query(
    text(
        "INSERT INTO notes SELECT :line FROM "
        f"(SELECT pg_advisory_xact_lock_shared({GATE})) AS gate RETURNING line"
    )
)
slow = query(text("SELECT CAST(:number AS int) AS number FROM pg_sleep(:seconds)"))
wide = query(text("SELECT repeat('x', 1000) FROM generate_series(1, 20000)"))


@pytest.fixture
async def database(behind_proxy: Database) -> Database:
    await behind_proxy.writer.execute(text("CREATE TABLE notes (line text)"))
    return behind_proxy


async def backend(database: Database) -> int:
    return int(await database.reader.scalar(text("SELECT pg_backend_pid()")))


async def notes(database: Database) -> int:
    return int(await database.reader.scalar(text("SELECT count(*) FROM notes")))


def running(postgres: PostgresServer, url: str) -> list[int]:
    """Return the server's processes that are at work for a database's clients."""
    name = make_url(url).database
    rows = postgres.execute(
        f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}' AND state = 'active'"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    return [int(str(pid)) for (pid,) in rows]


async def until_running(postgres: PostgresServer, url: str) -> int:
    await eventually(lambda: running(postgres, url) != [])
    return running(postgres, url)[0]


async def kill(postgres: PostgresServer, process: int) -> None:
    await asyncio.to_thread(postgres.execute, f"SELECT pg_terminate_backend({process}, 10000)")


async def in_background(work: Awaitable[Any]) -> "asyncio.Task[Any]":
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


async def usable(database: Database) -> None:
    assert database.pool.snapshot().checked_out == 0
    before = await notes(database)
    assert await database.writer.one(add, line="used") == ("used",)
    assert await notes(database) == before + 1


async def test_a_backend_killed_while_idle_is_noticed_by_nobody(
    database: Database, postgres: PostgresServer, proxy: Proxy
) -> None:
    await kill(postgres, await backend(database))
    assert await database.writer.one(add, line="once") == ("once",)
    await kill(postgres, await backend(database))
    assert await notes(database) == 1
    await kill(postgres, await backend(database))
    async with database.reader.snapshot() as snapshot:
        assert await snapshot.scalar(text("SELECT count(*) FROM notes")) == 1
    assert proxy.connects == 4


async def test_a_read_whose_backend_is_killed_is_answered_by_another(
    database: Database, postgres: PostgresServer, database_url: str, proxy: Proxy
) -> None:
    read = await in_background(database.reader.scalar(slow, number=7, seconds=0.7))
    await kill(postgres, await until_running(postgres, database_url))
    assert await read == 7
    assert proxy.connects == 2
    await usable(database)


async def test_a_read_is_repeated_once_and_then_its_error_is_told(
    database: Database, postgres: PostgresServer, database_url: str, proxy: Proxy
) -> None:
    read = await in_background(database.reader.scalar(slow, number=7, seconds=30))
    for _ in range(2):
        await kill(postgres, await until_running(postgres, database_url))
    with pytest.raises(DBAPIError) as raised:
        await read
    assert raised.value.connection_invalidated
    assert proxy.connects == 2
    await usable(database)


async def test_a_read_that_was_lost_before_the_server_had_it_is_answered(
    database: Database, proxy: Proxy
) -> None:
    proxy.silence()
    read = await in_background(notes(database))
    proxy.cut()
    assert await read == 0
    assert proxy.connects == 2


async def test_a_read_whose_answer_is_cut_off_is_asked_again(
    database: Database, proxy: Proxy
) -> None:
    assert len(await database.reader.all(wide)) == 20_000
    read = await in_background(database.reader.all(wide))
    spent = proxy.round_trips
    await eventually(lambda: proxy.round_trips > spent)  # its first rows are on their way
    proxy.cut()
    assert len(await read) == 20_000
    assert proxy.connects == 2
    await usable(database)


async def test_a_write_whose_backend_is_killed_is_unknown_and_not_repeated(
    database: Database, postgres: PostgresServer, database_url: str, proxy: Proxy
) -> None:
    write = await in_background(database.writer.first(slow_add, line="once", seconds=30))
    await kill(postgres, await until_running(postgres, database_url))
    with pytest.raises(CommitOutcomeUnknown) as unknown:
        await write
    assert isinstance(unknown.value.__cause__, DBAPIError)
    assert (await notes(database), proxy.connects) == (0, 2)
    await usable(database)


@asynccontextmanager
async def answer_lost(postgres: PostgresServer, url: str, proxy: Proxy) -> AsyncIterator[None]:
    """Hold up the write that the block begins until the proxy is silent; then let it end."""
    gate = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await gate.execute(f"SELECT pg_advisory_lock({GATE})")
        yield
        await eventually(lambda: waits_for_gate(postgres, url), seconds=30)
        proxy.silence()
    finally:
        await gate.close()
    await eventually(lambda: running(postgres, url) == [], seconds=30)
    proxy.cut()


def waits_for_gate(postgres: PostgresServer, url: str) -> bool:
    name = make_url(url).database
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    return postgres.execute(waiting, str(name)) != []


async def test_a_write_whose_answer_is_lost_is_saved_once(
    database: Database, postgres: PostgresServer, database_url: str, proxy: Proxy
) -> None:
    async with answer_lost(postgres, database_url, proxy):
        write = await in_background(database.writer.first(gated_add, line="once"))
    with pytest.raises(CommitOutcomeUnknown):
        await write
    assert await notes(database) == 1
    assert proxy.connects == 2


async def test_a_write_that_was_not_committed_yet_is_known_not_to_be_saved(
    database: Database, postgres: PostgresServer, database_url: str, proxy: Proxy
) -> None:
    # Of a text nobody knows how many rows it writes, so that one() looks before the COMMIT.
    async with answer_lost(postgres, database_url, proxy):
        write = await in_background(database.writer.one(gated_add, line="once"))
    with pytest.raises(DBAPIError):
        await write
    assert await notes(database) == 0
    await usable(database)


Writing = Callable[[Database], Awaitable[Any]]
WRITING: dict[str, Writing] = {
    "first": lambda database: database.writer.first(add, line="lost"),
    "execute": lambda database: database.writer.execute(add, line="lost"),
    "execute_many": lambda database: database.writer.execute_many(add, [{"line": "lost"}] * 3),
}


@pytest.mark.parametrize("write", WRITING.values(), ids=WRITING)
async def test_a_write_that_the_server_never_had_is_unknown_and_not_repeated(
    database: Database, proxy: Proxy, write: Writing
) -> None:
    await usable(database)
    proxy.silence()
    writing = await in_background(write(database))
    await asyncio.sleep(0.01)
    proxy.cut()
    with pytest.raises(CommitOutcomeUnknown):
        await writing
    assert await notes(database) == 1
    assert proxy.connects == 2


async def test_a_snapshot_and_a_stream_that_are_cut_off_say_so(
    database: Database, proxy: Proxy
) -> None:
    async def snapshot() -> None:
        async with database.reader.snapshot() as moment:
            await moment.scalar(text("SELECT 1"))
            proxy.cut()
            await moment.scalar(text("SELECT 2"))

    async def stream() -> None:
        async with database.reader.stream(wide).yield_per(10) as rows:
            async for _ in rows:
                proxy.cut()

    for number, reading in enumerate([snapshot, stream], 2):
        with pytest.raises(DBAPIError) as raised:
            await reading()
        assert raised.value.connection_invalidated
        await usable(database)
        assert proxy.connects == number


async def test_a_pool_that_takes_a_connection_by_force_says_so_as_sqlalchemy_would(
    database: Database, postgres: PostgresServer, database_url: str
) -> None:
    read = await in_background(database.reader.scalar(slow, number=1, seconds=30))
    await until_running(postgres, database_url)
    await database.close(timeout=0)
    with pytest.raises(DBAPIError):
        await read


async def test_a_server_that_restarts_after_a_crash_is_found_again() -> None:
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    with own_postgres(programs, {"synchronous_commit": "on"}) as server:
        async with Database.from_url(
            server.url(), environment="testing", pool_size=3, max_overflow=0
        ) as database:
            await database.writer.execute(text("CREATE TABLE notes (line text)"))
            victim = await backend(database)
            await asyncio.gather(*(use_a_while(database) for _ in range(3)))
            write = await in_background(database.writer.first(slow_add, line="x", seconds=30))
            await until_running(server, server.url())
            os.kill(victim, signal.SIGKILL)  # all others are ended by the server, too
            with pytest.raises(CommitOutcomeUnknown):
                await write
            await asyncio.to_thread(until_it_answers, server)
            await asyncio.gather(*(use_a_while(database) for _ in range(6)))
            assert database.pool.snapshot().checked_out == 0


async def use_a_while(database: Database) -> None:
    assert await database.reader.scalar(slow, number=1, seconds=0.01) == 1
    await database.writer.one(add, line="used")


def until_it_answers(server: PostgresServer) -> None:
    deadline = time.monotonic() + 60
    while not server.answers():
        assert time.monotonic() < deadline
        time.sleep(0.02)
