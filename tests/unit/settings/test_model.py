"""Settings from Python: complete, frozen, and the same when built again from themselves."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from tests.told import numbers

from penstock.errors import SettingsError
from penstock.settings import (
    BudgetPolicy,
    DatabaseSettings,
    Environment,
    NestedCheckoutPolicy,
    Proxy,
    TlsMode,
)

URL = "postgresql+asyncpg://user:password@localhost:5432/app"


def test_a_url_is_all_that_is_needed() -> None:
    settings = DatabaseSettings.of(URL)

    assert settings.url.get_secret_value() == URL
    assert settings.model_dump(exclude={"url"}) == {
        "environment": Environment.DEVELOPMENT,
        "preset": None,
        "proxy": (),
        "credentials_file": None,
        "migrations_url": None,
        "pool_size": 5,
        "max_overflow": 10,
        "pool_timeout": 30.0,
        "pool_recycle": 1800,
        "pool_pre_ping": False,
        "min_idle": 0,
        "max_waiting": None,
        "codel_target": None,
        "codel_interval": 0.1,
        "overflow_idle": 60.0,
        "keepalive": 120.0,
        "idle_before_ping": 30.0,
        "leak_after": 60.0,
        "reclaim_leaks": False,
        "nested_checkout": NestedCheckoutPolicy.REFUSE,
        "autoflush": False,
        "isolation_level": None,
        "echo": True,
        "connect_timeout": 10.0,
        "command_timeout": 60.0,
        "statement_cache_size": 100,
        "application_name": "penstock",
        "jit": False,
        "server_settings": {},
        "requires_context": (),
        "replicas": (),
        "replica_max_lag": 10.0,
        "replica_wait": 0.05,
        "replica_primary_share": 0.5,
        "replica_check_interval": 1.0,
        "position_key": None,
        "position_lifetime": 60.0,
        "hold_writes": 3.0,
        "tls": None,
        "tls_ca_file": None,
        "tls_cert_file": None,
        "tls_key_file": None,
        "tcp_keepalive": 300,
        "workers": 1,
        "instances": 1,
        "connection_reserve": 0.25,
        "plan": None,
        "budget": BudgetPolicy.WARN,
        "fleet": False,
        "fleet_weight": 1,
        "fleet_surge": 0.03,
        "utilisation_warning": 0.8,
        "slow_query": 0.1,
        "batch_reads": True,
        "telemetry": True,
        "telemetry_dir": None,
    }


def test_a_url_may_come_wrapped_as_a_secret() -> None:
    assert DatabaseSettings.of(SecretStr(URL)) == DatabaseSettings.of(URL)


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [
        ("postgresql+asyncpg", "asyncpg"),
        ("postgresql", "asyncpg"),
        ("postgres", "asyncpg"),
        ("postgresql+psycopg", "psycopg"),
        ("mysql+asyncmy", "asyncmy"),
        ("mysql+aiomysql", "aiomysql"),
    ],
)
def test_the_driver_follows_from_the_scheme(scheme: str, driver: str) -> None:
    settings = DatabaseSettings.of(f"{scheme}://user:password@localhost/app")

    assert settings.driver == driver
    assert settings.url.get_secret_value().partition("://")[0].endswith(f"+{driver}")


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
def test_sqlite_is_driven_by_aiosqlite(scheme: str) -> None:
    settings = DatabaseSettings.of(f"{scheme}:///app.db")

    assert settings.driver == "aiosqlite"
    assert settings.url.get_secret_value() == "sqlite+aiosqlite:///app.db"


def test_serverless_keeps_no_connections_and_the_others_do() -> None:
    kept = {
        name: DatabaseSettings.of(URL, environment=name).keeps_connections for name in Environment
    }

    assert kept == {
        Environment.DEVELOPMENT: True,
        Environment.TESTING: True,
        Environment.PRODUCTION: True,
        Environment.SERVERLESS: False,
    }


@pytest.mark.parametrize("url", ["sqlite:///app.db", "sqlite://", "sqlite:///:memory:"])
def test_sqlite_works_in_every_environment(url: str) -> None:
    for environment in Environment:
        assert DatabaseSettings.of(url, environment=environment).driver == "aiosqlite"


def test_choices_may_be_given_by_name() -> None:
    settings = DatabaseSettings.of(
        URL,
        environment="production",
        proxy="pgbouncer",
        tls="require",
        budget="refuse",
        nested_checkout="allow",
    )

    assert settings.environment is Environment.PRODUCTION
    assert settings.proxy == (Proxy.PGBOUNCER,)
    assert settings.tls is TlsMode.REQUIRE
    assert settings.budget is BudgetPolicy.REFUSE
    assert settings.nested_checkout is NestedCheckoutPolicy.ALLOW


def test_numbers_may_be_given_as_text() -> None:
    settings = DatabaseSettings.of(URL, pool_size="7", pool_timeout="2.5", echo="false")

    assert (settings.pool_size, settings.pool_timeout, settings.echo) == (7, 2.5, False)


@pytest.mark.parametrize("name", ["max_waiting", "codel_target", "leak_after", "slow_query"])
def test_an_optional_number_is_switched_off_by_none_or_by_a_word(name: str) -> None:
    for value in (None, "off"):
        settings = DatabaseSettings.of(URL, environment="production", **{name: value})
        assert getattr(settings, name) is None


def test_settings_are_frozen() -> None:
    settings = DatabaseSettings.of(URL)

    with pytest.raises(ValidationError, match="frozen"):
        settings.pool_size = 9  # type: ignore[misc]  # mypy refuses it as well


def test_settings_are_equal_when_all_values_are_and_are_not_hashable() -> None:
    assert DatabaseSettings.of(URL) == DatabaseSettings.of(URL)
    assert DatabaseSettings.of(URL) != DatabaseSettings.of(URL, pool_size=6)
    with pytest.raises(TypeError, match="unhashable"):
        hash(DatabaseSettings.of(URL))


def test_settings_survive_copying_and_pickling() -> None:
    settings = DatabaseSettings.of(URL, server_settings={"timezone": "UTC"})

    assert copy.deepcopy(settings) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_settings_built_from_a_dump_of_settings_are_the_same(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    settings = DatabaseSettings.of(
        f"postgres://user:p%40ss@h1,h2:5433/app?sslmode=verify-full&sslrootcert={authority}",
        environment="production",
        preset="container",
        proxy="aws-rds-proxy",
        server_settings={"timezone": "UTC"},
    )
    dump: dict[str, Any] = settings.model_dump()

    assert DatabaseSettings.of(**dump) == settings


def test_workers_default_to_web_concurrency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")

    assert DatabaseSettings.of(URL).workers == 4
    assert DatabaseSettings.of(URL, workers=2).workers == 2


@pytest.mark.parametrize("value", ["many", "", "0", "1025"])
def test_a_wrong_web_concurrency_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", value)

    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(URL)
    assert str(refused.value).startswith(f"WEB_CONCURRENCY={value!r}: ")
    assert numbers(str(refused.value))[-2:] == ["1", "1024"]
