"""The server's certificate."""

from tests.integration.doctor.examined import found
from tests.servers.postgres import PostgresServer


async def test_a_certificate_that_ends_soon_is_found(
    postgres_with_tls: PostgresServer,
) -> None:
    result = await found(postgres_with_tls.url(), "tls-certificate")

    assert result.status == "critical", result.skipped
    assert result.observation is not None
    assert "The server's TLS certificate ends on 20" in result.observation.evidence
    assert (await found(postgres_with_tls.url(), "tls-off")).status == "ok"


async def test_a_server_without_tls_has_no_certificate_to_end(tuned: PostgresServer) -> None:
    assert (await found(tuned.url(), "tls-certificate")).status == "ok"
