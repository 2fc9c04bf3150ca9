"""Nobody in the express lane waits for longer than was agreed, whatever the server does."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import text
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy, proxy_before

from penstock import Database, query
from penstock.errors import CommitOutcomeUnknown, DeadlineExceeded, PoolTimeout

BACKEND = text("SELECT pg_backend_pid()")
sleep = query(text("SELECT CAST('slept' AS text) FROM pg_sleep(60)"))
slow_add = query(text("INSERT INTO notes SELECT 'slow' FROM pg_sleep(60)"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0
    ) as database:
        await database.writer.execute(text("CREATE TABLE notes (line text)"))
        yield database


async def read(database: Database, seconds: float = 0.1) -> Any:
    return await database.reader.with_timeout(seconds).scalar(sleep)


async def write(database: Database, seconds: float = 0.1) -> Any:
    return await database.writer.with_timeout(seconds).execute(slow_add)


async def write_and_return(database: Database, seconds: float = 0.1) -> Any:
    returning = text("INSERT INTO notes SELECT 'slow' FROM pg_sleep(60) RETURNING line")
    return await database.writer.with_timeout(seconds).all(returning)


async def write_many(database: Database, seconds: float = 0.1) -> Any:
    add = text("INSERT INTO notes SELECT :line FROM pg_sleep(60)")
    return await database.writer.with_timeout(seconds).execute_many(add, [{"line": "slow"}] * 2)


async def read_in_snapshot(database: Database) -> Any:
    async with database.reader.snapshot() as moment:
        await moment.scalar(BACKEND)
        return await moment.with_timeout(0.1).scalar(sleep)


async def stream(database: Database) -> None:
    async with asyncio.timeout(0.1), database.reader.stream(sleep) as rows:
        async for _ in rows:
            pass


Operation = Callable[..., Awaitable[Any]]


def at_work(postgres: PostgresServer, database: Database) -> int:
    name = database.engine.url.database
    return len(
        postgres.execute(
            f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}' AND state = 'active'"
        )
    )


async def usable(database: Database) -> None:
    await database.writer.execute(text("INSERT INTO notes VALUES ('used')"))
    notes = await database.reader.all(text("SELECT line FROM notes"))
    assert {row.line for row in notes} == {"used"}


@pytest.mark.parametrize(
    "operation", [read, write, write_and_return, write_many, read_in_snapshot, stream]
)
async def test_a_statement_that_takes_too_long_ends_on_the_server_as_well(
    database: Database, postgres: PostgresServer, operation: Operation
) -> None:
    for _ in range(2):
        with pytest.raises((TimeoutError, CommitOutcomeUnknown)):
            await operation(database)
        assert database.pool.snapshot().checked_out == 0
        await eventually(lambda: at_work(postgres, database) == 0)
        await usable(database)
    assert database.pool.snapshot().opened_total == 1


@pytest.mark.parametrize("operation", [write, write_and_return, write_many])
async def test_a_write_that_the_server_ends_in_time_is_known_to_be_undone(
    database: Database, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.deadlines.ANSWER_SHARE", 0.9)
    monkeypatch.setattr("penstock.deadlines.ANSWER_TIME", 10.0)
    with pytest.raises(DeadlineExceeded, match=r"timeout=1 s") as raised:
        await operation(database, 1)
    assert not raised.value.outcome_unknown


@pytest.mark.parametrize("operation", [write, write_and_return, write_many])
async def test_a_write_that_gets_no_answer_in_time_has_an_unknown_outcome(
    database: Database,
    postgres: PostgresServer,
    operation: Operation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if postgres.directory is None:
        pytest.skip("freezes a process of the server, so it has to be one that the tests started")
    monkeypatch.setattr("penstock.pool.worker.RECOVER_TIMEOUT", 0.3)
    await operation_once(database, operation)
    backend = int(await database.reader.scalar(BACKEND))
    with frozen(backend), pytest.raises(CommitOutcomeUnknown, match=r"timeout=0\.1 s"):
        await operation(database)


async def operation_once(database: Database, operation: Operation) -> None:
    """Have its statement prepared, so that it is sent at once the next time."""
    with suppress(DeadlineExceeded, CommitOutcomeUnknown):
        await operation(database)
    await usable(database)


@pytest.mark.parametrize("operation", [read, write, write_and_return, write_many])
async def test_the_wait_for_a_connection_is_part_of_the_time(
    database: Database, operation: Operation
) -> None:
    async with database.engine.connect():
        async with asyncio.timeout(10):  # pool_timeout is 30 s
            with pytest.raises(TimeoutError):
                await asyncio.create_task(_of(operation(database)))
        assert database.pool.snapshot().waiting == 0
    await usable(database)


async def _of(work: Awaitable[Any]) -> Any:
    return await work


async def test_a_pool_that_has_nothing_to_lend_says_so_to_reader_and_writer(
    database_url: str,
) -> None:
    async with (
        Database.from_url(
            database_url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=1
        ) as database,
        database.engine.connect(),
    ):
        for work in (database.reader.scalar(BACKEND), database.writer.execute(slow_add)):
            with pytest.raises(PoolTimeout):
                await asyncio.create_task(_of(work))


@pytest.fixture
async def impatient(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection that waits a third of a second for a statement."""
    async with Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0, command_timeout=0.3
    ) as database:
        await database.writer.execute(text("CREATE TABLE notes (line text)"))
        yield database


async def test_the_drivers_limit_holds_without_a_timeout_of_the_callers(
    impatient: Database, postgres: PostgresServer
) -> None:
    with pytest.raises(TimeoutError):
        await impatient.reader.scalar(sleep)
    with pytest.raises(CommitOutcomeUnknown):
        await impatient.writer.execute(slow_add)
    assert impatient.pool.snapshot().checked_out == 0
    await eventually(lambda: at_work(postgres, impatient) == 0)
    await usable(impatient)
    assert impatient.pool.snapshot().opened_total == 1


@contextmanager
def frozen(backend: int) -> Iterator[None]:
    """Let the server's process ``backend`` answer nothing for a block."""
    os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend, signal.SIGCONT)


FROZEN: dict[str, tuple[Operation, type[BaseException]]] = {
    "read": (lambda database: database.reader.scalar(BACKEND), TimeoutError),
    "write": (lambda database: database.writer.execute(BACKEND), CommitOutcomeUnknown),
    "many": (
        lambda database: database.writer.execute_many(
            text("INSERT INTO notes VALUES (:line)"), [{"line": "lost"}]
        ),
        CommitOutcomeUnknown,
    ),
}


@pytest.mark.parametrize(("operation", "error"), FROZEN.values(), ids=FROZEN)
async def test_a_frozen_server_is_waited_for_no_longer_than_the_drivers_limit(
    impatient: Database,
    postgres: PostgresServer,
    operation: Operation,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if postgres.directory is None:
        pytest.skip("freezes a process of the server, so it has to be one that the tests started")
    monkeypatch.setattr("penstock.pool.worker.RECOVER_TIMEOUT", 0.3)
    backend = int(await impatient.reader.scalar(BACKEND))
    with frozen(backend):
        async with asyncio.timeout(30):
            with pytest.raises(error):
                await operation(impatient)
            assert impatient.pool.snapshot().checked_out == 0
            assert await impatient.reader.scalar(BACKEND) != backend
    await impatient.writer.execute(text("INSERT INTO notes VALUES ('used')"))


async def test_a_silent_network_is_waited_for_no_longer_than_the_callers_timeout(
    postgres: PostgresServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pool.worker.RECOVER_TIMEOUT", 0.3)
    monkeypatch.setattr("penstock.pool.record.CLOSE_TIMEOUT", 0.3)
    async with (
        proxy_before(postgres.host, postgres.port) as proxy,
        Database.from_url(
            proxy.url(database_url), environment="testing", pool_size=1, max_overflow=0
        ) as database,
    ):
        await silenced(database, proxy)


async def silenced(database: Database, proxy: Proxy) -> None:
    await database.writer.execute(text("CREATE TABLE notes (line text)"))
    for operation in (read, write, read_in_snapshot):
        proxy.silence()
        async with asyncio.timeout(20):
            with pytest.raises((TimeoutError, CommitOutcomeUnknown)):
                async with asyncio.timeout(0.2):
                    await operation(database)
            assert database.pool.snapshot().checked_out == 0
            await usable(database)  # over a new connection
        proxy.heal()


@pytest.mark.parametrize("settings", [{}, {"proxy": "pgbouncer"}], ids=["direct", "pooled"])
async def test_who_gives_up_a_read_waits_for_no_rollback(
    postgres: PostgresServer,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    monkeypatch.setattr("penstock.pool.worker.RECOVER_TIMEOUT", 0.3)
    monkeypatch.setattr("penstock.pool.record.CLOSE_TIMEOUT", 0.3)
    async with (
        proxy_before(postgres.host, postgres.port) as proxy,
        Database.from_url(
            proxy.url(database_url), environment="testing", pool_size=1, max_overflow=0, **settings
        ) as database,
    ):
        reading = asyncio.ensure_future(database.reader.scalar(sleep))
        await eventually(lambda: at_work(postgres, database) == 1)
        proxy.silence()
        reading.cancel()

        await asyncio.wait({reading}, timeout=10)  # command_timeout is 60 s
        assert reading.cancelled()
        assert database.pool.snapshot().checked_out == 0
        assert await database.reader.scalar(BACKEND)  # over a new connection
        proxy.heal()
