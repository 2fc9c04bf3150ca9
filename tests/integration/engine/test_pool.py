"""The pool that the settings describe, by what the server and the pool count."""

import logging
import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool
from tests.eventually import eventually
from tests.integration.engine.engines import engine_on, scalar
from tests.servers.postgres import PostgresServer

from penstock.engine import pool_snapshot
from penstock.pool import PenstockPool, PoolSnapshot
from penstock.pool import pool as adapter
from penstock.pool.record import STATEMENT_KEY

PID = "SELECT pg_backend_pid()"


def backends(postgres: PostgresServer, url: str) -> list[object]:
    name = url.rpartition("/")[2]
    found = postgres.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'")
    return [row[0] for row in found]


async def test_a_fresh_pool_counts_from_zero(database_url: str) -> None:
    async with engine_on(database_url, pool_size=3, max_overflow=2) as engine:
        fresh = pool_snapshot(engine)
    assert fresh == PoolSnapshot(size=3, limit=5, checked_in=0, checked_out=0, overflow=0)
    assert fresh.utilisation == 0.0


async def test_the_numbers_follow_the_connections(database_url: str) -> None:
    async with engine_on(database_url, pool_size=1, max_overflow=1) as engine:
        async with engine.connect(), engine.connect():
            full = pool_snapshot(engine)
        rest = pool_snapshot(engine)
    assert full == PoolSnapshot(1, 2, checked_in=0, checked_out=2, overflow=1, opened_total=2)
    assert full.utilisation == 1.0
    assert rest == PoolSnapshot(1, 2, checked_in=2, checked_out=0, overflow=1, opened_total=2)


async def test_the_numbers_start_anew_after_dispose(database_url: str) -> None:
    async with engine_on(database_url, pool_size=1, max_overflow=1) as engine:
        await scalar(engine, "SELECT 1")
        await engine.dispose()
        assert pool_snapshot(engine) == PoolSnapshot(1, 2, checked_in=0, checked_out=0, overflow=0)


async def test_the_pool_has_the_settings_numbers(database_url: str) -> None:
    async with engine_on(
        database_url, pool_size=3, max_overflow=4, pool_timeout=7, pool_recycle=900
    ) as engine:
        pool = engine.pool
        assert type(pool) is PenstockPool
        assert (pool.size(), pool._max_overflow) == (3, 4)
        assert (pool.timeout(), pool._recycle, pool._pre_ping) == (7, 900, False)


async def test_a_statement_is_noted_for_the_report_of_a_leak_without_its_values(
    any_url: str,
) -> None:
    async with engine_on(any_url, leak_after=60) as engine, engine.connect() as connection:
        await connection.execute(text("SELECT 1 WHERE :name = :name"), {"name": "4711-secret"})
        noted = (await connection.get_raw_connection()).info[STATEMENT_KEY]
    assert noted.startswith("SELECT 1 WHERE")
    assert "4711-secret" not in noted


async def test_a_leak_is_reported_with_its_last_statement(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine_on(database_url, leak_after=0.01) as engine, engine.connect() as connection:
        await connection.execute(text("SELECT 1 AS forgotten"))
        await eventually(lambda: "SELECT ? AS forgotten" in caplog.text)


async def test_serverless_keeps_no_connection(postgres: PostgresServer, database_url: str) -> None:
    async with engine_on(database_url, environment="serverless") as engine:
        assert isinstance(engine.pool, NullPool)
        async with engine.connect() as connection:
            pid = (await connection.execute(text(PID))).scalar_one()
            assert backends(postgres, database_url) == [pid]
            assert pool_snapshot(engine) == PoolSnapshot(0, 0, 0, 0, 0)
        postgres.wait_for_end(pid)
        assert backends(postgres, database_url) == []


async def test_a_kept_connection_is_used_again(postgres: PostgresServer, database_url: str) -> None:
    async with engine_on(database_url) as engine:
        first, second = await scalar(engine, PID), await scalar(engine, PID)
        assert backends(postgres, database_url) == [first] == [second]


async def test_the_connection_used_last_is_lent_first(database_url: str) -> None:
    async with engine_on(database_url, pool_size=2, max_overflow=0) as engine:
        async with engine.connect() as one, engine.connect() as other:
            used_last = (await one.execute(text(PID))).scalar()
            assert (await other.execute(text(PID))).scalar() != used_last
        assert [await scalar(engine, PID), await scalar(engine, PID)] == [used_last] * 2


async def test_pre_ping_replaces_a_backend_that_was_killed(
    postgres: PostgresServer, postgresql_url: str
) -> None:
    async with engine_on(postgresql_url, pool_pre_ping=True) as engine:
        killed = await scalar(engine, PID)
        postgres.execute(f"SELECT pg_terminate_backend({killed}, 10000)")
        assert await scalar(engine, PID) != killed


async def test_a_connection_is_replaced_at_the_age_of_pool_recycle(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_on(database_url, pool_recycle=600) as engine:
        young = await scalar(engine, PID)
        monkeypatch.setattr(adapter, "monotonic", lambda: time.monotonic() + 590)
        assert await scalar(engine, PID) == young
        monkeypatch.setattr(adapter, "monotonic", lambda: time.monotonic() + 1200)
        assert await scalar(engine, PID) != young


async def test_an_unfinished_transaction_is_rolled_back_at_check_in(database_url: str) -> None:
    async with engine_on(database_url, pool_size=1, max_overflow=0) as engine:
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TABLE forgotten (id int)"))
        assert await scalar(engine, "SELECT to_regclass('forgotten')") is None


@pytest.mark.parametrize("environment", ["production", "testing", "serverless"])
async def test_echo_shows_statements_without_their_values(
    database_url: str, environment: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sqlalchemy.engine.Engine"):
        async with engine_on(database_url, environment=environment, echo=True) as engine:
            await scalar(engine, "SELECT CAST(:value AS text)", value="4711-secret")
    assert "SELECT CAST($1 AS text)" in caplog.text
    assert "4711-secret" not in caplog.text


async def test_a_developer_sees_the_values(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sqlalchemy.engine.Engine"):
        async with engine_on(database_url, environment="development") as engine:
            await scalar(engine, "SELECT CAST(:value AS text)", value="visible")
    assert "'visible'" in caplog.text


async def test_an_error_in_production_does_not_show_the_values(database_url: str) -> None:
    async with engine_on(database_url, environment="production", echo=False) as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (id int CHECK (id < 10), name text)"))
        with pytest.raises(IntegrityError) as raised:
            async with engine.begin() as connection:
                await connection.execute(
                    text("INSERT INTO t VALUES (:id, :name)"), {"id": 11, "name": "4711-secret"}
                )
    assert "parameters hidden" in str(raised.value)
    assert "[parameters:" not in str(raised.value)
