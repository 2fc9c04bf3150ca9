"""The pool's events: which come, how often, in what order, and what each is given."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, PoolResetState, event, text
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.util import await_
from tests.contract.door import Door, WalledUpError
from tests.contract.journal import Journal
from tests.contract.subject import Subject, acquire, checked_out, pool_of, release
from tests.eventually import eventually

OPENED = ["first_connect", "connect"]
CHECKED_OUT = ["checkout", "reset", "checkin"]


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., None]) -> Iterator[None]:
    """Listen for a block; classes outlive the test."""
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


@pytest.mark.every_driver
async def test_a_lease_and_its_return_tell_of_themselves_in_order(subject: Subject) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        assert journal.names == [*OPENED, "checkout"]
    assert journal.names == [*OPENED, *CHECKED_OUT]
    async with checked_out(engine):
        pass
    assert journal.names == [*OPENED, *CHECKED_OUT, *CHECKED_OUT]


@pytest.mark.every_driver
async def test_every_event_is_about_the_connection_and_its_record(subject: Subject) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    lease = await acquire(engine)
    connection, driver = lease.dbapi_connection, lease.driver_connection
    await release(lease)
    await engine.dispose()

    assert journal.names == [*OPENED, *CHECKED_OUT, "close"]
    assert {id(entry.connection) for entry in journal.entries} == {id(connection)}
    records = [entry.rest[0] for entry in journal.entries]
    assert len(set(records)) == 1
    assert journal.of("checkout")[0].rest[1] is lease
    assert connection is not driver


async def test_the_record_knows_its_connection_and_whether_it_is_checked_out(
    subject: Subject,
) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    async with checked_out(engine) as lease:
        record = journal.of("checkout")[0].rest[0]
        assert record.in_use
        assert record.dbapi_connection is lease.dbapi_connection
        assert record.driver_connection is lease.driver_connection
        assert record.info is lease.info
    assert not record.in_use
    assert record.dbapi_connection is not None


async def test_first_connect_comes_once_for_a_pool_and_connect_for_every_connection(
    subject: Subject,
) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    await release(await acquire(engine), await acquire(engine), await acquire(engine))
    assert (journal.count("first_connect"), journal.count("connect")) == (1, 3)

    await engine.dispose()
    await release(await acquire(engine), await acquire(engine))
    assert (journal.count("first_connect"), journal.count("connect")) == (2, 5)


async def test_nobody_is_checked_out_a_connection_before_the_first_one_is_set_up(
    subject: Subject,
) -> None:
    engine = subject.engine(pool_size=3)
    door, journal = Door(engine), Journal(engine)
    set_up = asyncio.Event()

    @event.listens_for(engine.sync_engine, "first_connect")
    def take_time(*_: object) -> None:
        await_(set_up.wait())

    tasks = [asyncio.create_task(acquire(engine)) for _ in range(3)]
    await eventually(lambda: door.arrivals == 3 and journal.count("first_connect") == 1)
    await asyncio.sleep(0.02)
    assert journal.names == ["first_connect"]

    set_up.set()
    await release(*await asyncio.gather(*tasks))
    assert (journal.count("first_connect"), journal.count("connect")) == (1, 3)


async def test_listeners_of_classes_come_before_those_of_one_pool_or_engine(
    subject: Subject,
) -> None:
    called: list[str] = []

    def listener(name: str) -> Callable[..., None]:
        return lambda *_: called.append(name)

    engine = subject.engine()
    with (
        listening(engine.pool, "connect", listener("this pool")),
        listening(engine.sync_engine, "connect", listener("this engine")),
        listening(Pool, "connect", listener("any pool")),
        listening(QueuePool, "connect", listener("any queue pool")),
        listening(Engine, "connect", listener("any engine")),
    ):
        async with checked_out(engine):
            pass
    assert called == ["any pool", "any queue pool", "any engine", "this pool", "this engine"]


async def test_a_listener_can_be_put_first_be_heard_once_and_be_removed(
    subject: Subject,
) -> None:
    called: list[str] = []
    engine = subject.engine()
    first, last = (lambda *_: called.append("first")), (lambda *_: called.append("last"))
    event.listen(engine.sync_engine, "checkout", last)
    event.listen(engine.sync_engine, "checkout", first, insert=True)
    event.listen(
        engine.sync_engine, "checkout", lambda *_: called.append("once"), insert=True, once=True
    )
    async with checked_out(engine):
        assert called == ["once", "first", "last"]
    event.remove(engine.sync_engine, "checkout", last)
    async with checked_out(engine):
        assert called == ["once", "first", "last", "first"]


async def test_listeners_can_be_given_with_the_engine(subject: Subject) -> None:
    called: list[str] = []
    engine = subject.engine(
        pool_events=[
            (lambda *_: called.append("connect"), "connect"),
            (lambda *_: called.append("checkout"), "checkout"),
        ]
    )
    async with checked_out(engine):
        assert called == ["connect", "checkout"]


@pytest.mark.every_driver
async def test_a_listener_can_use_the_connection_it_is_given(subject: Subject) -> None:
    engine = subject.engine()
    answers: list[object] = []

    def ask(connection: Any, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT 41 + 1")
        answers.append(cursor.fetchone()[0])
        cursor.close()

    for name in ("first_connect", "connect", "checkout", "reset", "checkin"):
        event.listen(engine.sync_engine, name, ask)
    async with checked_out(engine):
        pass
    assert answers == [42] * 5


@pytest.mark.every_driver
async def test_a_listener_can_await_what_only_the_driver_has(subject: Subject) -> None:
    engine = subject.engine()
    drivers: list[object] = []

    async def poll(driver: object) -> None:
        await asyncio.sleep(0)
        drivers.append(driver)

    for name in ("connect", "checkout", "reset", "checkin", "close"):
        event.listen(engine.sync_engine, name, lambda connection, *_: connection.run_async(poll))
    async with checked_out(engine) as lease:
        driver = lease.driver_connection
    await engine.dispose()
    assert drivers == [driver] * 5


@pytest.mark.every_driver
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "left-open"])
async def test_reset_is_told_whether_the_transaction_was_ended_already(
    subject: Subject, ended: bool
) -> None:
    engine = subject.engine()
    journal = Journal(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        if ended:
            await connection.commit()
    (reset,) = journal.of("reset")
    assert reset.rest[1] == PoolResetState(
        transaction_was_reset=not ended, terminate_only=False, asyncio_safe=True
    )


async def test_a_connect_that_fails_tells_nobody(subject: Subject) -> None:
    engine = subject.engine()
    door, journal = Door(engine), Journal(engine)
    door.walled_up = True
    with pytest.raises(WalledUpError):
        await acquire(engine)
    assert journal.names == []
    assert pool_of(engine).checkedout() == 0
