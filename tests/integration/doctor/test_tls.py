"""The server's certificate."""

from collections.abc import Iterator

import pytest
from tests.integration.doctor.conftest import programs
from tests.integration.doctor.examined import found
from tests.servers.certificates import make_certificates
from tests.servers.postgres import PostgresServer, own_postgres
from tests.servers.process import ServerStartError


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server whose certificate ends in two days."""
    made = make_certificates(tmp_path_factory.mktemp("certificates"))
    settings = {"ssl": "on", "ssl_cert_file": "../server.pem", "ssl_key_file": "../server.key"}
    files = {"server.pem": made.certificate, "server.key": made.key}
    try:
        with own_postgres(programs(), settings, files) as server:
            yield server
    except ServerStartError as error:
        if "SSL is not supported by this build" not in str(error):
            raise
        # CI runs everything a second time on a PostgreSQL that was built with OpenSSL.
        pytest.skip("this PostgreSQL was built without OpenSSL")


async def test_a_certificate_that_ends_soon_is_found(encrypted: PostgresServer) -> None:
    result = await found(encrypted.url(), "tls-certificate")

    assert result.status == "critical", result.skipped
    assert result.observation is not None
    assert "The server's TLS certificate ends on 20" in result.observation.evidence
    assert (await found(encrypted.url(), "tls-off")).status == "ok"


async def test_a_server_without_tls_has_no_certificate_to_end(tuned: PostgresServer) -> None:
    assert (await found(tuned.url(), "tls-certificate")).status == "ok"
