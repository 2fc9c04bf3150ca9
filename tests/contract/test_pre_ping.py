"""``pool_pre_ping``: no borrower meets a dead connection, and a new one is not asked again."""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contract.door import Door, WalledUpError
from tests.contract.journal import Journal
from tests.contract.subject import (
    Subject,
    ask,
    backend_of,
    borrow,
    give_back,
    invalidate,
    lent,
    pool_of,
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
    loans = [await borrow(engine) for _ in range(3)]
    stale, dead = {loan.dbapi_connection for loan in loans}, loans[0].driver_connection
    await give_back(*loans)
    await subject.kill(dead)

    loans = [await borrow(engine) for _ in range(3)]
    assert not stale & {loan.dbapi_connection for loan in loans}
    assert [await ask(loan, "SELECT 1") for loan in loans] == [1, 1, 1]
    await give_back(*loans)
    assert pool_of(engine).checkedout() == 0
    await eventually(lambda: set(journal.connections("close")) == stale)
    assert (journal.count("close"), journal.count("connect")) == (3, 6)


@pytest.mark.every_driver
async def test_a_live_connection_stays(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_pre_ping=True)
    journal = Journal(engine)
    for _ in range(3):
        async with lent(engine) as loan:
            assert await ask(loan, "SELECT 1") == 1
    assert (journal.count("connect"), journal.count("close")) == (1, 0)


@pytest.mark.drivers(*POSTGRESQL)
async def test_a_kept_connection_is_asked_and_a_new_one_is_not(
    subject: Subject, postgres: PostgresServer
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    last_heard_of: dict[str, object] = {}

    def look(name: str) -> None:
        def note(connection: Any, *_: object) -> None:
            if connection is None:
                return
            pid = backend_of(connection.driver_connection)
            query = f"SELECT query_start FROM pg_stat_activity WHERE pid = {pid}"
            last_heard_of[name] = postgres.execute(query)[0][0]

        event.listen(engine.sync_engine, name, note)

    for name in ("connect", "checkout", "checkin"):
        look(name)

    async with lent(engine) as loan:
        assert last_heard_of["checkout"] == last_heard_of["connect"]
        await ask(loan, "SELECT 1")
    async with lent(engine) as loan:
        assert last_heard_of["checkout"] != last_heard_of["checkin"]
        await invalidate(loan)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with lent(engine):
        assert last_heard_of["checkout"] == last_heard_of["connect"]


@pytest.mark.every_driver
async def test_a_server_that_is_gone_is_the_connects_error_and_frees_the_slot(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    door = Door(engine)
    loans = [await borrow(engine), await borrow(engine)]
    drivers = [loan.driver_connection for loan in loans]
    await give_back(*loans)
    for driver in drivers:
        await subject.kill(driver)
    door.walled_up = True
    for _ in range(3):
        with pytest.raises(WalledUpError):
            await borrow(engine)
    await eventually(lambda: pool_of(engine).checkedout() == 0)

    door.walled_up = False
    loans = [await borrow(engine), await borrow(engine)]
    assert [await ask(loan, "SELECT 1") for loan in loans] == [1, 1]
    await give_back(*loans)


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

    async with lent(engine) as loan:
        stale = loan.dbapi_connection
    dbapi: Any = engine.dialect.loaded_dbapi
    let_pings_fail(engine, monkeypatch, dbapi.OperationalError("strange"))
    if disconnected:
        async with lent(engine) as loan:
            assert loan.dbapi_connection is not stale
    else:
        with pytest.raises((DBAPIError, dbapi.OperationalError)):
            await borrow(engine)
    assert told == [True]
    await eventually(lambda: pool_of(engine).checkedout() == 0)


@pytest.mark.drivers("psycopg", "asyncmy", "aiomysql", "aiosqlite")
async def test_a_ping_that_fails_for_another_reason_is_an_error_and_frees_the_slot(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    await give_back(await borrow(engine))
    with monkeypatch.context() as patch:
        let_pings_fail(engine, patch, PingError())
        with pytest.raises(PingError):
            await borrow(engine)
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with lent(engine) as loan:
        assert await ask(loan, "SELECT 1") == 1
