"""Generated files of PgBouncer with certificates on both of its sides."""

import pytest
from sqlalchemy import select, text
from tests.integration.provision.pooler import PROGRAMS, generated, role_on, service
from tests.servers.certificates import Certificates
from tests.servers.postgres import PostgresServer

from penstock import DatabaseSettings
from penstock.errors import ConnectFailed


@pytest.mark.parametrize("version", ["before-1.21", "since-1.26"])
async def test_both_sides_are_encrypted_and_both_certificates_are_checked(
    version: str, postgres_with_tls: PostgresServer, certificates: Certificates
) -> None:
    with role_on(postgres_with_tls, "app", "hunter2") as role:
        # Not verify-full: the certificate is localhost's, which may be ::1 to PgBouncer.
        settings = DatabaseSettings.of(
            role.url,
            environment="production",
            tls="verify-ca",
            tls_ca_file=certificates.authority,
        )
        with generated(role, postgres_with_tls, PROGRAMS[version](), settings, certificates) as (
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
