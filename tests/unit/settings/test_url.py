"""URLs: what is accepted is stored as SQLAlchemy reads it, what is wrong is named, not shown."""

import re
from typing import Any

import pytest
from pydantic import AnyUrl, PostgresDsn, TypeAdapter
from sqlalchemy import URL, make_url

from penstock.engine.address import hosts_of
from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, TlsMode

LOGIN = "postgresql+asyncpg://user:password@"
ACCEPTED = (
    "accepted are postgresql+asyncpg, postgresql, postgres, postgresql+psycopg, mysql+asyncmy, "
    "mysql+aiomysql, sqlite+aiosqlite, sqlite"
)


def stored(url: Any) -> str:
    return DatabaseSettings.of(url).url.get_secret_value()


def refusal(url: str) -> str:
    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(url)
    return str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://localhost",
        "postgresql+asyncpg://localhost/",
        "postgresql+asyncpg://",
        "postgresql+asyncpg:///app",
        "postgresql+asyncpg://user:@localhost/app",
        "postgresql+asyncpg://us%2Fer:p%40ss%3Aw%2Frd%25@db.example.com:5432/app",
        "postgresql+asyncpg://user:raw/slash#and?more@localhost/app",
        "postgresql+asyncpg://postgres:[YOUR-PASSWORD]@localhost/app",
        "postgresql+asyncpg://user:pässwörd@localhost/app",
        "postgresql+asyncpg://user:pass word@localhost/app",
        "postgresql+asyncpg://user:password@[::1]:5432/app",
        "postgresql+asyncpg://user:password@[fe80::1%25eth0]/app",
        "postgresql+asyncpg://user:password@db_1.internal/app",
        "postgresql+asyncpg://user@/app?host=/tmp/x",
        "postgresql+asyncpg://user@/app?host=/var/run/postgresql&port=5433",
        "postgresql+asyncpg://user:password@/app?host=h1:5432&host=h2:5433",
        "postgresql+asyncpg://user:password@/app?host=h1,h2&port=5432,5433",
        "postgresql+asyncpg://localhost/app?target_session_attrs=read-write",
        "postgresql+asyncpg://localhost:1/app",
        "postgresql+asyncpg://localhost:65535/app",
        "postgresql+psycopg://localhost/app?channel_binding=require&sslcert=/client.pem",
        "mysql+asyncmy://user:password@localhost:3306/app?charset=utf8mb4",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///relative/path with spaces.db",
        "sqlite+aiosqlite:////absolute/app.db",
        "sqlite+aiosqlite:///user@home.db",
        "sqlite+aiosqlite:///file:app.db?mode=ro&uri=true",
    ],
)
def test_a_sound_url_is_stored_as_it_was_written(url: str) -> None:
    assert stored(url) == url


@pytest.mark.parametrize(
    ("hosts", "query"),
    [
        ("h1:5432,h2:5433", "host=h1:5432&host=h2:5433"),
        ("h1,h2", "host=h1:5432&host=h2:5432"),
        ("10.0.0.1,h2:6432,h3", "host=10.0.0.1:5432&host=h2:6432&host=h3:5432"),
    ],
)
def test_several_hosts_are_stored_where_sqlalchemy_expects_them(hosts: str, query: str) -> None:
    assert stored(f"{LOGIN}{hosts}/app") == f"{LOGIN}/app?{query}"
    assert stored(f"{LOGIN}{hosts}/app?target_session_attrs=any") == (
        f"{LOGIN}/app?{query}&target_session_attrs=any"
    )


@pytest.mark.parametrize("name", ["sslmode", "ssl"])
@pytest.mark.parametrize("mode", TlsMode)
def test_sslmode_in_the_url_becomes_the_tls_setting(mode: TlsMode, name: str) -> None:
    settings = DatabaseSettings.of(f"{LOGIN}host/app?{name}={mode}&target_session_attrs=any")

    assert settings.tls is mode
    assert settings.url.get_secret_value() == f"{LOGIN}host/app?target_session_attrs=any"


def test_an_unknown_sslmode_is_refused_by_the_place_where_it_stands() -> None:
    assert refusal(f"{LOGIN}host/app?sslmode=allow") == (
        "url, sslmode='allow': one of disable, prefer, require, verify-ca, verify-full is accepted"
    )


@pytest.mark.parametrize("name", ["sslmode", "ssl"])
def test_sslmode_beside_the_tls_setting_is_refused(name: str) -> None:
    with pytest.raises(SettingsError) as refused:
        DatabaseSettings.of(f"{LOGIN}host/app?{name}=require", tls="verify-full")

    assert re.match(rf"url: .*\b{name}\b.*\btls\b", str(refused.value))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("connect_timeout=5", "its connect_timeout has a setting: connect_timeout"),
        ("application_name=me", "its application_name has a setting: application_name"),
        ("options=-cjit%3Doff", "its options has a setting: server_settings"),
        ("connection_limit=3", "its connection_limit has a setting: pool_size"),
        (
            "prepared_statement_cache_size=0",
            "its prepared_statement_cache_size has a setting: statement_cache_size",
        ),
        ("password=secret", "its password belongs in front of the host: user:password@host"),
        ("user=me", "its user belongs in front of the host: user:password@host"),
    ],
)
def test_a_parameter_that_has_another_place_is_refused_with_that_place(
    query: str, reason: str
) -> None:
    assert refusal(f"{LOGIN}host/app?{query}") == f"url: {reason}"


@pytest.mark.parametrize("name", ["channel_binding", "pgbouncer", "schema", "search_path", "foo"])
def test_a_parameter_that_asyncpg_has_not_is_refused_with_the_way_out(name: str) -> None:
    assert re.match(
        rf"url: asyncpg\b.*\b{name}\b.*\bserver_settings\b",
        refusal(f"{LOGIN}host/app?{name}=public"),
    )


def test_the_rest_of_a_password_is_no_parameter_and_not_shown() -> None:
    line = refusal("postgresql://user:p@ss?word@host/app")

    assert line.startswith("url: ")
    assert "%40" in line
    assert "word@" not in line


def test_a_login_among_the_parameters_of_mysql_is_refused() -> None:
    assert refusal("mysql+asyncmy://host/app?user=me&password=secret") == (
        "url: its user belongs in front of the host: user:password@host"
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "it is empty"),
        ("  ", "there is a space or line break at its start or end"),
        (f"{LOGIN}host/app\n", "there is a space or line break at its start or end"),
        (f" {LOGIN}host/app", "there is a space or line break at its start or end"),
        (f"{LOGIN}ho\tst/app", "there is a control character in it"),
        (f"{LOGIN}host/app\0", "there is a control character in it"),
        ("localhost/app", f"it does not start with a scheme and :// ({ACCEPTED})"),
        ("postgresql:localhost", f"it does not start with a scheme and :// ({ACCEPTED})"),
        ("user:password@host://", f"it does not start with a scheme and :// ({ACCEPTED})"),
        ("oracle://localhost/app", f"the scheme oracle is unknown ({ACCEPTED})"),
        ("postgresql+psycopg2://h/a", f"the scheme postgresql+psycopg2 is unknown ({ACCEPTED})"),
        (
            "postgresql+psycopg_async://h/a",
            f"the scheme postgresql+psycopg_async is unknown ({ACCEPTED})",
        ),
        ("POSTGRES://localhost/app", f"the scheme POSTGRES is unknown ({ACCEPTED})"),
        (f"{LOGIN}host:port/app", "a port is not a whole number from 1 to 65535"),
        (f"{LOGIN}host:/app", "a port is not a whole number from 1 to 65535"),
        (f"{LOGIN}host:0/app", "a port is not a whole number from 1 to 65535"),
        (f"{LOGIN}host:65536/app", "a port is not a whole number from 1 to 65535"),
        (f"{LOGIN}host:-1/app", "a port is not a whole number from 1 to 65535"),
        (f"{LOGIN}host:٣/app", "a port is not a whole number from 1 to 65535"),
        (f"{LOGIN}host:{'9' * 5000}/app", "a port is not a whole number from 1 to 65535"),
        (f"{LOGIN}h1:1,h2:x/app", "a port is not a whole number from 1 to 65535"),
        (f"{LOGIN}::1:5432/app", "an IPv6 host is written in brackets"),
        (f"{LOGIN}my host/app", "a host is malformed"),
        (f"{LOGIN}[::1/app", "a host is malformed"),
        (f"{LOGIN}%2Frun%2Fpostgresql/app", "a Unix socket is a parameter: ?host=/directory"),
        (f"{LOGIN}h1,/app", "each of several hosts is a name or an address"),
        (
            "postgresql://user:p@ssword@host/app",
            "an @ in the user name or password is written %40",
        ),
        (
            "mysql+asyncmy://user:password@h1,h2/app",
            "several hosts are understood for PostgreSQL only",
        ),
        (
            "sqlite://app.db",
            "SQLite has no host: write sqlite:///relative.db or sqlite:////absolute.db",
        ),
    ],
)
def test_a_wrong_url_is_refused_by_the_part_that_is_wrong(url: str, reason: str) -> None:
    assert refusal(url) == f"url: {reason}"


def test_a_url_that_is_no_text_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^url: a URL whose scheme is one of .* is accepted$"):
        DatabaseSettings.of(b"postgresql://localhost/app")


@pytest.mark.parametrize(
    ("hosts", "tried"),
    [
        ("[::1],[::2]", [("::1", 5432), ("::2", 5432)]),
        ("[::1]:5433,h2", [("::1", 5433), ("h2", 5432)]),
        ("h1:1,[fe80::1%25eth0]:2", [("h1", 1), ("fe80::1%eth0", 2)]),
        ("10.0.0.1,[::1],db", [("10.0.0.1", 5432), ("::1", 5432), ("db", 5432)]),
    ],
)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_ipv6_addresses_may_be_among_several_hosts(
    driver: str, hosts: str, tried: list[tuple[str, int]]
) -> None:
    url = make_url(stored(f"postgresql+{driver}://user:password@{hosts}/app"))

    assert hosts_of(url) == tried
    _, arguments = url.get_dialect()().create_connect_args(url)
    of_driver = [arguments["host"], arguments["port"]]
    names, ports = (each.split(",") if isinstance(each, str) else each for each in of_driver)
    assert [(name, int(port)) for name, port in zip(names, ports, strict=True)] == tried


PASSWORDS = ["password", "p@ss:w/rd%", "***x", "pässwörd"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("host", ["db.internal", "::1"])
@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql", "mysql+asyncmy"])
def test_a_url_object_of_sqlalchemys_is_taken_whole(scheme: str, host: str, password: str) -> None:
    given = URL.create(scheme, "us er", password, host, 5433, "app")

    settings = DatabaseSettings.of(given)

    taken = make_url(settings.url.get_secret_value())
    assert taken == given.set(drivername=taken.drivername)
    assert password not in repr(settings)


def test_a_url_object_of_sqlalchemys_may_have_several_hosts_and_parameters() -> None:
    query = {"host": ("h1:1", "h2:2"), "target_session_attrs": "read-write"}
    given = URL.create("postgresql+asyncpg", "user", "password", database="app", query=query)

    assert make_url(DatabaseSettings.of(given).url.get_secret_value()) == given


@pytest.mark.parametrize("kind", [PostgresDsn, AnyUrl])
@pytest.mark.parametrize("password", ["password", "p%40ss%3Aw%2Frd"])
def test_a_url_object_of_pydantics_is_taken_whole(kind: Any, password: str) -> None:
    text = f"postgresql+asyncpg://user:{password}@db.internal:5433/app"
    given = TypeAdapter(kind).validate_python(text)

    assert stored(given) == text


def test_the_text_of_a_url_object_without_its_password_is_refused() -> None:
    text = str(URL.create("postgresql+asyncpg", "user", "password", "host"))
    assert "its password is ***" in refusal(text)


@pytest.mark.parametrize("url", [None, 7, b"postgresql://host/app", object(), ["postgresql://"]])
def test_what_is_no_url_is_refused(url: Any) -> None:
    with pytest.raises(SettingsError, match=r"^url: a URL whose scheme"):
        DatabaseSettings.of(url)
