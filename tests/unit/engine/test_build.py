"""Engines that have not connected yet."""

import sys
from pathlib import Path

import pytest
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from penstock.engine import build_engine, pool_snapshot
from penstock.errors import SettingsError
from penstock.pool import PoolSnapshot
from penstock.settings import DatabaseSettings

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
    assert type(engine.pool) is AsyncAdaptedQueuePool
    assert pool_snapshot(engine).limit == limit


def test_serverless_has_no_pool() -> None:
    engine = build_engine(DatabaseSettings.of(POSTGRESQL, environment="serverless"))
    assert type(engine.pool) is NullPool
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
    with pytest.raises(SettingsError, match="a file of PEM certificates is accepted"):
        build_engine(settings)
