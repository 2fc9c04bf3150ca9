"""What each pool mode of PgBouncer lets a service do, and the error where it does not."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, select, text
from tests.integration.engine.test_poolers import DRIVERS, PROGRAMS, database_on, found
from tests.integration.express.leftovers import CLEAN, SERVERS, leftovers
from tests.servers.pgbouncer import PgbouncerServer, pgbouncer_server
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.base_error import PenstockError

MODES = ["session", "transaction"]


@dataclass(frozen=True)
class Pooled:
    mode: str
    server: PgbouncerServer


@pytest.fixture(
    scope="module",
    params=[(program, mode) for program in PROGRAMS for mode in MODES],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def pooled(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[Pooled]:
    program, mode = request.param
    binary: Callable[[], Path] = PROGRAMS[program]
    with pgbouncer_server(
        postgres, binary=binary(), pool_mode=mode, default_pool_size=SERVERS
    ) as server:
        yield Pooled(mode, server)


STATEFUL = [
    "SET work_mem = '5MB'",
    "/* first */ SET SESSION work_mem = '5MB'",
    "SET ROLE NONE",
    "SET search_path = pg_catalog",
    "SET intervalstyle = 'iso_8601'",
    "SELECT set_config('work_mem', '5MB', false)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock_shared(1)",
    "LISTEN news",
    "PREPARE kept AS SELECT 1",
    "CREATE TEMP TABLE kept (id int)",
    "CREATE TEMPORARY TABLE IF NOT EXISTS kept (id int)",
    "DECLARE kept CURSOR WITH HOLD FOR SELECT 1",
    "SELECT 4711 AS secret INTO LOCAL TEMP kept",
    'SELECT pg_catalog."pg_advisory_lock" /* it\'s */ (1)',
    "SELECT set_config('work_mem', '5MB', (1=2))",
    "RESET work_mem",
    "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
]
LOCAL = [
    "SET LOCAL work_mem = '5MB'",
    "SET CONSTRAINTS ALL DEFERRED",
    "SELECT set_config('work_mem', '5MB', true)",
    "SELECT pg_advisory_xact_lock(1)",
    "CREATE TEMP TABLE kept (id int) ON COMMIT DROP",
    "DECLARE kept CURSOR FOR SELECT 1",
    "SET timezone = 'UTC'",
    "SET TIME ZONE 'UTC'",
    "NOTIFY news",
]


async def in_session(database: Database, statement: str) -> None:
    async with database.write() as session:
        await session.execute(text(statement))


async def in_connection(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        await connection.execute(text(statement))


async def by_writer(database: Database, statement: str) -> None:
    await database.writer.execute(text(statement))


WAYS = {"session": in_session, "connection": in_connection, "writer": by_writer}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
async def test_what_would_stay_for_others_is_refused_in_transaction_mode_alone(
    pooled: Pooled, database_url: str, driver: str, way: Callable[[Database, str], Any]
) -> None:
    url = pooled.server.url(database_url)
    async with database_on(url, driver, proxy="pgbouncer") as database:
        assert found(database).shares_server == (pooled.mode == "transaction")
        for statement in STATEFUL:
            if statement.startswith("DECLARE") and way is by_writer:
                continue  # no statement of the express lane
            if pooled.mode == "transaction":
                with pytest.raises(PenstockError, match=r"is refused: the pooler in between"):
                    await way(database, statement)
                assert await database.reader.scalar(select(1)) == 1
            elif not re.search("CREATE|INTO", statement):
                await way(database, statement)
        assert database.pool.snapshot().checked_out == 0
    assert await leftovers(url) == CLEAN


async def by_reader(database: Database, statement: str) -> None:
    await database.reader.all(text(statement))


async def in_context(database: Database, statement: str) -> None:
    reader = database.reader.with_context(settings={"app.tenant": "one"})
    await reader.all(text(statement))


async def in_writing_context(database: Database, statement: str) -> None:
    writer = database.writer.with_context(settings={"app.tenant": "one"})
    await writer.execute(text(statement))


async def by_stream(database: Database, statement: str) -> None:
    async with database.reader.stream(text(statement)) as rows:
        assert [row async for row in rows]


async def by_snapshot(database: Database, statement: str) -> None:
    async with database.reader.snapshot() as moment:
        await moment.all(text(statement))


@pytest.mark.parametrize("way", [by_reader, in_context, in_writing_context, by_stream, by_snapshot])
async def test_no_way_of_the_lane_leaves_state_for_others(
    pooled: Pooled, database_url: str, way: Callable[[Database, str], Any]
) -> None:
    if pooled.mode == "session":
        pytest.skip("each client has a server session of its own")
    url = pooled.server.url(database_url)
    async with database_on(url, proxy="pgbouncer") as database:
        for statement in filter(re.compile("SELECT").match, STATEFUL):
            with pytest.raises(PenstockError, match=r"is refused: the pooler in between"):
                await way(database, statement)
            assert await database.reader.scalar(select(1)) == 1
        assert database.pool.snapshot().checked_out == 0
    assert await leftovers(url) == CLEAN


async def name_and_zone(database: Database) -> tuple[Any, Any]:
    async with database.connection() as connection:
        name = await connection.scalar(text("SHOW application_name"))
        return name, await connection.scalar(text("SHOW timezone"))


async def in_vain(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await in_connection(database, "SELECT pg_sleep(5)")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_connection_keeps_its_settings_and_those_of_others_stay(
    pooled: Pooled, postgres: PostgresServer, database_url: str, driver: str
) -> None:
    url = pooled.server.url(database_url)
    postgres.execute(
        "CREATE FUNCTION unknown() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        make_url(url).database or "",
    )
    address = make_url(url).set(drivername="postgresql").render_as_string(False)
    locks = "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory'"
    one = {"proxy": "pgbouncer", "pool_size": 1, "application_name": "ours"}
    with psycopg.connect(address, autocommit=True) as other:
        # On the server connection that is used next, which a reset of ours would unlock.
        other.execute("SELECT pg_advisory_lock(4711)")
        async with database_on(url, driver, **one) as database:
            expected = await name_and_zone(database)
            assert expected[0] == "ours"
            for _ in range(SERVERS):
                await in_connection(database, "SELECT unknown()")
                assert await name_and_zone(database) == expected
            opened = database.pool.snapshot().opened_total
            assert pooled.mode == "session" or opened == 1
            await in_vain(database)
            assert await name_and_zone(database) == expected
            await in_session(database, "SET TIME ZONE 'Europe/Rome'")
            assert await name_and_zone(database) == expected
            assert postgres.execute(locks) == [(1,)]
        other.execute("SELECT pg_advisory_unlock_all()")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_what_ends_with_the_transaction_works_in_both(
    pooled: Pooled, database_url: str, driver: str
) -> None:
    url = pooled.server.url(database_url)
    async with database_on(url, driver, proxy="pgbouncer") as database:
        for statement in LOCAL:
            await in_session(database, statement)
    assert await leftovers(url) == CLEAN


@pytest.mark.parametrize("driver", DRIVERS)
async def test_state_is_kept_where_the_session_is(
    pooled: Pooled, database_url: str, driver: str
) -> None:
    async with database_on(pooled.server.url(database_url), driver, proxy="pgbouncer") as database:
        if pooled.mode == "transaction":
            with pytest.raises(PenstockError, match="keep_state=True"):
                async with database.connection(keep_state=True):
                    raise AssertionError("it was given out")
        else:
            async with database.connection(keep_state=True) as connection:
                await connection.execute(text("SET work_mem = '5MB'"))
                await connection.commit()
                assert await connection.scalar(text("SHOW work_mem")) == "5MB"
        assert database.pool.snapshot().checked_out == 0


async def test_a_mode_that_cannot_be_found_out_in_time_delays_the_start_by_little(
    postgres: PostgresServer, database_url: str
) -> None:
    binary = PROGRAMS["before-1.21"]()
    with pgbouncer_server(
        postgres, binary=binary, pool_mode="session", default_pool_size=1
    ) as server:
        url = server.url(database_url)
        async with database_on(url, proxy="pgbouncer", pool_size=1) as database:
            assert await database.reader.scalar(select(1)) == 1
            assert not found(database).shares_server
