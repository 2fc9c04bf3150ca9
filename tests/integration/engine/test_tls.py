"""Encryption, against servers whose certificate the tests signed themselves."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.engine.engines import engine_on, transport_of, with_driver, with_parts
from tests.servers.certificates import Certificates
from tests.servers.mariadb import mariadb_server
from tests.servers.postgres import PostgresServer

from penstock.engine import build_engine
from penstock.errors import SettingsError
from penstock.pool import ConnectFailed, FailureReason
from penstock.settings import DatabaseSettings

POSTGRESQL = ["asyncpg", "psycopg"]
MYSQL = ["asyncmy", "aiomysql"]
CAN_PREFER = [*POSTGRESQL, "aiomysql"]  # asyncmy is refused when the engine is built
IS_ENCRYPTED = {
    "postgresql": "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": (
        "SELECT VARIABLE_VALUE <> '' FROM information_schema.SESSION_STATUS "
        "WHERE VARIABLE_NAME = 'SSL_CIPHER'"
    ),
}


@pytest.fixture
def tls_url(postgres_with_tls: PostgresServer) -> str:
    return postgres_with_tls.url()


@pytest.fixture(scope="module")
def mariadb_with_tls(certificates: Certificates) -> Iterator[str]:
    settings = {"ssl-cert": "../server.pem", "ssl-key": "../server.key"}
    files = {"server.pem": certificates.certificate, "server.key": certificates.key}
    with mariadb_server(settings, files) as server:
        yield server.url("mysql")


@pytest.fixture(params=POSTGRESQL + MYSQL)
def url(request: pytest.FixtureRequest) -> str:
    """A server with TLS, by the name in its certificate, on each driver in turn."""
    server = "tls_url" if request.param in POSTGRESQL else "mariadb_with_tls"
    found: str = request.getfixturevalue(server)
    return with_driver(with_parts(found, host="localhost"), request.param)


@pytest.fixture(params=POSTGRESQL + MYSQL)
def plain_url(request: pytest.FixtureRequest) -> str:
    """A server without TLS."""
    found: str = request.getfixturevalue(
        "database_url" if request.param in POSTGRESQL else "mariadb_url"
    )
    return with_driver(found, request.param)


async def is_encrypted(url: str, **settings: Any) -> bool:
    async with engine_on(url, **settings) as engine, engine.connect() as connection:
        answer = await connection.execute(text(IS_ENCRYPTED[engine.dialect.name]))
        encrypted = bool(answer.scalar())
        socket = await transport_socket(connection)
    async with asyncio.timeout(30):
        # TLS says goodbye after the driver is done, and a transport does not tell when it is.
        while socket is not None and socket.fileno() != -1:  # noqa: ASYNC110 - as just said
            await asyncio.sleep(0.001)
    return encrypted


async def transport_socket(connection: AsyncConnection) -> Any:
    if connection.dialect.driver == "psycopg":
        return None
    return (await transport_of(connection)).get_extra_info("socket")


async def failure(url: str, **settings: Any) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as raised:
        await is_encrypted(url, **settings)
    return raised.value


async def test_disable_leaves_the_connection_in_the_clear(url: str) -> None:
    assert not await is_encrypted(url, tls="disable")


async def test_require_encrypts_without_asking_who_it_is(url: str) -> None:
    assert await is_encrypted(with_parts(url, host="127.0.0.1"), tls="require")


@pytest.mark.parametrize("url", CAN_PREFER, indirect=True)
async def test_prefer_encrypts_where_the_server_can(url: str) -> None:
    assert await is_encrypted(url, tls="prefer")


@pytest.mark.parametrize("plain_url", CAN_PREFER, indirect=True)
async def test_prefer_does_without_where_the_server_cannot(plain_url: str) -> None:
    assert not await is_encrypted(plain_url, tls="prefer")


async def test_require_is_not_content_without_encryption(plain_url: str) -> None:
    failed = await failure(plain_url, tls="require", connect_timeout=5)
    assert failed.reason is FailureReason.TLS


async def test_verify_ca_accepts_a_certificate_of_the_authority(
    url: str, certificates: Certificates
) -> None:
    elsewhere = with_parts(url, host="127.0.0.1")
    ca_file = certificates.authority
    assert await is_encrypted(elsewhere, tls="verify-ca", tls_ca_file=ca_file)


async def test_verify_ca_refuses_a_certificate_of_another_authority(
    url: str, certificates: Certificates
) -> None:
    failed = await failure(url, tls="verify-ca", tls_ca_file=certificates.stranger)
    assert failed.reason is FailureReason.TLS


async def test_verify_full_accepts_the_name_in_the_certificate(
    url: str, certificates: Certificates
) -> None:
    assert await is_encrypted(url, tls="verify-full", tls_ca_file=certificates.authority)


async def test_verify_full_refuses_another_name(url: str, certificates: Certificates) -> None:
    elsewhere = with_parts(url, host="127.0.0.1")
    failed = await failure(elsewhere, tls="verify-full", tls_ca_file=certificates.authority)
    assert failed.reason is FailureReason.TLS


async def test_verify_full_does_not_trust_the_authority_unasked(url: str) -> None:
    failed = await failure(url, tls="verify-full")
    assert failed.reason is FailureReason.TLS


async def test_the_system_s_authorities_are_those_of_openssl(
    url: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    assert await is_encrypted(url, tls="verify-full")


@pytest.fixture
def no_certificates(tmp_path: Path) -> Path:
    path = tmp_path / "empty.pem"
    path.touch()
    return path


@pytest.mark.parametrize("url", ["psycopg"], indirect=True)  # refused for the others at build
async def test_an_authority_file_without_a_certificate_trusts_nobody(
    url: str, no_certificates: Path
) -> None:
    failed = await failure(url, tls="verify-full", tls_ca_file=no_certificates)
    assert failed.reason is FailureReason.TLS


CLIENT = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize("driver", POSTGRESQL)
@pytest.mark.parametrize("tls", ["require", "verify-ca", "verify-full"])
async def test_a_clients_own_certificate_is_shown_to_the_server(
    tls_url: str, certificates: Certificates, driver: str, tls: str
) -> None:
    url = with_driver(with_parts(tls_url, host="localhost"), driver)
    authority = {} if tls == "require" else {"tls_ca_file": certificates.authority}
    files = {"tls_cert_file": certificates.client, "tls_key_file": certificates.client_key}

    async with (
        engine_on(url, tls=tls, **authority, **files) as engine,
        engine.connect() as connection,
    ):
        assert await connection.scalar(text(CLIENT)) == "/CN=postgres"


@pytest.mark.parametrize("driver", POSTGRESQL)
async def test_it_may_be_named_in_the_url_as_libpq_has_it(
    tls_url: str, certificates: Certificates, driver: str
) -> None:
    url = with_driver(with_parts(tls_url, host="localhost"), driver)
    named = f"sslmode=require&sslcert={certificates.client}&sslkey={certificates.client_key}"

    async with engine_on(f"{url}?{named}") as engine, engine.connect() as connection:
        assert await connection.scalar(text(CLIENT)) == "/CN=postgres"


@pytest.mark.parametrize("tls", [None, "disable", "prefer"])
def test_a_clients_certificate_that_would_not_be_used_is_refused(
    certificates: Certificates, tls: str | None
) -> None:
    with pytest.raises(SettingsError, match=r"^tls_cert_file=.*\btls\b.*require"):
        DatabaseSettings.of("postgresql://host/app", tls=tls, tls_cert_file=certificates.client)


def test_a_certificate_without_its_key_is_refused(certificates: Certificates) -> None:
    settings = DatabaseSettings.of(
        "postgresql://host/app", tls="require", tls_cert_file=certificates.client
    )
    with pytest.raises(SettingsError, match=r"^tls_cert_file.*PEM"):
        build_engine(settings)
    with pytest.raises(SettingsError, match=r"^tls_key_file.*tls_cert_file"):
        DatabaseSettings.of(
            "postgresql://host/app", tls="require", tls_key_file=certificates.client_key
        )
