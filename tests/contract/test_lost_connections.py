"""Connections that die below the pool, and what the pool does about the others."""

import logging
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, ask, checked_out, pool_of, release
from tests.eventually import eventually

SERVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql")


async def filled(engine: AsyncEngine, count: int) -> list[Any]:
    """Open ``count`` connections, return them to the pool, and tell which they are."""
    leases = [await acquire(engine) for _ in range(count)]
    connections = [lease.dbapi_connection for lease in leases]
    await release(*leases)
    return connections


async def all_of(engine: AsyncEngine, count: int) -> set[Any]:
    """Check out ``count`` connections at once, and tell which they were."""
    return set(await filled(engine, count))


async def driver_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


@pytest.mark.every_driver
async def test_a_connection_lost_in_use_is_an_error_and_the_whole_pool_is_replaced(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=3, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    stale = set(await filled(engine, 3))
    async with engine.connect() as connection:
        await subject.kill(await driver_of(connection))
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT 1"))
        assert raised.value.connection_invalidated
        assert connection.invalidated
    assert journal.of("invalidate")[0].rest[1] is raised.value.orig

    await eventually(lambda: pool_of(engine).checkedout() == 0)
    assert not stale & await all_of(engine, 3)
    assert pool_of(engine).checkedout() == 0
    await eventually(lambda: set(journal.connections("close")) == stale)
    assert (journal.count("close"), journal.count("connect")) == (3, 6)


async def test_a_lease_is_kept_when_the_pool_is_replaced_and_renewed_afterwards(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0, pool_timeout=5)
    async with engine.connect() as bystander:
        async with engine.connect() as connection:
            await subject.kill(await driver_of(connection))
            with pytest.raises(DBAPIError):
                await connection.execute(text("SELECT 1"))
        assert (await bystander.execute(text("SELECT 1"))).scalar() == 1
        kept = (await bystander.get_raw_connection()).dbapi_connection
    assert kept not in await all_of(engine, 2)


@pytest.mark.every_driver
async def test_an_error_that_is_no_disconnection_keeps_the_connection(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT * FROM no_such_table"))
        assert not raised.value.connection_invalidated
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    assert (journal.count("connect"), journal.count("invalidate")) == (1, 0)


@pytest.mark.parametrize("whole_pool", [True, False], ids=["pool", "connection"])
async def test_a_listener_can_declare_an_error_a_disconnection(
    subject: Subject, whole_pool: bool
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0, pool_timeout=5)

    @event.listens_for(engine.sync_engine, "handle_error")
    def declare(context: Any) -> None:
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = whole_pool

    condemned, other = await filled(engine, 2)
    async with engine.connect() as connection:
        assert (await connection.get_raw_connection()).dbapi_connection is condemned
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT * FROM no_such_table"))
        assert connection.invalidated
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    now = await all_of(engine, 2)
    assert condemned not in now
    assert (other in now) is not whole_pool


@pytest.mark.drivers(*SERVERS)
async def test_a_connection_that_cannot_be_reset_is_replaced_without_an_error(
    subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    lease = await acquire(engine)
    dead = lease.dbapi_connection
    await ask(lease, "SELECT 1")
    await subject.kill(lease.driver_connection)
    await release(lease)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "Exception during reset" in caplog.text
    assert journal.connections("invalidate") == [dead]
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1


@pytest.mark.every_driver
async def test_a_connection_that_cannot_be_closed_frees_its_slot(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    terminate = engine.dialect.do_terminate

    def fail(connection: Any) -> None:
        terminate(connection)
        raise OSError("no way")

    monkeypatch.setattr(engine.dialect, "do_terminate", fail)
    async with engine.connect() as connection:
        await connection.invalidate()
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    await eventually(lambda: "Exception terminating connection" in caplog.text)
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
