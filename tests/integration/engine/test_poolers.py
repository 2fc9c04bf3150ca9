"""What is found out at the first connection through PgBouncer, and what is refused then."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from tests.integration.express.leftovers import CLEAN, SERVERS, leftovers
from tests.servers.pgbouncer import (
    Era,
    PgbouncerServer,
    newest_pgbouncer,
    pgbouncer_of,
    pgbouncer_server,
)
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.engine.connector import ReadOnlyConnections
from penstock.errors import ConnectFailed, SettingsError

PROGRAMS: dict[str, Callable[[], Path]] = {
    "before-1.21": lambda: pgbouncer_of(Era.BLIND),
    "since-1.21": lambda: pgbouncer_of(Era.FOLLOWING),
    "since-1.26": newest_pgbouncer,
}
FOLLOWED = [0, 100]
IGNORED = {"ignore_startup_parameters": "jit,default_transaction_isolation,app.tenant,options"}
DRIVERS = ["asyncpg", "psycopg"]


@pytest.fixture(
    scope="module",
    params=[
        (program, followed)
        for program in PROGRAMS
        for followed in FOLLOWED
        if (program, followed) != ("before-1.21", 100)
    ],
    ids=lambda param: f"{param[0]}-following-{param[1]}",
)
def pooler(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[PgbouncerServer]:
    program, followed = request.param
    with pgbouncer_server(
        postgres,
        binary=PROGRAMS[program](),
        pool_mode="transaction",
        default_pool_size=SERVERS,
        max_prepared_statements=None if program == "before-1.21" else followed,
        settings=IGNORED,
    ) as server:
        yield server


@pytest.fixture
def follows(request: pytest.FixtureRequest, pooler: PgbouncerServer) -> bool:
    assert pooler.port
    return request.node.callspec.params["pooler"][1] > 0  # type: ignore[no-any-return]


def database_on(url: str, driver: str = "asyncpg", **settings: Any) -> Database:
    return Database.from_url(
        url.replace("asyncpg", driver),
        **{"environment": "testing", "pool_size": SERVERS, "max_overflow": 0, **settings},
    )


def found(database: Database) -> ReadOnlyConnections:
    return database._read_only_connections


async def one(database: Database) -> object:
    async with database.read() as session:
        return await session.scalar(select(1))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("environment", ["testing", "serverless"])
@pytest.mark.parametrize("proxy", [None, "pgbouncer"])
async def test_kept_statements_are_refused_unless_the_pooler_follows_them(
    pooler: PgbouncerServer,
    database_url: str,
    follows: bool,
    *,
    driver: str,
    environment: str,
    proxy: str | None,
) -> None:
    url = pooler.url(database_url)
    database = database_on(
        url, driver, proxy=proxy, environment=environment, statement_cache_size=50
    )
    if follows:
        async with database:
            assert await one(database) == 1
    else:
        attempts = [database.open(), database.open(), one(database)]
        errors = await asyncio.gather(*attempts, return_exceptions=True)
        assert [type(error) for error in errors] == [SettingsError] * 3
        assert "statement_cache_size=50" in str(errors[0])
        assert "set statement_cache_size=0" in str(errors[0])
        await database.close()
    kept = {thing for each in await leftovers(url) for thing in each}
    assert follows or kept == set()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_pooler_that_is_named_gets_what_suits_each(
    pooler: PgbouncerServer, database_url: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = pooler.url(database_url)
    with caplog.at_level(logging.WARNING, "penstock.engine"):
        async with database_on(url, driver, proxy="pgbouncer") as database:
            assert await one(database) == 1
            assert found(database).pooler is not None
            assert not found(database).are_possible
    assert "A pooler stands between" not in caplog.text
    assert await leftovers(url) == CLEAN


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("environment", ["testing", "serverless"])
async def test_that_it_shares_server_connections_is_found_out(
    pooler: PgbouncerServer, database_url: str, driver: str, environment: str
) -> None:
    url = pooler.url(database_url)
    async with database_on(url, driver, proxy="pgbouncer", environment=environment) as database:
        assert await one(database) == 1
        assert found(database).shares_server


async def test_the_newest_tells_its_version_and_mode(
    postgres: PostgresServer, database_url: str
) -> None:
    program = newest_pgbouncer()
    for mode in ("session", "transaction"):
        with pgbouncer_server(postgres, binary=program, pool_mode=mode) as server:
            async with database_on(server.url(database_url), proxy="pgbouncer") as database:
                pooler = found(database).pooler
                version = ".".join(map(str, server.version))
                assert str(pooler) == f"PgBouncer {version} (pool_mode={mode})"


async def test_kept_statements_are_accepted_where_sessions_are_known_to_be_kept(
    postgres: PostgresServer, database_url: str
) -> None:
    with pgbouncer_server(
        postgres, binary=newest_pgbouncer(), pool_mode="session", max_prepared_statements=0
    ) as server:
        url = server.url(database_url)
        async with database_on(url, proxy="pgbouncer", statement_cache_size=50) as database:
            assert await one(database) == 1


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=list(PROGRAMS))
async def test_statement_mode_is_refused_with_what_is_needed(
    postgres: PostgresServer, database_url: str, driver: str, program: Callable[[], Path]
) -> None:
    with pgbouncer_server(postgres, binary=program(), pool_mode="statement") as server:
        database = database_on(server.url(database_url), driver, proxy="pgbouncer")
        with pytest.raises(SettingsError, match="pool_mode=transaction or session is needed"):
            await database.open()
        await database.close()


DROPPED: dict[str, tuple[dict[str, Any], str]] = {
    "isolation_level": ({"isolation_level": "SERIALIZABLE"}, "isolation_level='SERIALIZABLE'"),
    "server_settings": ({"server_settings": {"app.tenant": "o'brien"}}, "app.tenant"),
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("case", DROPPED.values(), ids=list(DROPPED))
async def test_what_is_dropped_in_silence_is_refused_by_its_name(
    pooler: PgbouncerServer, database_url: str, driver: str, case: tuple[dict[str, Any], str]
) -> None:
    settings, named = case
    database = database_on(pooler.url(database_url), driver, proxy="pgbouncer", **settings)

    with pytest.raises(SettingsError, match="ALTER ROLE") as refused:
        await database.open()

    assert named in str(refused.value)
    assert "brien" not in str(refused.value)
    await database.close()


async def test_what_the_pooler_follows_itself_is_accepted(
    pooler: PgbouncerServer, database_url: str
) -> None:
    zone = {"timezone": "Asia/Kolkata"}
    url = pooler.url(database_url)
    async with database_on(url, proxy="pgbouncer", server_settings=zone) as database:
        shown = await database.reader.scalar(text("SHOW timezone"))
    assert shown == "Asia/Kolkata"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "jit": ({"jit": False}, "jit asks for it"),
    "isolation_level": ({"isolation_level": "SERIALIZABLE"}, "isolation_level asks for it"),
    "server_settings": ({"server_settings": {"work_mem": "8MB"}}, "server_settings asks for it"),
}


@pytest.mark.parametrize("program", list(PROGRAMS.values())[:2], ids=list(PROGRAMS)[:2])
@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
async def test_what_the_pooler_refuses_is_told_by_its_setting(
    postgres: PostgresServer,
    database_url: str,
    program: Callable[[], Path],
    case: tuple[dict[str, Any], str],
) -> None:
    settings, named = case
    with pgbouncer_server(postgres, binary=program(), pool_mode="transaction") as server:
        database = database_on(server.url(database_url), proxy="pgbouncer", **settings)
        with pytest.raises(ConnectFailed, match="unsupported startup parameter") as refused:
            await database.open()
        await database.close()
    assert named in str(refused.value)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_nothing_is_found_where_postgresql_answers(database_url: str, driver: str) -> None:
    async with database_on(database_url, driver) as database:
        assert await one(database) == 1
        assert found(database).pooler is None
        assert found(database).are_possible == (driver == "asyncpg")
