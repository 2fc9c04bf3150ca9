"""A checkout listener may refuse a connection, or all of them, and the pool reconnects."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contract.door import Door, WalledUpError
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, checked_out, pool_of, release
from tests.eventually import eventually

REFUSED = ["checkout", "invalidate", "close", "connect"]


def refuse(engine: AsyncEngine, unwanted: Callable[[Any], bool], error: type[Exception]) -> None:
    """Let a checkout listener refuse the connections that are unwanted."""

    @event.listens_for(engine.sync_engine, "checkout")
    def poll(connection: Any, *_: object) -> None:
        if unwanted(connection):
            raise error


@pytest.mark.every_driver
async def test_a_refused_connection_is_replaced_before_it_is_checked_out(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    async with checked_out(engine) as lease:
        stale, driver = lease.dbapi_connection, lease.driver_connection
    journal.clear()
    refuse(engine, lambda connection: connection is stale, DisconnectionError)

    async with checked_out(engine) as lease:
        fresh = lease.dbapi_connection
        assert fresh is not stale
        assert journal.names == [*REFUSED, "checkout"]
        assert journal.connections("checkout") == [stale, fresh]
        assert isinstance(journal.of("invalidate")[0].rest[1], DisconnectionError)
    assert journal.names == [*REFUSED, "checkout", "reset", "checkin"]
    await eventually(lambda: subject.is_closed(driver))
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is fresh


async def test_the_listeners_after_the_refusing_one_see_only_the_new_connection(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    async with checked_out(engine) as lease:
        stale = lease.dbapi_connection
    refuse(engine, lambda connection: connection is stale, DisconnectionError)
    seen: list[Any] = []
    event.listen(engine.sync_engine, "checkout", lambda connection, *_: seen.append(connection))
    async with checked_out(engine) as lease:
        assert seen == [lease.dbapi_connection]


@pytest.mark.every_driver
@pytest.mark.parametrize("error", [DisconnectionError, InvalidatePoolError])
async def test_the_pool_gives_up_after_two_attempts(
    subject: Subject, error: type[Exception]
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    unwanted = True
    refuse(engine, lambda _: unwanted, error)
    with pytest.raises(InvalidRequestError, match="This connection is closed"):
        await acquire(engine)
    assert (journal.count("checkout"), journal.count("connect")) == (2, 3)
    await eventually(lambda: pool_of(engine).checkedout() == 0)

    unwanted = False
    async with checked_out(engine):
        assert pool_of(engine).checkedout() == 1


async def test_refusing_the_pool_replaces_its_other_connections_too(subject: Subject) -> None:
    engine = subject.engine(pool_size=3, max_overflow=0, pool_timeout=5)
    leases = [await acquire(engine) for _ in range(3)]
    stale = {lease.dbapi_connection for lease in leases}
    first = leases[0].dbapi_connection
    await release(*leases)
    refuse(engine, lambda connection: connection is first, InvalidatePoolError)
    leases = [await acquire(engine) for _ in range(3)]
    fresh = {lease.dbapi_connection for lease in leases}
    assert not stale & fresh
    await release(*leases)
    assert (pool_of(engine).checkedin(), pool_of(engine).checkedout()) == (3, 0)
    leases = [await acquire(engine) for _ in range(3)]
    assert {lease.dbapi_connection for lease in leases} == fresh
    await release(*leases)


async def test_refusing_one_connection_leaves_the_others_alone(subject: Subject) -> None:
    engine = subject.engine(pool_size=3, max_overflow=0, pool_timeout=5)
    leases = [await acquire(engine) for _ in range(3)]
    first, *others = (lease.dbapi_connection for lease in leases)
    await release(*leases)
    refuse(engine, lambda connection: connection is first, DisconnectionError)
    leases = [await acquire(engine) for _ in range(3)]
    now = {lease.dbapi_connection for lease in leases}
    assert first not in now
    assert now > set(others)
    await release(*leases)


@pytest.mark.every_driver
async def test_a_reconnect_that_fails_is_raised_and_frees_the_slot(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=2, pool_timeout=5)
    door = Door(engine)
    async with checked_out(engine) as lease:
        stale = lease.dbapi_connection
    refuse(engine, lambda connection: connection is stale, DisconnectionError)
    door.walled_up = True
    with pytest.raises(WalledUpError):
        await acquire(engine)
    await eventually(lambda: pool_of(engine).checkedout() == 0)

    door.walled_up = False
    leases = [await acquire(engine) for _ in range(3)]
    assert pool_of(engine).checkedout() == 3
    await release(*leases)


async def test_a_cancelled_reconnect_frees_the_slot(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    door = Door(engine)
    async with checked_out(engine) as lease:
        stale = lease.dbapi_connection
    refuse(engine, lambda connection: connection is stale, DisconnectionError)
    door.shut()
    task = asyncio.create_task(acquire(engine))
    await eventually(lambda: door.arrivals == 2)
    task.cancel()
    door.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is not stale


async def test_the_connection_of_another_process_is_left_alone_and_replaced(
    subject: Subject,
) -> None:
    # SQLAlchemy's recipe for forked processes: forget the parent's connection, do not close it.
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    process = os.getpid()

    @event.listens_for(engine.sync_engine, "connect")
    def mark(_connection: Any, record: Any) -> None:
        record.info["pid"] = process

    @event.listens_for(engine.sync_engine, "checkout")
    def poll(_connection: Any, record: Any, proxy: Any) -> None:
        if record.info["pid"] != process:
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError

    async with checked_out(engine) as lease:
        parents = lease.driver_connection
    process += 1
    async with checked_out(engine) as lease:
        assert lease.driver_connection is not parents
        assert pool_of(engine).checkedout() == 1
    assert not subject.is_closed(parents)
    async with checked_out(engine) as lease:
        assert lease.driver_connection is not parents
    await subject.kill(parents)
    await eventually(lambda: subject.is_closed(parents))
