"""Deadlines on bad days: no answer at all, cancellations at any moment, and many at a time."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from sqlalchemy import event, text
from tests.adversity.cancellations import WAYS
from tests.eventually import eventually
from tests.integration.engine.engines import with_driver
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import proxy_before

from penstock import Database
from penstock.deadlines import Deadline, Limits, current_limits
from penstock.errors import CommitOutcomeUnknown, DeadlineExceeded, PoolTimeout, StatementTimeout

SHOW = text("SHOW statement_timeout")
SLEEP = text("SELECT CAST(pg_sleep(0.02) AS text)")
INSERT = text("INSERT INTO notes SELECT 'x' FROM pg_sleep(0.02)")


async def session_read(database: Database) -> None:
    async with database.read() as session:
        await session.execute(SLEEP)
        await session.execute(SLEEP)


async def session_write(database: Database) -> None:
    async with database.write() as session:
        await session.execute(INSERT)
        await session.execute(SLEEP)


async def read(database: Database) -> None:
    await database.reader.all(SLEEP)


async def write(database: Database) -> None:
    await database.writer.execute(INSERT)


async def write_many(database: Database) -> None:
    await database.writer.execute_many(text("INSERT INTO notes VALUES (:line)"), [{"line": "x"}])


async def snapshot(database: Database) -> None:
    async with database.reader.snapshot() as moment:
        await moment.all(SLEEP)


async def stream(database: Database) -> None:
    async with database.reader.stream(SLEEP) as rows:
        async for _ in rows:
            pass


OPERATIONS: tuple[Callable[[Database], Awaitable[None]], ...] = (
    session_read,
    session_write,
    read,
    write,
    write_many,
    snapshot,
    stream,
)
EXPECTED = (DeadlineExceeded, StatementTimeout, CommitOutcomeUnknown, PoolTimeout)


def limits_of(random: Random) -> Limits:
    seconds = random.choice([0.001, 0.005, 0.02, 0.05, 0.2])
    deadline = Deadline.after(seconds) if random.random() < 0.7 else None
    return Limits(random.choice([None, 0.005, 0.03, 0.3]), deadline)


async def bounded(database: Database, operation: Callable[..., Any], limits: Limits) -> str:
    """Run an operation as a request does, and return what became of it."""
    token = current_limits.set(limits)
    try:
        await operation(database)
    except EXPECTED as error:
        return type(error).__name__
    finally:
        current_limits.reset(token)
    return "done"


@pytest.fixture(params=["asyncpg", "psycopg"])
async def database(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Database]:
    """A pool of three connections, of each driver."""
    async with Database.from_url(
        with_driver(database_url, request.param),
        environment="testing",
        pool_size=3,
        max_overflow=0,
        nested_checkout="allow",
    ) as database:
        await database.writer.execute(text("CREATE TABLE notes (line text)"))
        yield database


async def own_limits(database: Database) -> set[str]:
    """Return the ``statement_timeout`` of every connection, as those who come next find it."""
    connections = [database.engine.connect() for _ in range(3)]
    try:
        return {await (await each.start()).scalar(SHOW) for each in connections}
    finally:
        for each in connections:
            await each.close()


@pytest.mark.parametrize("seed", range(3))
async def test_no_lease_inherits_the_limits_of_another(database: Database, seed: int) -> None:
    random, outcomes = Random(seed), Counter[str]()
    own = await own_limits(database)
    # SQLAlchemy leaves psycopg's cursor of a stream that was cut off to the garbage collector.
    operations = OPERATIONS if database.settings.driver == "asyncpg" else OPERATIONS[:-1]

    async def client() -> None:
        for _ in range(12):
            operation = random.choice(operations)
            if random.random() < 0.3:
                work = bounded(database, operation, limits_of(random))
                await random.choice(WAYS)(work, random.random() * 0.05)  # type: ignore[arg-type]  # whatever it returns
            else:
                outcomes[await bounded(database, operation, limits_of(random))] += 1
            if random.random() < 0.2:
                async with database.read() as session:
                    assert {await session.scalar(SHOW)} == own

    async with asyncio.TaskGroup() as clients:
        for _ in range(6):
            clients.create_task(client())

    await eventually(
        lambda: database.pool.snapshot().checked_out == database.pool.snapshot().waiting == 0
    )
    assert await own_limits(database) == own
    assert len(outcomes) > 2, outcomes


async def cancelled_after(steps: int, work: Awaitable[Any]) -> bool:
    """Cancel work after so many turns of the event loop; return whether there was any left."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    is_running = task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return is_running


async def test_a_cancellation_at_any_await_loses_no_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", 0)  # so that it awaits wherever it may
    own, lost = await own_limits(database), list[object]()
    event.listen(database.engine.sync_engine.pool, "detach", lambda *_: lost.append(_))
    for operation in (read, write, session_read, session_write, snapshot):
        for steps in range(25):
            limits = Limits(5.0, Deadline.after(5))
            await cancelled_after(steps, bounded(database, operation, limits))
        gc.collect()
        await eventually(lambda: database.pool.snapshot().checked_out == 0)
    assert await own_limits(database) == own
    assert lost == []  # as what the garbage collector finds is detached


@pytest.mark.parametrize("operation", [read, write, snapshot, session_read, session_write])
async def test_a_silent_network_is_waited_for_no_longer_than_the_deadline(
    postgres: PostgresServer,
    database_url: str,
    operation: Callable[[Database], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.pool.worker.RECOVER_TIMEOUT", 0.3)
    monkeypatch.setattr("penstock.pool.record.CLOSE_TIMEOUT", 0.3)
    async with (
        proxy_before(postgres.host, postgres.port) as proxy,
        Database.from_url(
            proxy.url(database_url), environment="testing", pool_size=1, max_overflow=0
        ) as database,
    ):
        await database.writer.execute(text("CREATE TABLE notes (line text)"))
        await operation(database)
        proxy.silence()
        limits = Limits(deadline=Deadline.after(0.3))

        async with asyncio.timeout(50):  # command_timeout is 60 s
            outcome = await bounded(database, operation, limits)
            assert database.pool.snapshot().checked_out == 0
            await database.reader.scalar(SHOW)  # over a new connection

        wanted = "CommitOutcomeUnknown" if operation is write else "DeadlineExceeded"
        assert outcome == wanted
        proxy.heal()


async def test_a_deadline_of_a_moment_costs_the_pool_no_connection(database_url: str) -> None:
    async with Database.from_url(
        database_url,
        environment="testing",
        pool_size=3,
        max_overflow=0,
        idle_before_ping=0,
    ) as database:
        await own_limits(database)
        for _ in range(30):
            limits = Limits(deadline=Deadline.after(0.0005))
            await bounded(database, read, limits)
        await eventually(lambda: database.pool.snapshot().checked_in == 3)
        assert database.pool.snapshot().opened_total == 3
