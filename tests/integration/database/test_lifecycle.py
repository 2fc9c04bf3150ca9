"""Opens and closes of one database: counted, one at a time, and harmless where they are refused."""

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from tests.eventually import eventually
from tests.integration.database.opened import (
    CancelledAt,
    Service,
    backends,
    connects,
    is_open,
    pool_of,
)
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.errors import BudgetExceeded, ConnectFailed, PoolInAnotherLoop
from penstock.fastapi import install

Job = Callable[[Database], Coroutine[Any, Any, object]]
Moment = Callable[[Database], AbstractAsyncContextManager[None]]


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Database:
    return make_database(database_url, tmp_path)


def make_database(url: str, directory: Path, **settings: Any) -> Database:
    return Database.from_url(url, environment="testing", telemetry_dir=directory, **settings)


# Jobs within a service that has the database open.


async def read_in_a_block(database: Database) -> None:
    async with database, database.read() as session:
        await session.scalar(text("SELECT 1"))


async def open_and_close(database: Database) -> None:
    await database.open()
    await database.close()


async def fail_in_a_block(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database:
            raise RuntimeError("a bug")


async def be_cancelled_in_a_block(database: Database) -> None:
    async def stay() -> None:
        async with database:
            await asyncio.Event().wait()

    task = asyncio.create_task(stay())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def be_blocks_side_by_side(database: Database) -> None:
    await asyncio.gather(*(read_in_a_block(database) for _ in range(5)))


async def be_another_application(database: Database) -> None:
    app = FastAPI()
    install(app, database)
    async with app.router.lifespan_context(app):
        await database.ping(10)


JOBS: list[Job] = [
    read_in_a_block,
    open_and_close,
    fail_in_a_block,
    be_cancelled_in_a_block,
    be_blocks_side_by_side,
    be_another_application,
]


# What a service may be at, at that moment.


@asynccontextmanager
async def with_an_idle_connection(database: Database) -> AsyncIterator[None]:
    service = Service(database)
    yield
    await service.assert_undisturbed()


@asynccontextmanager
async def within_a_transaction(database: Database) -> AsyncIterator[None]:
    service = Service(database)
    await service.begin()
    yield
    await service.assert_undisturbed()


@asynccontextmanager
async def without_a_connection(database: Database) -> AsyncIterator[None]:
    async with database.engine.connect() as connection:
        await connection.invalidate()
    await eventually(lambda: pool_of(database).ledger.open == 0)
    service = Service(database)
    yield
    await service.assert_undisturbed()


MOMENTS = [with_an_idle_connection, within_a_transaction, without_a_connection]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("job", JOBS)
async def test_a_job_in_the_services_loop_ends_nothing_of_it(
    job: Job, moment: Moment, database: Database
) -> None:
    async with database, moment(database):
        await job(database)


async def test_a_job_needs_no_connection_to_open_what_is_open(
    database_url: str, tmp_path: Path
) -> None:
    database = make_database(database_url, tmp_path, pool_size=1, max_overflow=0, pool_timeout=0.1)
    opened = connects(database)
    async with database, database.engine.connect():
        await open_and_close(database)
    assert len(opened) == 1


# Jobs in an event loop of another thread.


async def enter(database: Database) -> None:
    async with database:
        pass


async def read_without_opening(database: Database) -> None:
    async with database.read() as session:
        await session.scalar(text("SELECT 1"))


FOREIGN_JOBS: list[Job] = [
    enter,
    Database.open,
    Database.close,
    Database.ping,
    read_without_opening,
]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("job", FOREIGN_JOBS)
async def test_a_job_in_another_loop_is_refused_and_changes_nothing(
    job: Job, moment: Moment, database: Database
) -> None:
    async with database, moment(database):
        for _ in range(2):
            with pytest.raises(PoolInAnotherLoop, match="another event loop"):
                await asyncio.to_thread(asyncio.run, job(database))


async def test_a_job_in_another_loop_that_disposes_of_the_engine_cuts_nothing_off(
    database: Database,
) -> None:
    async with database:
        service = Service(database)
        await service.begin()
        first = pool_of(database)
        await asyncio.to_thread(asyncio.run, database.engine.dispose())
        assert await database.reader.scalar(text("SELECT 1")) == 1
        with pytest.raises(AssertionError):  # for the pool is another one
            await service.assert_undisturbed()
        await eventually(lambda: first.ledger.open == 0)


@pytest.mark.parametrize("job", FOREIGN_JOBS)
async def test_what_is_used_without_an_open_is_not_for_another_loop_either(
    job: Job, database: Database
) -> None:
    service = Service(database)
    await service.begin()
    with pytest.raises(PoolInAnotherLoop, match="another event loop"):
        await asyncio.to_thread(asyncio.run, job(database))
    await service.assert_undisturbed()
    assert database.telemetry.recorder is None
    await database.close()


async def test_of_two_threads_that_open_at_the_same_time_one_is_refused(database: Database) -> None:
    both_tried = threading.Barrier(2, timeout=30)

    async def use() -> int | None:
        try:
            async with database:
                await asyncio.to_thread(both_tried.wait)
                await database.ping(10)
                return 1
        except PoolInAnotherLoop:
            await asyncio.to_thread(both_tried.wait)
            return None

    uses = (asyncio.to_thread(asyncio.run, use()) for _ in range(2))
    assert {*await asyncio.gather(*uses)} == {1, None}
    assert not is_open(database)


@pytest.mark.parametrize("rounds", [3])
def test_each_loop_may_open_it_after_the_other_has_closed_it(
    rounds: int, database: Database
) -> None:
    for _ in range(rounds):
        asyncio.run(read_in_a_block(database))
        assert not is_open(database)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the loop that ended with sockets open
@pytest.mark.parametrize("left", [Database.open, Database.ping])
@pytest.mark.parametrize("then", [read_in_a_block, open_and_close, Database.close])
def test_what_a_loop_that_has_ended_left_open_is_in_nobodys_way(
    left: Job, then: Job, database: Database
) -> None:
    asyncio.run(left(database))
    asyncio.run(then(database))
    assert not is_open(database)
    asyncio.run(read_in_a_block(database))
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # as above
@pytest.mark.parametrize("then", [read_in_a_block, open_and_close, Database.close])
def test_a_loop_that_was_closed_amid_its_tasks_is_in_nobodys_way(
    then: Job, database: Database
) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(database.open())
    loop.close()
    asyncio.run(then(database))
    assert not is_open(database)
    gc.collect()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # this test's own threads
async def test_a_forked_process_opens_its_own_and_leaves_its_parents_alone(
    database: Database,
) -> None:
    async with database:
        service = Service(database)
        await service.begin()
        child = os.fork()
        if child == 0:
            os._exit(_status_of(read_in_a_block(database)))
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - nothing else runs in this test
        assert os.waitstatus_to_exitcode(status) == 0
        await service.assert_undisturbed()


def _status_of(work: Coroutine[Any, Any, object]) -> int:
    try:
        asyncio.run(work)
    except BaseException:  # noqa: BLE001 - pytest must not go on in the child
        return 2
    return 0


# Counting.


SEQUENCES = {  # o for open, c for close: how often it connected, and whether it is open at the end
    "o": (1, True),
    "oc": (1, False),
    "oo": (1, True),
    "ooo": (1, True),
    "ooc": (1, True),
    "oocc": (1, False),
    "oco": (2, True),
    "ococ": (2, False),
    "ooccoc": (2, False),
    "c": (0, False),
    "cc": (0, False),
    "co": (1, True),
    "occ": (1, False),
    "occo": (2, True),
    "occoc": (2, False),
}


@pytest.mark.parametrize("calls", SEQUENCES)
async def test_opens_and_closes_are_counted(
    calls: str, database: Database, database_url: str, postgres: PostgresServer
) -> None:
    opened = connects(database)
    for call in calls:
        await (database.open() if call == "o" else database.close())

    assert (len(opened), is_open(database)) == SEQUENCES[calls]
    assert backends(postgres, database_url) == SEQUENCES[calls][1]
    for _ in calls:
        await database.close()
    assert not is_open(database)
    assert backends(postgres, database_url) == 0


@pytest.mark.parametrize("calls", SEQUENCES)
async def test_opens_and_closes_at_once_are_counted_too(calls: str, database: Database) -> None:
    work = (database.open() if call == "o" else database.close() for call in calls)
    await asyncio.gather(*work)

    assert is_open(database) is SEQUENCES[calls][1]
    for _ in calls:
        await database.close()
    assert not is_open(database)


async def test_what_was_used_without_an_open_is_closed_by_a_close(database: Database) -> None:
    await database.ping(10)
    assert pool_of(database).ledger.open == 1
    await database.close()
    assert pool_of(database).ledger.open == 0


async def test_who_opens_while_the_last_closes_opens_anew(database: Database) -> None:
    opened = connects(database)
    await database.open()
    async with database.engine.connect():
        closing = asyncio.create_task(database.close(timeout=30))
        await eventually(lambda: pool_of(database).ledger.closed)
        opening = asyncio.create_task(database.open())
        await asyncio.sleep(0)
        assert not opening.done()
    await closing
    await opening
    assert is_open(database)
    assert len(opened) == 2
    await database.close()


async def test_in_serverless_each_open_asks_the_server(database_url: str) -> None:
    database = Database.from_url(database_url, environment="serverless")
    opened = connects(database)
    async with database:
        await asyncio.to_thread(asyncio.run, read_in_a_block(database))
        async with database:
            await database.ping(10)
    assert len(opened) == 5


# An open that fails.


@pytest.mark.parametrize("way", [Database.open, enter])
async def test_an_open_without_a_server_leaves_nothing(way: Job, tmp_path: Path) -> None:
    database = make_database("postgresql://ada@127.0.0.1:1/none", tmp_path)
    with pytest.raises(ConnectFailed):
        await way(database)
    assert not is_open(database)
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}  # noqa: ASYNC240 - brief


@pytest.mark.parametrize("way", [Database.open, enter])
async def test_an_open_beyond_the_budget_leaves_nothing(
    way: Job, database_url: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    database = make_database(database_url, tmp_path, workers=500, budget="refuse", min_idle=2)
    with pytest.raises(BudgetExceeded):
        await way(database)
    assert not is_open(database)
    assert backends(postgres, database_url) == 0


async def test_an_open_that_fails_leaves_alone_what_was_used_before(
    database_url: str, tmp_path: Path
) -> None:
    database = make_database(database_url, tmp_path, workers=500, budget="refuse")
    service = Service(database)
    await service.begin()
    with pytest.raises(BudgetExceeded):
        await database.open()
    await service.assert_undisturbed()
    await database.close()


async def test_each_of_several_is_told_why_none_could_open(tmp_path: Path) -> None:
    database = make_database("postgresql://ada@127.0.0.1:1/none", tmp_path)
    outcomes = await asyncio.gather(*(database.open() for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [ConnectFailed] * 3
    assert not is_open(database)


async def test_where_the_first_is_cancelled_the_second_opens(database: Database) -> None:
    first, second = (asyncio.create_task(database.open()) for _ in range(2))
    await eventually(lambda: database.telemetry.recorder is not None)
    first.cancel()
    await second
    assert first.cancelled()
    assert is_open(database)
    await database.close()
    assert not is_open(database)


# Cancellation.


async def held_by_nobody(database: Database) -> None:
    await database.close()


async def held_by_a_loan(database: Database) -> None:
    async with database.engine.connect():
        await database.close(timeout=0.01)


async def cancelled_everywhere(
    work: Callable[[], Coroutine[Any, Any, object]], *, every: bool
) -> AsyncIterator[bool]:
    """Cancel at the first await, at the second, ... and at last at none; yields whether it was."""
    for number in count(1):
        attempt = CancelledAt(work(), number, every=every)
        task = asyncio.ensure_future(attempt)
        await asyncio.wait({task})
        yield task.cancelled()
        if not attempt.was_reached:
            await task
            return


@pytest.mark.parametrize("every", [False, True])
async def test_an_open_that_is_cancelled_at_any_await_is_none(
    every: bool, database_url: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    database = make_database(database_url, tmp_path, min_idle=2)
    attempts = 0
    async for was_cancelled in cancelled_everywhere(database.open, every=every):
        attempts += 1
        assert is_open(database) is not was_cancelled
        if was_cancelled:
            await eventually(lambda: backends(postgres, database_url) == 0)
    assert attempts > 3
    await database.ping(10)
    await database.close()
    assert backends(postgres, database_url) == 0


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("close", [held_by_nobody, held_by_a_loan])
async def test_a_close_that_is_cancelled_at_any_await_closes_all_the_same(
    close: Job, every: bool, database_url: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    database = make_database(database_url, tmp_path, min_idle=2)

    async def open_and_close_so() -> None:
        await database.open()
        await close(database)

    attempts = 0
    async for _ in cancelled_everywhere(open_and_close_so, every=every):
        attempts += 1
        assert not is_open(database)
        await eventually(lambda: backends(postgres, database_url) == 0)
    assert attempts > 6
    await read_in_a_block(database)
    assert not is_open(database)


async def test_a_close_that_is_cancelled_before_it_begins_has_its_open_still(
    database: Database,
) -> None:
    await database.open()
    closing = asyncio.create_task(database.close())
    closing.cancel()
    await asyncio.wait({closing})
    assert is_open(database)
    await database.close()
    assert not is_open(database)
