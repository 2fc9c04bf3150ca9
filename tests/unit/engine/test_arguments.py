"""What each driver's connect is given, without a server."""

from pathlib import Path
from typing import Any

import pytest

from penstock.engine.connect_arguments import (
    asyncpg_arguments,
    mysql_arguments,
    psycopg_arguments,
    sqlite_arguments,
)
from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, Proxy
from penstock.settings.proxies import poolers_among

ASYNCPG = "postgresql+asyncpg://app:secret@db.internal/app"
PSYCOPG = "postgresql+psycopg://app:secret@db.internal/app"
MYSQL = "mysql+asyncmy://app:secret@db.internal/app"
POOLERS = poolers_among(Proxy)
TUNNELS = [
    "alloydb-auth-proxy",
    "aws-nat-gateway",
    "aws-nlb",
    "aws-rds",
    "azure-load-balancer",
    "azure-postgresql",
    "cloud-sql-auth-proxy",
    "gcp-vpc",
]


def settings(url: str, **overrides: object) -> DatabaseSettings:
    return DatabaseSettings.of(url, environment="testing", **overrides)


def asyncpg(**overrides: object) -> dict[str, Any]:
    return asyncpg_arguments(settings(ASYNCPG, **overrides))


def psycopg(**overrides: object) -> dict[str, Any]:
    return psycopg_arguments(settings(PSYCOPG, **overrides))


def test_asyncpg_gets_both_statement_caches_at_the_same_size() -> None:
    arguments = asyncpg(statement_cache_size=250)
    assert arguments["statement_cache_size"] == 250
    assert arguments["prepared_statement_cache_size"] == 250


def test_asyncpg_s_own_connect_limit_is_off() -> None:
    assert asyncpg()["timeout"] is None


def test_psycopg_s_own_connect_limit_comes_after_the_exact_one() -> None:
    assert psycopg(connect_timeout=0.5)["connect_timeout"] == 3
    assert psycopg(connect_timeout=120)["connect_timeout"] == 122


def test_asyncmy_s_own_connect_limit_comes_after_the_exact_one() -> None:
    assert mysql_arguments(settings(MYSQL, connect_timeout=60))["connect_timeout"] == 61


def test_every_proxy_is_either_a_pooler_or_a_tunnel() -> None:
    assert sorted([*POOLERS, *TUNNELS]) == sorted(Proxy)


@pytest.mark.parametrize("proxy", [None, *TUNNELS])
def test_jit_off_is_a_startup_parameter(proxy: str | None) -> None:
    assert asyncpg(proxy=proxy)["server_settings"]["jit"] == "off"
    assert "-c jit=off" in psycopg(proxy=proxy)["options"]


@pytest.mark.parametrize("proxy", POOLERS)
def test_a_pooler_gets_no_startup_parameter_that_nobody_asked_for(proxy: str) -> None:
    assert asyncpg(proxy=proxy)["server_settings"] == {"application_name": "penstock"}
    assert "options" not in psycopg(proxy=proxy)


@pytest.mark.parametrize("proxy", POOLERS)
def test_a_pooler_gets_the_startup_parameters_that_were_set(proxy: str) -> None:
    asked = {"jit": False, "server_settings": {"timezone": "UTC"}, "command_timeout": 5}
    assert asyncpg(proxy=proxy, **asked)["server_settings"] == {
        "application_name": "penstock",
        "timezone": "UTC",
        "jit": "off",
    }
    assert psycopg(proxy=proxy, **asked)["options"] == "-c timezone=UTC -c jit=off"


def test_a_statement_timeout_of_one_s_own_outranks_command_timeout() -> None:
    options = psycopg(server_settings={"statement_timeout": "7s"})["options"]
    assert "statement_timeout=7s" in options
    assert "statement_timeout=60000" not in options


def test_options_escape_white_space_and_backslashes() -> None:
    options = psycopg(server_settings={"search_path": 'a\\b, "c d"'}, jit=True)["options"]
    assert r'-c search_path=a\\b,\ "c\ d" -c jit=on' in options


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
def test_postgresql_s_tls_modes_go_by_name(mode: str) -> None:
    assert asyncpg(tls=mode)["ssl"] == mode
    assert psycopg(tls=mode)["sslmode"] == mode


def test_without_a_tls_mode_the_driver_decides() -> None:
    assert "ssl" not in asyncpg()
    assert "sslmode" not in psycopg()
    assert "ssl" not in mysql_arguments(settings(MYSQL))


def test_psycopg_verifies_with_the_system_s_authorities() -> None:
    arguments = psycopg(tls="verify-full")
    assert (arguments["sslmode"], arguments["sslrootcert"]) == ("verify-full", "system")


def test_psycopg_refuses_verify_ca_without_an_authority() -> None:
    with pytest.raises(SettingsError, match=r"^tls='verify-ca': .*tls_ca_file"):
        psycopg(tls="verify-ca")


def test_psycopg_gets_the_authority_s_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    arguments = psycopg(tls="verify-ca", tls_ca_file=tmp_path / "ca.pem")
    assert arguments["sslrootcert"] == str(tmp_path / "ca.pem")


def test_asyncmy_refuses_to_prefer_tls() -> None:
    with pytest.raises(SettingsError, match="tls='prefer': asyncmy cannot"):
        mysql_arguments(settings(MYSQL, tls="prefer"))


def test_mysql_limits_statements_on_both_kinds_of_server() -> None:
    command = mysql_arguments(settings(MYSQL, command_timeout=1.5))["init_command"]
    assert command == (
        "SET /*M! SESSION max_statement_time = 1.5 *//*!50708 SESSION max_execution_time = 1500 */"
    )


def test_mysql_without_a_password_is_left_without_one() -> None:
    assert "password" not in mysql_arguments(settings("mysql+asyncmy://app@db.internal/app"))


def test_sqlite_waits_for_locks_as_long_as_a_statement_may_take() -> None:
    arguments = sqlite_arguments(settings("sqlite:///app.db", command_timeout=3))
    assert arguments == {"timeout": 3, "cached_statements": 100}
