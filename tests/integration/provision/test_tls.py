"""Generated files of PgBouncer with certificates on both of its sides."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select, text
from tests.integration.provision.pooler import PROGRAMS, generated, role_on, service
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer, own_postgres, postgres_programs
from tests.servers.process import ServerStartError

from penstock import DatabaseSettings
from penstock.errors import ConnectFailed


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(certificates: Certificates) -> Iterator[PostgresServer]:
    """A server that has a certificate."""
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    files = {"server.pem": certificates.certificate, "server.key": certificates.key}
    settings = {"ssl": "on", "ssl_cert_file": "../server.pem", "ssl_key_file": "../server.key"}
    try:
        with own_postgres(programs, settings, files) as server:
            yield server
    except ServerStartError as error:
        if "SSL is not supported by this build" not in str(error):
            raise
        pytest.skip("this PostgreSQL was built without OpenSSL")


@pytest.mark.parametrize("version", ["before-1.21", "since-1.26"])
async def test_both_sides_are_encrypted_and_both_certificates_are_checked(
    version: str, encrypted: PostgresServer, certificates: Certificates
) -> None:
    with role_on(encrypted, "app", "hunter2") as role:
        # Not verify-full: the certificate is localhost's, which may be ::1 to PgBouncer.
        settings = DatabaseSettings.of(
            role.url,
            environment="production",
            tls="verify-ca",
            tls_ca_file=certificates.authority,
        )
        with generated(role, encrypted, PROGRAMS[version](), settings, certificates) as (
            pooler,
            env,
        ):
            trust = {
                "DATABASE_TLS": "verify-full",
                "DATABASE_TLS_CA_FILE": str(certificates.authority),
            }
            shown = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            async with service(pooler, role, env, **trust) as database, database.read() as session:
                assert await session.scalar(text(shown))


@pytest.mark.parametrize("version", ["before-1.21", "since-1.26"])
async def test_clients_have_to_encrypt_where_there_is_a_certificate(
    version: str, postgres: PostgresServer, certificates: Certificates
) -> None:
    with role_on(postgres, "app", "hunter2") as role:
        settings = DatabaseSettings.of(role.url, environment="production")
        with generated(role, postgres, PROGRAMS[version](), settings, certificates) as (
            pooler,
            env,
        ):
            trust = {
                "DATABASE_TLS": "verify-full",
                "DATABASE_TLS_CA_FILE": str(certificates.authority),
            }
            async with service(pooler, role, env, **trust) as database, database.read() as session:
                assert await session.scalar(select(1)) == 1
            with pytest.raises(ConnectFailed):
                await service(pooler, role, env, DATABASE_TLS="disable").open()
