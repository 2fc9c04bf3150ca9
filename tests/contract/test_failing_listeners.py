"""An error in a listener reaches who may know of it, and never costs a slot."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, checked_out, pool_of, release
from tests.eventually import eventually


class ListenerError(Exception):
    """An ordinary error."""


class ListenerInterrupt(BaseException):
    """One that ``except Exception`` does not catch, as those of timeouts and of Ctrl-C."""


ERRORS = pytest.mark.parametrize("error", [ListenerError, ListenerInterrupt])


def fail_at(engine: AsyncEngine, name: str, error: type[BaseException]) -> Callable[[], None]:
    """Let one event's listener fail, until the returned function is called."""

    def fail(*_: object) -> None:
        raise error

    event.listen(engine.sync_engine, name, fail)
    return lambda: event.remove(engine.sync_engine, name, fail)


async def is_whole(engine: AsyncEngine, size: int) -> None:
    """Assert that nothing is checked out, and that all of ``size`` connections can be at once."""
    await eventually(lambda: pool_of(engine).checkedout() == 0)
    leases = [await acquire(engine) for _ in range(size)]
    assert pool_of(engine).checkedout() == size
    await release(*leases)
    assert pool_of(engine).checkedout() == 0


@pytest.mark.every_driver
@pytest.mark.parametrize("name", ["first_connect", "connect", "checkout"])
@ERRORS
async def test_an_error_while_checkout_reaches_the_holder(
    subject: Subject, name: str, error: type[BaseException]
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    forgive = fail_at(engine, name, error)
    for _ in range(3):
        with pytest.raises(error):
            await acquire(engine)
    forgive()
    await is_whole(engine, 1)
    assert journal.count("checkin") == journal.count("checkout")


@pytest.mark.parametrize("name", ["connect", "checkout"])
@ERRORS
async def test_an_error_while_checkout_one_does_not_touch_the_others(
    subject: Subject, name: str, error: type[BaseException]
) -> None:
    engine = subject.engine(pool_size=2, max_overflow=1, pool_timeout=5)
    leases = [await acquire(engine), await acquire(engine)]
    forgive = fail_at(engine, name, error)
    with pytest.raises(error):
        await acquire(engine)
    await eventually(lambda: pool_of(engine).checkedout() == 2)
    forgive()
    async with checked_out(engine):
        assert pool_of(engine).checkedout() == 3
    await release(*leases)
    await is_whole(engine, 3)


@pytest.mark.every_driver
async def test_an_error_at_reset_is_logged_and_the_connection_is_replaced(
    subject: Subject, caplog: pytest.LogCaptureFixture
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    forgive = fail_at(engine, "reset", ListenerError)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    forgive()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "Exception during reset" in caplog.text
    await is_whole(engine, 1)
    assert (journal.count("invalidate"), journal.count("connect")) == (1, 2)


@pytest.mark.every_driver
@pytest.mark.parametrize("error", [ListenerInterrupt, asyncio.CancelledError])
async def test_an_interrupt_at_reset_reaches_the_holder_and_the_slot_is_free(
    subject: Subject, error: type[BaseException]
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    forgive = fail_at(engine, "reset", error)
    lease = await acquire(engine)
    with pytest.raises(error):
        await release(lease)
    forgive()
    await is_whole(engine, 1)


@pytest.mark.parametrize("name", ["invalidate", "close"])
async def test_an_error_while_invalidating_reaches_the_holder_and_the_slot_is_free(
    subject: Subject, name: str
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    journal = Journal(engine)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        dead = raw.dbapi_connection
        forgive = fail_at(engine, name, ListenerError)
        with pytest.raises(ListenerError):
            await connection.invalidate()
        forgive()
    async with checked_out(engine) as lease:
        assert lease.dbapi_connection is not dead
    await is_whole(engine, 1)
    assert journal.count("connect") == 2


async def test_an_error_at_soft_invalidation_reaches_the_holder(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    lease = await acquire(engine)
    forgive = fail_at(engine, "soft_invalidate", ListenerError)
    with pytest.raises(ListenerError):
        lease.invalidate(soft=True)
    forgive()
    await release(lease)
    await is_whole(engine, 1)


async def test_an_error_at_detach_frees_the_slot(subject: Subject) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    lease = await acquire(engine)
    forgive = fail_at(engine, "detach", ListenerError)
    with pytest.raises(ListenerError):
        lease.detach()
    forgive()
    await is_whole(engine, 1)
    await release(lease)


@pytest.mark.differs("checkin listener", only="ours")
@ERRORS
async def test_an_error_at_checkin_reaches_the_holder_and_the_slot_is_free(
    subject: Subject, error: type[BaseException]
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0, pool_timeout=5)
    forgive = fail_at(engine, "checkin", error)
    lease = await acquire(engine)
    with pytest.raises(error):
        await release(lease)
    forgive()
    await is_whole(engine, 1)


async def test_first_connect_comes_again_after_it_failed(subject: Subject) -> None:
    engine = subject.engine()
    called: list[str] = []

    @event.listens_for(engine.sync_engine, "first_connect")
    def fail_once(*_: object) -> None:
        called.append("first_connect")
        if len(called) == 1:
            raise ListenerError

    with pytest.raises(ListenerError):
        await acquire(engine)
    async with checked_out(engine), checked_out(engine):
        assert called == ["first_connect"] * 2


async def test_a_dialect_that_could_not_be_initialised_is_asked_again(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = subject.engine(pool_size=1, max_overflow=0)
    initialise = engine.dialect.initialize
    asked: list[Any] = []

    def fail_once(connection: Any) -> None:
        asked.append(connection)
        if len(asked) == 1:
            raise ListenerError
        initialise(connection)

    monkeypatch.setattr(engine.dialect, "initialize", fail_once)
    with pytest.raises(ListenerError):
        await acquire(engine)
    await is_whole(engine, 1)
    await engine.dispose()
    await is_whole(engine, 1)
    assert len(asked) == 2


async def test_a_connection_whose_listener_failed_is_closed(subject: Subject) -> None:
    engine = subject.engine()
    drivers: list[Any] = []

    def keep(connection: Any, record: Any) -> None:
        drivers.append(record.driver_connection)

    event.listen(engine.sync_engine, "connect", keep)
    fail_at(engine, "connect", ListenerError)
    with pytest.raises(ListenerError):
        await acquire(engine)
    (driver,) = drivers
    await eventually(lambda: subject.is_closed(driver))
