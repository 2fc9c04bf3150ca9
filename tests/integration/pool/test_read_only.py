"""A connection is set read-only in front of its next statement, and freed the same way."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.eventually import eventually
from tests.integration.pool.pools import MakeEngine, pool_of
from tests.integration.pool.read_only import (
    DEFAULT,
    INSERT,
    Use,
    acquire,
    acquire_to_read,
    cancel_a_read,
    fail_to_read,
    read,
    read_only,
    roll_back,
    rows,
    with_notes,
    write,
    write_in_autocommit,
)
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy

from penstock import PenstockPool


@pytest.fixture
async def engine(make_engine: MakeEngine) -> AsyncEngine:
    """A pool of one connection, and an empty table."""
    return await with_notes(make_engine)


BEFORE: list[Use] = [
    read,
    acquire_to_read,
    cancel_a_read,
    fail_to_read,
    write,
    write_in_autocommit,
    roll_back,
    acquire,
]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("use", [read, write, write_in_autocommit, fail_to_read])
async def test_whoever_had_the_connection_before_changes_nothing(
    engine: AsyncEngine, before: Use, use: Use
) -> None:
    await before(engine)
    await use(engine)
    await before(engine)
    await use(engine)
    assert pool_of(engine).snapshot().opened_total == 1


@pytest.mark.parametrize("before", BEFORE)
async def test_what_an_engines_user_does_not_commit_is_not_saved(
    engine: AsyncEngine, before: Use
) -> None:
    await before(engine)
    saved = await rows(engine)
    await before(engine)
    more = await rows(engine) - saved
    await before(engine)
    await roll_back(engine)
    assert await rows(engine) == saved + 2 * more


async def test_many_read_only_switches_may_be_sent_before_any_statement(
    engine: AsyncEngine, proxy: Proxy
) -> None:
    await write(engine)
    proxy.silence()
    for _ in range(20):  # none waits for an answer
        await acquire_to_read(engine)
        await acquire(engine)
    proxy.heal()
    await read(engine)
    await write(engine)
    assert await rows(engine) == 2
    assert proxy.connects == 1


async def test_a_reader_needs_one_round_trip(engine: AsyncEngine, proxy: Proxy) -> None:
    for before in (read, write, roll_back):
        await before(engine)
        await read(engine)
        await before(engine)
        spent = proxy.round_trips
        await read(engine)
        assert proxy.round_trips - spent == 1


async def test_the_roles_own_default_is_kept(
    engine: AsyncEngine, database_url: str, postgres: PostgresServer
) -> None:
    role = make_url(database_url).username
    postgres.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    careful = create_async_engine(database_url, poolclass=PenstockPool, pool_size=1, max_overflow=0)
    for _ in range(2):
        await read(careful)
        async with careful.connect() as connection:
            assert await connection.scalar(DEFAULT) == "on"
            with pytest.raises(DBAPIError, match="read-only transaction"):
                await connection.execute(INSERT)
    await careful.dispose()


async def test_a_statements_own_error_reaches_its_caller_alone(engine: AsyncEngine) -> None:
    for _ in range(2):
        await write(engine)
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with read_only(engine) as driver:
                await driver.execute("SELECT 1/0")
    await read(engine)
    assert pool_of(engine).snapshot().opened_total == 1


@pytest.fixture
async def heard(engine: AsyncEngine) -> AsyncIterator[list[str]]:
    """What is notified to the pool's one connection."""
    heard: list[str] = []
    async with read_only(engine) as driver:  # of which the pool does not hear
        await driver.add_listener("news", lambda *news: heard.append(news[3]))
    yield heard
    async with read_only(engine) as driver:
        await driver.reset()


async def test_notifications_that_come_with_the_answer_reach_the_driver(
    engine: AsyncEngine, heard: list[str], postgres: PostgresServer, proxy: Proxy
) -> None:
    name = make_url(str(engine.url)).database or ""
    proxy.silence()
    await acquire_to_read(engine)
    for number in range(3):
        postgres.execute(f"NOTIFY news, '{number}'", name)
    proxy.heal()
    await read(engine)
    await eventually(lambda: heard == ["0", "1", "2"])
    await write(engine)


async def test_a_parameters_new_value_that_comes_with_the_answer_reaches_the_driver(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "penstock.drivers.asyncpg.SET_READ_ONLY",
        "SET default_transaction_read_only = on; SET application_name = 'changed'",
    )
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    assert driver.get_settings().application_name != "changed"
    await read(engine)
    assert driver.get_settings().application_name == "changed"


async def test_a_reset_listener_that_forgets_all_settings_frees_no_reader(
    engine: AsyncEngine,
) -> None:
    @event.listens_for(engine.sync_engine, "reset")
    def forget(dbapi_connection: Any, record: object, state: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("RESET ALL")
        cursor.close()

    for _ in range(2):
        await read(engine)
        await fail_to_read(engine)
        await write(engine)
