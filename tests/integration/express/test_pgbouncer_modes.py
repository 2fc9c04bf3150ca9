"""PgBouncer as it is set up otherwise than for transactions, or without our being told of it."""

from typing import Any

import pytest
from sqlalchemy import func, select
from tests.integration.express.leftovers import CLEAN, SERVERS, leftovers
from tests.integration.express.pooled_service import (
    HITS,
    REQUESTS,
    TASKS,
    Item,
    behind_pgbouncer,
    fill,
    work,
)
from tests.servers.pgbouncer import Era, pgbouncer_of, pgbouncer_server
from tests.servers.postgres import PostgresServer

from penstock import Database


@pytest.fixture
async def filled_url(database_url: str) -> str:
    await fill(database_url)
    return database_url


async def completed_work(database: Database) -> bool:
    await work(database, first=0)
    hits = select(func.sum(Item.hits))
    return await database.reader.scalar(hits) == HITS * REQUESTS * TASKS


@pytest.mark.parametrize("era", Era)
async def test_every_client_may_have_a_server_connection_for_as_long_as_its_session(
    era: Era, postgres: PostgresServer, filled_url: str
) -> None:
    with pgbouncer_server(
        postgres, binary=pgbouncer_of(era), pool_mode="session", default_pool_size=SERVERS
    ) as pooler:
        url = pooler.url(filled_url)
        async with behind_pgbouncer(url, pool_size=SERVERS) as database:
            assert await completed_work(database)
        assert await leftovers(url) == CLEAN


async def test_prepared_statements_may_be_kept_where_pgbouncer_follows_them(
    postgres: PostgresServer, filled_url: str
) -> None:
    with pgbouncer_server(
        postgres,
        binary=pgbouncer_of(Era.FOLLOWING),
        pool_mode="transaction",
        default_pool_size=SERVERS,
        max_prepared_statements=100,
    ) as pooler:
        url = pooler.url(filled_url)
        async with behind_pgbouncer(url, pool_size=10, statement_cache_size=50) as database:
            assert await completed_work(database)
        kept = {thing.split()[0] for each in await leftovers(url) for thing in each}
        assert kept == {"prepared"}


@pytest.mark.parametrize("era", Era)
async def test_a_pooler_that_nobody_told_of_is_noticed_and_lends_no_reader_to_a_writer(
    era: Era, postgres: PostgresServer, filled_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pgbouncer_server(
        postgres,
        binary=pgbouncer_of(era),
        pool_mode="transaction",
        default_pool_size=SERVERS,
        settings={"ignore_startup_parameters": "jit"},
    ) as pooler:
        url = pooler.url(filled_url)
        silent: dict[str, Any] = {"environment": "testing", "statement_cache_size": 0}
        async with Database.from_url(url, pool_size=10, max_overflow=0, **silent) as database:
            assert await completed_work(database)
            assert [finding.id for finding in database.diagnose()] == ["unnamed-pooler"]
        assert await leftovers(url) == CLEAN
    assert "unnamed-pooler: A pooler stands between" in caplog.text
