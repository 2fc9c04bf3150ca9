"""A PgBouncer, examined by its console."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest
from tests.eventually import eventually
from tests.servers.pgbouncer import Era, PgbouncerServer, pgbouncer_of, pgbouncer_server
from tests.servers.postgres import PostgresServer

from penstock.base_error import PenstockError
from penstock.doctor import CHECKS, Result, examine_pgbouncer
from penstock.doctor.checks import pgbouncer as rules

OF_PGBOUNCER = [check for check in CHECKS.values() if check.query.of_pgbouncer]
WRONG = {
    "max_prepared_statements": "0",
    "server_reset_query_always": "1",
    "server_reset_query": "",
    "query_wait_timeout": "120",
    "default_pool_size": "101",
    "server_login_retry": "15",
    "idle_transaction_timeout": "0",
    "auth_type": "md5",
}
EXPECTED = {
    "pgbouncer-prepared-statements": "warning",
    "pgbouncer-reset-query": "info",
    "pgbouncer-no-reset-query": "warning",
    "pgbouncer-query-wait-timeout": "info",
    "pgbouncer-pool-size": "warning",
    "pgbouncer-login-retry": "info",
    "pgbouncer-idle-transaction-timeout": "info",
    "pgbouncer-authentication": "warning",
}


@contextmanager
def pooler(
    postgres: PostgresServer,
    era: Era = Era.FOLLOWING,
    mode: str = "transaction",
    settings: Mapping[str, str] | None = None,
) -> Iterator[PgbouncerServer]:
    """A PgBouncer before a server."""
    with pgbouncer_server(
        postgres, binary=pgbouncer_of(era), pool_mode=mode, default_pool_size=1, settings=settings
    ) as server:
        yield server


async def results(server: PgbouncerServer) -> dict[str, Result]:
    """What all checks find."""
    account = f"{server.postgres.user}:{server.postgres.password}"
    url = f"postgresql://{account}@127.0.0.1:{server.port}/pgbouncer"
    return {each.check.id: each for each in await examine_pgbouncer(url, OF_PGBOUNCER)}


async def test_a_pooler_with_our_settings_is_fine(postgres: PostgresServer) -> None:
    ours = {"max_prepared_statements": "200", "idle_transaction_timeout": "60"}
    with pooler(postgres, settings=ours) as server:
        found = await results(server)

    found.pop("pgbouncer-version")  # of this machine, which may be old
    assert {each.status for each in found.values()} == {"ok"}


async def test_each_wrong_setting_is_found(postgres: PostgresServer) -> None:
    with pooler(postgres, settings=WRONG) as server:
        found = await results(server)

    assert {name: found[name].status for name in EXPECTED} == EXPECTED


@pytest.mark.parametrize(
    ("mode", "check", "status"),
    [
        ("session", "pgbouncer-session-mode", "info"),
        ("statement", "pgbouncer-pool-mode", "warning"),
    ],
)
async def test_each_pool_mode_but_transaction_is_told(
    postgres: PostgresServer, mode: str, check: str, status: str
) -> None:
    with pooler(postgres, mode=mode) as server:
        assert (await results(server))[check].status == status


async def test_an_old_version_is_named_and_what_it_lacks_is_skipped(
    postgres: PostgresServer,
) -> None:
    with pooler(postgres, Era.BLIND) as server:
        found = await results(server)

    version = found["pgbouncer-version"]
    assert version.status == "critical"
    assert version.observation is not None
    assert "PgBouncer 1." in version.observation.evidence
    reason = "this PgBouncer has no max_prepared_statements"
    assert found["pgbouncer-prepared-statements"].skipped == reason


async def test_clients_that_wait_are_found(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "LONG_WAIT", 0.0)
    with postgres.database() as url, pooler(postgres) as server, ExitStack() as stack:
        plain = server.url(url).replace("+asyncpg", "")
        holder, waiter = (
            stack.enter_context(closing(psycopg.connect(plain, autocommit=True))) for _ in range(2)
        )
        holder.execute("BEGIN")
        waiter.pgconn.send_query(b"SELECT 1")
        waiter.pgconn.flush()
        await eventually(
            lambda: any(float(str(row["cl_waiting"])) for row in server.admin("SHOW POOLS"))
        )
        result = (await results(server))["pgbouncer-waiting"]

    assert result.status == "warning"
    assert result.observation is not None
    assert "1 of test_" in result.observation.evidence


async def test_a_database_with_all_of_its_connections_open_is_found(
    postgres: PostgresServer,
) -> None:
    limit = {"max_db_connections": "1"}
    with (
        postgres.database() as url,
        pooler(postgres, settings=limit) as server,
        closing(psycopg.connect(server.url(url).replace("+asyncpg", ""))) as client,
    ):
        client.execute("SELECT 1")
        result = (await results(server))["pgbouncer-database-limit"]

    assert result.status == "warning"


async def test_a_paused_database_and_a_paused_pooler_are_found(postgres: PostgresServer) -> None:
    with postgres.database() as url, pooler(postgres) as server:
        name = url.rpartition("/")[2]
        with closing(psycopg.connect(server.url(url).replace("+asyncpg", ""))) as client:
            client.execute("SELECT 1")
        server.admin(f"PAUSE {name}")
        one = await results(server)
        server.admin(f"RESUME {name}")
        server.admin("PAUSE")
        everything = await results(server)
        server.admin("RESUME")

    assert one["pgbouncer-paused"].status == "warning"
    assert one["pgbouncer-stopped"].status == "ok"
    assert everything["pgbouncer-stopped"].status == "critical"


async def test_a_console_that_cannot_be_reached_is_an_error_without_the_password() -> None:
    with pytest.raises(PenstockError, match="console cannot be reached") as failure:
        await examine_pgbouncer("postgresql://a:hunter2@127.0.0.1:1/pgbouncer", OF_PGBOUNCER)

    assert "hunter2" not in str(failure.value)


def test_each_check_of_pgbouncer_is_provoked() -> None:
    provoked = {
        *EXPECTED,
        "pgbouncer-session-mode",
        "pgbouncer-pool-mode",
        "pgbouncer-version",
        "pgbouncer-waiting",
        "pgbouncer-paused",
        "pgbouncer-stopped",
        "pgbouncer-database-limit",
    }

    assert {check.id for check in OF_PGBOUNCER} == provoked
