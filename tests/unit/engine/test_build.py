"""Engines that have not connected yet."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from penstock.engine import build_engine, pool_snapshot
from penstock.errors import SettingsError
from penstock.pool import PenstockPool, PoolPolicy, PoolSnapshot
from penstock.settings import DatabaseSettings, NestedCheckoutPolicy

POSTGRESQL = "postgresql://app:secret@db.internal/app"


@pytest.mark.parametrize(
    ("driver", "advice"),
    [
        ("mysql+asyncmy://app@db/app", "pip install 'penstock[mysql]'"),
        ("mysql+aiomysql://app@db/app", "pip install 'penstock[mysql]'"),
        ("postgresql+psycopg://app@db/app", "pip install 'penstock[psycopg]'"),
        ("sqlite+aiosqlite:///app.db", "pip install 'penstock[sqlite]'"),
    ],
)
def test_a_missing_driver_is_named_with_the_way_to_get_it(
    driver: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DatabaseSettings.of(driver)
    monkeypatch.setitem(sys.modules, settings.driver, None)
    with pytest.raises(SettingsError) as raised:
        build_engine(settings)
    assert settings.driver in str(raised.value)
    assert advice in str(raised.value)


@pytest.mark.parametrize(
    ("url", "limit"),
    [
        ("sqlite://", 1),
        ("sqlite:///:memory:", 1),
        ("sqlite:///file::memory:?uri=true", 1),
        ("sqlite:///file:name?mode=memory&uri=true", 1),
        ("sqlite:///file::memory:?cache=shared&uri=true", 15),
        ("sqlite:///file:name?mode=memory&cache=shared&uri=true", 15),
        ("sqlite:///app.db", 15),
        (POSTGRESQL, 15),
    ],
)
def test_each_database_has_the_pool_that_suits_it(url: str, limit: int) -> None:
    engine = build_engine(DatabaseSettings.of(url))
    assert type(engine.pool) is PenstockPool
    assert pool_snapshot(engine).limit == limit


POOL: dict[str, Any] = {
    "min_idle": 2,
    "max_waiting": 7,
    "codel_target": 0.25,
    "codel_interval": 3.0,
    "overflow_idle": 45.0,
    "keepalive": 90.0,
    "idle_before_ping": 15.0,
    "leak_after": 20.0,
    "reclaim_leaks": True,
    "nested_checkout": NestedCheckoutPolicy.ALLOW,
}


def pool_of(url: str, **settings: Any) -> PenstockPool:
    pool = build_engine(DatabaseSettings.of(url, **settings)).pool
    assert type(pool) is PenstockPool
    return pool


def test_the_pool_behaves_as_the_settings_say() -> None:
    assert pool_of(POSTGRESQL, connect_timeout=4, **POOL).policy == PoolPolicy(
        connect_timeout=9.0, **POOL
    )


def test_a_setting_that_is_off_is_off_in_the_pool() -> None:
    off = dict.fromkeys(("codel_target", "max_waiting", "leak_after"), "off")
    policy = pool_of(POSTGRESQL, environment="production", **off).policy
    assert (policy.codel_target, policy.max_waiting, policy.leak_after) == (None, None, None)


def test_nothing_closes_the_one_connection_to_a_database_in_memory() -> None:
    pool = pool_of("sqlite://", environment="production", pool_recycle=1, **POOL)
    assert (pool._recycle, pool._pre_ping) == (-1, False)
    assert pool.policy == PoolPolicy(
        connect_timeout=65.0,
        **{
            **POOL,
            "min_idle": 0,
            "keepalive": 0,
            "idle_before_ping": math.inf,
            "reclaim_leaks": False,
        },
    )


def test_a_file_may_wait_for_anothers_lock_when_it_is_opened() -> None:
    policy = pool_of("sqlite:///app.db", connect_timeout=1, command_timeout=30).policy
    assert policy.connect_timeout == 35.0


@pytest.mark.parametrize(("leak_after", "noted"), [(60, True), ("off", False)])
@pytest.mark.parametrize("environment", ["development", "testing", "production"])
def test_statements_are_noted_only_where_leaks_are_reported(
    environment: str, leak_after: object, noted: bool
) -> None:
    settings = DatabaseSettings.of(POSTGRESQL, environment=environment, leak_after=leak_after)
    assert bool(build_engine(settings).dialect.dispatch.do_execute) is noted


def test_the_numbers_of_sqlalchemys_own_pool_are_read_as_well() -> None:
    engine = create_async_engine(
        "sqlite+aiosqlite:///app.db",
        poolclass=AsyncAdaptedQueuePool,
        pool_size=3,
        max_overflow=4,
    )
    assert pool_snapshot(engine) == PoolSnapshot(3, 7, checked_in=0, checked_out=0, overflow=0)


def test_serverless_has_no_pool() -> None:
    engine = build_engine(DatabaseSettings.of(POSTGRESQL, environment="serverless"))
    assert isinstance(engine.pool, NullPool)
    assert pool_snapshot(engine) == PoolSnapshot(0, 0, 0, 0, 0)


def test_a_fresh_production_pool_is_empty_and_idle() -> None:
    snapshot = pool_snapshot(
        build_engine(DatabaseSettings.of(POSTGRESQL, environment="production"))
    )
    assert snapshot == PoolSnapshot(20, 50, checked_in=0, checked_out=0, overflow=0)
    assert snapshot.utilisation == 0.0


def test_the_password_is_in_no_representation_of_the_engine() -> None:
    engine = build_engine(DatabaseSettings.of(POSTGRESQL))
    assert "secret" not in f"{engine!r} {engine.url} {engine.pool!r}"


def test_an_authority_file_without_certificates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    settings = DatabaseSettings.of(POSTGRESQL, tls="verify-full", tls_ca_file=path)
    with pytest.raises(SettingsError, match=r"^tls_ca_file.*PEM"):
        build_engine(settings)
