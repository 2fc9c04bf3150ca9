"""What the server and the driver say of a connection that Penstock opened."""

import secrets

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.integration.engine.engines import (
    driver_connection,
    engine_on,
    scalar,
    with_driver,
    with_parts,
)
from tests.servers.mariadb import MariadbServer
from tests.servers.postgres import PostgresServer


async def test_the_server_lists_the_application_name(postgresql_url: str) -> None:
    name = r"billing: it's \ 100 %"
    async with engine_on(postgresql_url, application_name=name) as engine:
        assert await scalar(engine, "SHOW application_name") == name


@pytest.mark.parametrize(("jit", "shown"), [(False, "off"), (True, "on")])
async def test_jit_is_what_the_setting_says(postgresql_url: str, jit: bool, shown: str) -> None:
    async with engine_on(postgresql_url, jit=jit) as engine:
        assert await scalar(engine, "SHOW jit") == shown


async def test_server_settings_arrive_with_every_character(postgresql_url: str) -> None:
    settings = {
        "timezone": "Europe/Zurich",
        "search_path": r'"a b", "c\d"' + "\t, public",
        "penstock.note": "",
    }
    async with engine_on(postgresql_url, server_settings=settings) as engine:
        shown = {name: await scalar(engine, f"SHOW {name}") for name in settings}
    assert shown == settings


async def test_a_statement_is_stopped_after_command_timeout(postgresql_url: str) -> None:
    async with engine_on(postgresql_url, command_timeout=0.2) as engine:
        with pytest.raises((TimeoutError, DBAPIError)):
            await scalar(engine, "SELECT pg_sleep(60)")
        assert await scalar(engine, "SELECT 1") == 1


async def test_psycopg_leaves_the_command_timeout_to_the_server(database_url: str) -> None:
    async with engine_on(with_driver(database_url, "psycopg"), command_timeout=1.5) as engine:
        assert await scalar(engine, "SHOW statement_timeout") == "1500ms"


@pytest.mark.parametrize("size", [4, 0])
async def test_asyncpg_keeps_so_many_prepared_statements(database_url: str, size: int) -> None:
    async with (
        engine_on(database_url, statement_cache_size=size) as engine,
        engine.connect() as connection,
    ):
        for number in range(20):
            await connection.execute(text(f"SELECT {number}"))
        raw = await driver_connection(connection)
        ours = "statement ~ '^SELECT [0-9]+$'"
        kept = await raw.fetchval(f"SELECT count(*) FROM pg_prepared_statements WHERE {ours}")
    # SQLAlchemy's cache shrinks to its size when it is half as large again.
    assert size <= kept <= size * 1.5


@pytest.mark.parametrize(("size", "kept"), [(3, {3, 4}), (0, {0})])
async def test_psycopg_keeps_so_many_prepared_statements(
    database_url: str, size: int, kept: set[int]
) -> None:
    url = with_driver(database_url, "psycopg")
    async with (
        engine_on(url, statement_cache_size=size) as engine,
        engine.connect() as connection,
    ):
        for number in range(50):
            await connection.execute(text(f"SELECT {number // 10}"))
        # psycopg lets go of the one too many with its next statement.
        listed = text("SELECT count(*) FROM pg_prepared_statements")
        assert (await connection.execute(listed)).scalar() in kept


async def test_a_unix_socket_is_just_used(
    postgres: PostgresServer, database_url: str, postgresql_url: str
) -> None:
    if postgres.directory is None:
        pytest.skip("the server of TEST_DATABASE_URL may have no Unix socket here")
    query = {"host": str(postgres.directory), "port": str(postgres.port)}
    url = with_parts(postgresql_url, host=None, port=None, query=query)
    async with engine_on(url) as engine:
        assert await scalar(engine, "SELECT inet_server_addr()") is None


async def test_the_server_stops_a_mysql_statement_after_command_timeout(mysql_url: str) -> None:
    async with engine_on(mysql_url, command_timeout=0.25) as engine:
        assert await scalar(engine, "SELECT @@max_statement_time") == 0.25
        with pytest.raises(DBAPIError, match="max_statement_time exceeded"):
            await scalar(engine, "SELECT SLEEP(60) FROM (SELECT 1 UNION SELECT 2) AS twice")
        assert await scalar(engine, "SELECT 1") == 1


async def test_mysql_lists_the_application_name(mysql_url: str) -> None:
    listed = (
        "SELECT attr_value FROM performance_schema.session_connect_attrs "
        "WHERE attr_name = 'program_name' AND processlist_id = connection_id()"
    )
    async with engine_on(mysql_url, application_name="billing") as engine:
        assert await scalar(engine, listed) == "billing"


async def test_a_mysql_password_may_have_any_character(
    mariadb: MariadbServer, mysql_url: str
) -> None:
    user, password = f"user_{secrets.token_hex(4)}", "pässwört €"
    mariadb.execute(f"CREATE USER {user} IDENTIFIED BY '{password}'")
    try:
        url = with_parts(mysql_url, username=user, password=password, database="")
        async with engine_on(url) as engine:
            assert await scalar(engine, "SELECT 1") == 1
    finally:
        mariadb.execute(f"DROP USER {user}")
