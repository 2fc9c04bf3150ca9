"""A fresh server that is tuned as proposed has nothing to be warned of."""

import re

import pytest
from tests.integration.doctor.examined import examined
from tests.servers.postgres import PostgresServer

from penstock.doctor import CHECKS
from penstock.doctor.known_faults import POSTGRESQL

NOT_HERE = {
    "replay-paused": "only a replica can tell",
    "replay-lag": "only a replica can tell",
    "wal-receiver": "only a replica can tell",
    "replication-conflicts": "only a replica can tell",
    "forgotten-statements": (
        "the extension pg_stat_statements is not installed and loaded, is older than 1.9, or not "
        "on this role's search_path"
    ),
}


RAW = re.compile(r"permission denied|does not exist|must be|the server refused")
"""Words of the server's own errors."""


@pytest.fixture
def version(tuned: PostgresServer) -> int:
    return int(str(tuned.execute("SHOW server_version_num")[0][0]))


async def test_a_tuned_server_has_no_warning(tuned: PostgresServer, version: int) -> None:
    examination = await examined(tuned.url())
    grave = {
        result.check.id
        for result in examination.results
        if result.status in ("warning", "critical")
    }

    newest = next(fault.fixed_in for fault in POSTGRESQL if fault.fixed_in[0] == version // 10000)
    is_newest = (version // 10000, version % 10000) >= newest
    assert grave == (set() if is_newest else {"server-version"})


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
        reasons = {result.skipped for result in each.values()}
        assert each["md5-passwords"].skipped == f"the role {role} may not read it; a superuser may"
        assert not [reason for reason in reasons if RAW.search(reason)]
        assert each["connection-limit"].status == "ok"
