"""``pool_pre_ping``: no holder meets a dead connection, and a new one is not asked again."""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contract.door import Door, WalledUpError
from tests.contract.journal import Journal
from tests.contract.subject import (
    Subject,
    acquire,
    ask,
    backend_of,
    checked_out,
    invalidate,
    pool_of,
    release,
)
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer

POSTGRESQL = ("asyncpg", "psycopg")


class PingError(Exception):
    """Neither a driver's error nor a disconnection."""


@pytest.mark.every_driver
async def test_a_dead_connection_is_replaced_and_so_are_the_older_ones(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=3, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    journal = Journal(engine)
    leases = [await acquire(engine) for _ in range(3)]
    stale, dead = {lease.dbapi_connection for lease in leases}, leases[0].driver_connection
    await release(*leases)
    await subject.kill(dead)

    leases = [await acquire(engine) for _ in range(3)]
    assert not stale & {lease.dbapi_connection for lease in leases}
    assert [await ask(lease, "SELECT 1") for lease in leases] == [1, 1, 1]
    await release(*leases)
    assert pool_of(engine).checkedout() == 0
    await eventually(lambda: set(journal.connections("close")) == stale)
    assert (journal.count("close"), journal.count("connect")) == (3, 6)


@pytest.mark.every_driver
async def test_a_live_connection_stays(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_pre_ping=True)
    journal = Journal(engine)
    for _ in range(3):
        async with checked_out(engine) as lease:
            assert await ask(lease, "SELECT 1") == 1
    assert (journal.count("connect"), journal.count("close")) == (1, 0)


@pytest.mark.drivers(*POSTGRESQL)
async def test_a_kept_connection_is_asked_and_a_new_one_is_not(
    subject: Subject, postgres: PostgresServer
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    last_heard_of: dict[str, object] = {}

    def poll(name: str) -> None:
        def note(connection: Any, *_: object) -> None:
            if connection is None:
                return
            pid = backend_of(connection.driver_connection)
            query = f"SELECT query_start FROM pg_stat_activity WHERE pid = {pid}"
            last_heard_of[name] = postgres.execute(query)[0][0]

        event.listen(engine.sync_engine, name, note)

    for name in ("connect", "checkout", "checkin"):
        poll(name)

    async with checked_out(engine) as lease:
        assert last_heard_of["checkout"] == last_heard_of["connect"]
        await ask(lease, "SELECT 1")
    async with checked_out(engine) as lease:
        assert last_heard_of["checkout"] != last_heard_of["checkin"]
        await invalidate(lease)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with checked_out(engine):
        assert last_heard_of["checkout"] == last_heard_of["connect"]


@pytest.mark.every_driver
async def test_a_server_that_is_gone_is_the_connects_error_and_frees_the_slot(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    door = Door(engine)
    leases = [await acquire(engine), await acquire(engine)]
    drivers = [lease.driver_connection for lease in leases]
    await release(*leases)
    for driver in drivers:
        await subject.kill(driver)
    door.walled_up = True
    for _ in range(3):
        with pytest.raises(WalledUpError):
            await acquire(engine)
    await eventually(lambda: pool_of(engine).checkedout() == 0)

    door.walled_up = False
    leases = [await acquire(engine), await acquire(engine)]
    assert [await ask(lease, "SELECT 1") for lease in leases] == [1, 1]
    await release(*leases)


def let_pings_fail(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(connection: object) -> bool:
        raise error

    monkeypatch.setattr(engine.dialect, "do_ping", fail)


@pytest.mark.drivers("psycopg", "asyncmy", "aiomysql", "aiosqlite")
@pytest.mark.parametrize("disconnected", [True, False])
async def test_a_listener_decides_whether_a_failed_ping_is_a_disconnection(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, disconnected: bool
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    told: list[bool] = []

    @event.listens_for(engine.sync_engine, "handle_error")
    def decide(context: Any) -> None:
        told.append(context.is_pre_ping)
        context.is_disconnect = disconnected

    async with checked_out(engine) as lease:
        stale = lease.dbapi_connection
    dbapi: Any = engine.dialect.loaded_dbapi
    let_pings_fail(engine, monkeypatch, dbapi.OperationalError("strange"))
    if disconnected:
        async with checked_out(engine) as lease:
            assert lease.dbapi_connection is not stale
    else:
        with pytest.raises((DBAPIError, dbapi.OperationalError)):
            await acquire(engine)
    assert told == [True]
    await eventually(lambda: pool_of(engine).checkedout() == 0)


@pytest.mark.drivers("psycopg", "asyncmy", "aiomysql", "aiosqlite")
async def test_a_ping_that_fails_for_another_reason_is_an_error_and_frees_the_slot(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    await release(await acquire(engine))
    with monkeypatch.context() as patch:
        let_pings_fail(engine, patch, PingError())
        with pytest.raises(PingError):
            await acquire(engine)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with checked_out(engine) as lease:
        assert await ask(lease, "SELECT 1") == 1
