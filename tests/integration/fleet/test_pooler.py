"""Behind a PgBouncer that the settings do not name."""

import logging

import pytest
from tests.servers.pgbouncer import Era, pgbouncer_of, pgbouncer_server
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.database import BudgetExceeded


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
@pytest.mark.parametrize("era", Era)
async def test_a_pooler_that_shows_itself_leaves_the_configured_size_and_the_check_at_start(
    era: Era,
    pool_mode: str,
    postgres: PostgresServer,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pgbouncer_server(
        postgres,
        binary=pgbouncer_of(era),
        pool_mode=pool_mode,
        settings={"ignore_startup_parameters": "jit"},
    ) as pooler:
        url = pooler.url(database_url)

        def member(**settings: object) -> Database:
            return Database.from_url(
                url,
                environment="testing",
                fleet=True,
                telemetry=False,
                statement_cache_size=0,
                **settings,  # type: ignore[arg-type]  # each test's own
            )

        async with member() as one:
            assert one.fleet is not None
            assert (one.fleet.is_joined, one.pool.snapshot().limit) == (False, 7)
        with pytest.raises(BudgetExceeded):
            await member(budget="refuse", workers=100).open()

    said = [
        record.getMessage()
        for record in caplog.records
        if record.name == "penstock.fleet" and record.levelno == logging.WARNING
    ]
    assert len(said) == 2
    assert said[0].startswith(
        "fleet=True has no effect: a pooler stands between this service and PostgreSQL, which "
        "hands the server's connections around"
    )
