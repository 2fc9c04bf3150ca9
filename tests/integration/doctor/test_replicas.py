"""Checks that take more than one server, on a primary and a replica."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from tests.clusters.node import APPLICATION
from tests.clusters.streaming import StreamingCluster, StreamingNode, streaming_cluster
from tests.eventually import eventually
from tests.integration.doctor.examined import examined, found
from tests.servers.postgres import PostgresServer

from penstock.doctor.checks import replication


@pytest.fixture(scope="module")
def replicated() -> Iterator[StreamingCluster]:
    """A primary and a replica."""
    with streaming_cluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture
def cluster(replicated: StreamingCluster) -> Iterator[StreamingCluster]:
    """The same, mended after each test."""
    yield replicated
    replicated.reset()


async def evidence(node: StreamingNode, check: str) -> tuple[str, str]:
    """What a check says of a node."""
    result = await found(node.superuser_url, check)
    return result.status, result.observation.evidence if result.observation else result.skipped


async def test_a_replica_in_step_is_fine(cluster: StreamingCluster) -> None:
    cluster.wait_for_replay()
    (replica,) = cluster.replicas

    for check in ("replay-paused", "replay-lag", "wal-receiver", "replication-conflicts"):
        assert await evidence(replica, check) == ("ok", "")
        assert (await evidence(cluster.primary, check))[1] == "only a replica can tell"
    for check in ("replication-lag", "inactive-slot"):
        assert await evidence(cluster.primary, check) == ("ok", "")


async def test_every_other_query_runs_on_a_replica(cluster: StreamingCluster) -> None:
    (replica,) = cluster.replicas
    results = (await examined(replica.superuser_url)).results
    reasons = {each.check.id: each.skipped for each in results if each.skipped}

    assert reasons.pop("synchronous-standby") == "only a primary can tell"
    assert reasons.keys() == {"forgotten-statements"}
    assert "the extension pg_stat_statements is not installed" in reasons["forgotten-statements"]


async def test_a_plain_role_on_a_replica_sees_its_replay(cluster: StreamingCluster) -> None:
    (replica,) = cluster.replicas
    results = {each.check.id: each for each in (await examined(replica.url)).results}

    assert results["replay-paused"].status == results["replay-lag"].status == "ok"
    assert results["wal-receiver"].skipped == "this role sees no primary_conninfo"


async def test_a_replica_that_lags_is_named_on_both_sides(
    cluster: StreamingCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "LAG_BYTES", 1000)
    (replica,) = cluster.replicas
    replica.pause_replay()
    cluster.primary.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS c")
    waiting = "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) > 1000"
    await eventually(lambda: replica.execute(waiting) == [(True,)])

    assert (await evidence(replica, "replay-paused"))[0] == "warning"
    status, said = await evidence(replica, "replay-lag")
    assert status == "warning"
    assert "This replica has not replayed" in said
    status, said = await evidence(cluster.primary, "replication-lag")
    assert status == "warning"
    assert "1 replica behind" in said


async def test_a_replica_without_its_primary_is_found(cluster: StreamingCluster) -> None:
    (replica,) = cluster.replicas
    cluster.primary.stop()
    gone = "SELECT count(*) = 0 FROM pg_stat_wal_receiver"
    await eventually(lambda: replica.execute(gone) == [(True,)])

    assert (await evidence(replica, "wal-receiver"))[0] == "critical"


async def test_a_statement_that_replay_has_cancelled_is_counted(
    cluster: StreamingCluster,
) -> None:
    (replica,) = cluster.replicas
    cluster.primary.execute("CREATE TABLE read (c int)")
    cluster.wait_for_replay()
    replica.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    replica.execute("SELECT pg_reload_conf()")
    server = replica.server
    with closing(
        psycopg.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=APPLICATION,
        )
    ) as reader:
        reader.execute("SELECT * FROM read")
        cluster.primary.execute("DROP TABLE read")
        cancelled = "SELECT sum(confl_lock) > 0 FROM pg_stat_database_conflicts"
        await eventually(lambda: replica.execute(cancelled) == [(True,)])
    try:
        status, said = await evidence(replica, "replication-conflicts")
    finally:
        replica.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
        replica.execute("SELECT pg_reload_conf()")

    assert status == "warning"
    assert f"by lock in {APPLICATION}" in said


async def test_a_subscription_that_cannot_apply_is_found(provoked: PostgresServer) -> None:
    with provoked.database() as published, provoked.database() as subscribed:
        source, target = (url.rpartition("/")[2] for url in (published, subscribed))
        for database in (source, target):
            provoked.execute("CREATE TABLE thing (id int PRIMARY KEY)", database)
        provoked.execute("CREATE PUBLICATION everything FOR ALL TABLES", source)
        provoked.execute("SELECT pg_create_logical_replication_slot('sub', 'pgoutput')", source)
        provoked.execute("INSERT INTO thing VALUES (1)", target)
        provoked.execute(
            f"CREATE SUBSCRIPTION sub CONNECTION 'host={provoked.host} port={provoked.port} "
            f"user={provoked.user} password={provoked.password} dbname={source}' "
            "PUBLICATION everything WITH (create_slot = false, copy_data = false)",
            target,
        )
        try:
            provoked.execute("INSERT INTO thing VALUES (1)", source)
            failing = "SELECT apply_error_count > 0 FROM pg_stat_subscription_stats"
            await eventually(lambda: provoked.execute(failing, target) == [(True,)])
            result = await found(provoked.url(target), "subscription-errors")
        finally:
            provoked.execute("ALTER SUBSCRIPTION sub DISABLE", target)
            provoked.execute("ALTER SUBSCRIPTION sub SET (slot_name = NONE)", target)
            provoked.execute("DROP SUBSCRIPTION sub", target)
            drop = "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots "
            idle = "SELECT NOT active FROM pg_replication_slots"
            await eventually(lambda: provoked.execute(idle, source) == [(True,)])
            provoked.execute(drop, source)

    assert result.status == "warning"
    assert result.observation is not None
    assert "sub: " in result.observation.evidence
