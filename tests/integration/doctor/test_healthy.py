"""A fresh server that is tuned as proposed has nothing to be warned of."""

import pytest
from tests.integration.doctor.examined import examined
from tests.servers.postgres import PostgresServer

from penstock.doctor import CHECKS

NOT_HERE = {
    "replay-paused": "only a replica can tell",
    "replay-lag": "only a replica can tell",
    "wal-receiver": "only a replica can tell",
    "replication-conflicts": "only a replica can tell",
    "forgotten-statements": 'relation "pg_stat_statements_info" does not exist',
}


@pytest.fixture
def version(tuned: PostgresServer) -> int:
    return int(str(tuned.execute("SHOW server_version_num")[0][0]))


async def test_a_tuned_server_has_no_warning(tuned: PostgresServer) -> None:
    examination = await examined(tuned.url())
    grave = {
        result.check.id
        for result in examination.results
        if result.status in ("warning", "critical")
    }

    # Whether the programs of this machine are the newest is not a matter of the settings.
    assert grave <= {"server-version", "end-of-life"}


async def test_every_query_runs(tuned: PostgresServer, version: int) -> None:
    examination = await examined(tuned.url())
    skipped = {result.check.id: result.skipped for result in examination.results if result.skipped}
    later = {
        check.id: f"PostgreSQL {check.query.since} or later can tell"
        for check in CHECKS.values()
        if check.query.since * 10000 > version and not check.query.of_pgbouncer
    }

    assert skipped == {**NOT_HERE, **later}
    assert len(examination.results) >= 100


async def test_a_plain_role_skips_what_it_cannot_see(tuned: PostgresServer) -> None:
    with tuned.database() as url:
        role = url.rpartition("/")[2]
        results = {each.check.id: each for each in (await examined(url)).results}
        tuned.execute(f"GRANT pg_monitor TO {role}")
        monitoring = {each.check.id: each for each in (await examined(url)).results}

    hidden = f"{role} sees its own sessions only: GRANT pg_monitor TO {role}"
    assert results["idle-in-transaction"].skipped == hidden
    assert monitoring["idle-in-transaction"].status == "ok"
    for each in (results, monitoring):
        assert each["md5-passwords"].skipped == "permission denied for table pg_authid"
        assert each["memory-limit"].skipped.startswith("permission denied")
        assert each["connection-limit"].status == "ok"
