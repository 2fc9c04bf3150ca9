"""PgBouncer's files: what is in them, and what is refused."""

import hmac
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import DatabaseSettings
from penstock.errors import SettingsError
from penstock.planner import ServerLimits
from penstock.provision import PgbouncerOptions, pgbouncer_files
from penstock.provision.pgbouncer import Sizes
from penstock.provision.scram import secret_in, secret_of

URL = "postgresql://app:hunter2@db.internal/app"


def settings_of(url: str = URL, **settings: Any) -> DatabaseSettings:
    return DatabaseSettings.of(url, **{"environment": "production", **settings})


def configuration(settings: DatabaseSettings, **options: Any) -> dict[str, str]:
    text = pgbouncer_files(settings, PgbouncerOptions(**options))[0].text
    lines = [line.partition(" = ") for line in text.splitlines() if not line.startswith(";")]
    return {name: value for name, _, value in lines}


def test_a_secret_is_that_of_the_example_in_rfc_7677() -> None:
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    server_key = b64decode(secret_of("pencil", salt).rpartition(":")[2])
    message = (
        "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,"
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )

    signature = b64encode(hmac.digest(server_key, message.encode(), "sha256"))

    assert signature == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize(
    ("password", "same"),
    [
        # RFC 4013, section 3, and what it prohibits.
        ("I\u00adX", "IX"),
        ("\u2168", "IX"),
        ("\u00aa", "a"),
        ("a\u00a0b", "a b"),
        ("\u0007", "\u0007"),
        ("\u06271", "\u06271"),
    ],
)
def test_passwords_are_prepared_as_both_servers_do(password: str, same: str) -> None:
    salt = b"0123456789abcdef"

    assert secret_of(password, salt) == secret_of(same, salt)


def test_a_secret_is_kept_while_it_is_that_of_the_password() -> None:
    secret = secret_of("hunter2")

    assert secret_of("hunter2") != secret
    assert secret_in(f'"app" "{secret}"\n', "hunter2") == secret
    assert secret_in(f'"app" "{secret}"\n', "hunter3") is None


@given(
    settings=st.fixed_dictionaries(
        {"workers": st.integers(1, 64), "instances": st.integers(1, 100)}
    ),
    options=st.fixed_dictionaries(
        {
            "server": st.builds(ServerLimits, st.integers(5, 5000), st.integers(0, 5)),
            "poolers": st.integers(1, 20),
            "pool_size": st.none() | st.integers(1, 3000),
            "pool_mode": st.sampled_from(["transaction", "session"]),
        }
    ),
)
def test_the_sizes_stay_within_the_budget_or_are_refused(
    settings: dict[str, Any], options: dict[str, Any]
) -> None:
    service, chosen = settings_of(**settings), PgbouncerOptions(**options)
    try:
        sizes = Sizes.of(service, chosen)
    except SettingsError:
        return

    allowed = chosen.server.allowed(service.connection_reserve)
    assert 1 <= sizes.pool + sizes.reserve <= max(1, sizes.limit - 1)
    assert sizes.limit * chosen.poolers <= allowed
    assert 1 <= sizes.each <= service.pool_size + service.max_overflow
    if chosen.pool_mode == "session":
        assert sizes.clients <= sizes.pool * chosen.poolers


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({}, {"version": (1, 18)}, {"max_prepared_statements": None}),
        ({}, {}, {"max_prepared_statements": "200", "default_pool_size": "20"}),
        ({"statement_cache_size": 300}, {}, {"max_prepared_statements": "300"}),
        ({"pool_timeout": 0.2}, {}, {"query_wait_timeout": "1", "reserve_pool_timeout": "1"}),
        ({"pool_timeout": 300}, {}, {"query_wait_timeout": "60"}),
        ({"pool_recycle": -1}, {}, {"client_idle_timeout": "0", "server_lifetime": "3600"}),
        (
            {"pool_recycle": 300},
            {},
            {"client_idle_timeout": "400", "server_lifetime": "300", "server_idle_timeout": "300"},
        ),
        ({}, {"server": ServerLimits(5, 3)}, {"max_db_connections": "1", "default_pool_size": "1"}),
        ({}, {"cores": 4}, {"default_pool_size": "9", "reserve_pool_size": "2"}),
        ({}, {"cores": 4, "poolers": 2}, {"default_pool_size": "5", "max_db_connections": "36"}),
        ({}, {"cores": 64, "server": ServerLimits(500, 3)}, {"default_pool_size": "100"}),
        ({}, {"cores": 64, "pool_size": 7}, {"default_pool_size": "7"}),
        ({"environment": "serverless"}, {}, {"max_client_conn": "1000"}),
        ({}, {"poolers": 3}, {"max_db_connections": "24", "default_pool_size": "20"}),
        ({"workers": 8, "instances": 9}, {}, {"max_client_conn": "308"}),
        ({"connection_reserve": 0}, {}, {"max_db_connections": "97"}),
        ({"tls": "require"}, {}, {"server_tls_sslmode": "require"}),
        ({}, {"address": "[::1]:5433"}, {"app": "host='::1' port=5433"}),
        (
            {"proxy": "pgbouncer"},
            {"address": "10.0.0.5"},
            {"app": "host='10.0.0.5' port=5432", "client_tls_sslmode": "disable"},
        ),
        (
            {"url": "postgresql://app:x@/app?host=/run/pg&port=5433"},
            {},
            {"app": "host='/run/pg' port=5433"},
        ),
    ],
)
def test_settings_and_options_are_in_the_file(
    settings: dict[str, Any], options: dict[str, Any], expected: dict[str, str | None]
) -> None:
    found = configuration(settings_of(**settings), **options)

    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("settings", "options", "named"),
    [
        ({"url": "sqlite:///a.db"}, {}, "url"),
        ({"url": "postgresql://app@db/app"}, {}, "url"),
        ({"url": "postgresql://db/app"}, {}, "url"),
        ({"url": "postgresql://app:x@one,two/app"}, {}, "url"),
        ({"proxy": "pgbouncer"}, {}, "proxy"),
        ({"tls": "verify-full"}, {}, "tls"),
        ({"statement_cache_size": 100}, {"version": (1, 20)}, "statement_cache_size"),
        ({"workers": 80}, {"pool_mode": "session"}, "pool_mode"),
        ({}, {"pool_size": 72}, "pool_size"),
        ({}, {"pool_size": 0}, "pool_size"),
        ({}, {"poolers": 73}, "max_connections"),
        ({}, {"tls_cert_file": "a.pem"}, "tls_cert_file"),
        ({}, {"tls_cert_file": "a\nb", "tls_key_file": "a"}, "tls_cert_file"),
        ({}, {"listen": "*\nauth_type = any"}, "listen"),
        ({}, {"listen": ""}, "listen"),
        ({}, {"listen": "10.0.0.5;"}, "listen"),
        ({}, {"listen": "10.0.0.5,,::1"}, "listen"),
        ({}, {"directory": "/etc\nauth_type = any"}, "directory"),
        ({"url": "postgresql://app:x@/app?host=/a%0Ab"}, {}, "server"),
        ({}, {"address": "user@host"}, "server"),
        ({}, {"address": "host:none"}, "server"),
        ({}, {"address": "host:0"}, "server"),
        ({}, {"address": "host:65536"}, "server"),
        ({}, {"address": "[::1]:0"}, "server"),
        ({}, {"address": "host/name"}, "server"),
        ({}, {"address": ""}, "server"),
    ],
)
def test_what_cannot_be_met_is_refused_by_name(
    settings: dict[str, Any], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^{named}\b") as refused:
        pgbouncer_files(settings_of(**settings), PgbouncerOptions(**options))

    assert "hunter2" not in str(refused.value)


def test_what_has_no_effect_behind_a_pooler_is_off_for_the_service() -> None:
    settings = settings_of(fleet=True, preset="container", server_settings={"timezone": "UTC"})

    lines = pgbouncer_files(settings)[3].text.splitlines()

    assert {"DATABASE_FLEET=false", "DATABASE_SERVER_SETTINGS={}"} < set(lines)
    assert any("DATABASE_PRESET" in line for line in lines if line.startswith("#"))


def test_no_file_and_no_repr_has_the_password() -> None:
    files = pgbouncer_files(settings_of())

    assert not any("hunter2" in file.text for file in files)
    assert "SCRAM" not in repr(files)
