"""What each pool mode of PgBouncer lets a service do, and the error where it does not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
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
    "SELECT set_config('work_mem', '5MB', false)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock_shared(1)",
    "LISTEN news",
    "PREPARE kept AS SELECT 1",
    "CREATE TEMP TABLE kept (id int)",
    "CREATE TEMPORARY TABLE IF NOT EXISTS kept (id int)",
    "DECLARE kept CURSOR WITH HOLD FOR SELECT 1",
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
            elif not statement.startswith("CREATE"):
                await way(database, statement)
        assert database.pool.snapshot().checked_out == 0
    assert await leftovers(url) == CLEAN


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
