"""A server that stops answering is waited for no longer than ``command_timeout``."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import text
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.errors import CommitOutcomeUnknown


@pytest.fixture
async def database(postgres: PostgresServer, database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection that waits half a second for a statement."""
    if postgres.directory is None:
        pytest.skip("freezes a process of the server, so it has to be one that the tests started")
    database = Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0, command_timeout=0.5
    )
    yield database
    await database.close()


@contextmanager
def frozen(backend: int) -> Iterator[None]:
    """Let the server's process ``backend`` answer nothing for a block."""
    os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend, signal.SIGCONT)


async def test_a_commit_that_is_never_answered_has_an_unknown_outcome(database: Database) -> None:
    unit = database.unit()
    backend = await unit.writer.scalar(text("SELECT pg_backend_pid()"))
    with frozen(backend):
        async with asyncio.timeout(60):
            with pytest.raises(CommitOutcomeUnknown):
                await unit.commit()
            await unit.end("the test is over")

    assert database.pool.snapshot().checked_out == 0
    await database.ping(timeout=30)


async def test_a_rollback_that_is_never_answered_gives_its_slot_back(database: Database) -> None:
    unit = database.unit()
    backend = await unit.reader.scalar(text("SELECT pg_backend_pid()"))
    with frozen(backend):
        async with asyncio.timeout(60):
            await unit.end("the test is over")

    assert database.pool.snapshot().checked_out == 0
    await database.ping(timeout=30)


async def test_a_rollback_that_is_never_answered_does_not_hide_the_callers_error(
    database: Database,
) -> None:
    async def fail_on_a_frozen_server() -> None:
        with ExitStack() as thawing:
            async with database.write() as session:
                backend = await session.scalar(text("SELECT pg_backend_pid()"))
                thawing.enter_context(frozen(backend))
                raise KeyError("the caller's own")

    async with asyncio.timeout(60):
        with pytest.raises(KeyError, match="the caller's own"):
            await fail_on_a_frozen_server()

    assert database.pool.snapshot().checked_out == 0
    await database.ping(timeout=30)
