"""What is seen of a cluster: in Python, on ``/pool-stats``, ``/metrics`` and the live document."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from tests.clusters.streaming import StreamingCluster
from tests.eventually import eventually

from penstock import Database, query
from penstock.cluster import ClusterSnapshot, ReadPolicy
from penstock.fastapi import install

pytestmark = [pytest.mark.server, pytest.mark.slow]

one = query(text("SELECT 1"))
LATE = "it is behind for longer than replica_max_lag (0.5 s)"
NO_ANSWER = "it does not answer"


def database_of(cluster: StreamingCluster, directory: Path) -> Database:
    return Database.from_url(
        cluster.primary.url,
        environment="testing",
        replicas=[node.url for node in cluster.replicas],
        replica_check_interval=0.2,
        replica_max_lag=0.5,
        telemetry_dir=directory,
    )


@pytest.fixture
async def database(cluster: StreamingCluster, tmp_path: Path) -> AsyncIterator[Database]:
    async with database_of(cluster, tmp_path) as made:
        await eventually(lambda: not snapshot(made).replicas_out)
        yield made


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install(app, database)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as made:
        yield made


def snapshot(database: Database) -> ClusterSnapshot:
    assert database.cluster
    return database.cluster.snapshot()


async def metrics(client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """Return what a scrape says, by metric and server."""
    answer = await client.get("/metrics")
    return {
        (sample.name, sample.labels.get("server", "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def sampled(database: Database, client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """Return a scrape after the next two samples, which have what was counted before them."""
    written = len(database.telemetry.read().workers[0].history)
    await eventually(lambda: len(database.telemetry.read().workers[0].history) > written + 1)
    return await metrics(client)


def names(cluster: StreamingCluster) -> list[str]:
    return sorted(f"{node.server.host}:{node.server.port}" for node in cluster.replicas)


async def test_healthy_servers_are_shown_with_role_lag_and_their_share_of_the_reads(
    database: Database, client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    before = snapshot(database)
    for _ in range(30):
        await database.reader.scalar(one)
    async with database.read(policy=ReadPolicy(primary=True)) as session:
        await session.execute(text("SELECT 1"))
    seen = snapshot(database)

    assert [each.name for each in seen.members] == ["primary", *names(cluster)]
    assert [each.role for each in seen.members] == ["primary", "replica", "replica"]
    assert [each.trouble for each in seen.members] == ["", "", ""]
    assert all(each.lag is not None and each.lag < 0.5 for each in seen.members)
    assert sum(each.share for each in seen.members) == pytest.approx(1.0)
    assert seen.timeline == 1
    assert (seen.replica_reads - before.replica_reads, seen.replica_fallbacks) == (30, 0)
    assert [each.reads > 0 for each in seen.members] == [True, True, True]

    told = (await client.get("/pool-stats")).json()["default"]["cluster"]
    assert [each["name"] for each in told["replicas"]] == names(cluster)
    (shown,) = (await client.get("/pool/state")).json()["databases"]
    assert [each["role"] for each in shown["cluster"]["servers"]] == [
        each.role for each in seen.members
    ]

    scrape = await sampled(database, client)
    assert scrape["penstock_replica_reads_total", ""] == seen.replica_reads
    assert scrape["penstock_replicas", ""] == 2
    for name in names(cluster):
        assert scrape["penstock_replica_up", name] == 1
        assert scrape["penstock_replica_measured_lag_seconds", name] < 0.5


async def test_a_dead_replica_is_shown_and_the_service_stays_ready(
    database: Database, client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    dead = cluster.replicas[0]
    name = f"{dead.server.host}:{dead.server.port}"
    dead.kill()
    await eventually(lambda: snapshot(database).replicas_out == 1)

    (seen,) = (each for each in snapshot(database).replicas if each.name == name)
    assert (seen.trouble, seen.lag, seen.role) == (NO_ANSWER, None, "replica")
    assert (await client.get("/health/ready")).json()["status"] == "ok"
    scrape = await sampled(database, client)
    assert scrape["penstock_replica_up", name] == 0
    assert ("penstock_replica_measured_lag_seconds", name) not in scrape
    assert scrape["penstock_replicas_out", ""] == 1

    dead.start()
    await eventually(lambda: snapshot(database).replicas_out == 0)
    assert (await metrics(client))["penstock_replica_up", name] == 1


async def test_reads_fall_to_the_primary_and_are_counted_where_all_replicas_are_late(
    database: Database, client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        node.pause_replay()
    async with database.write() as session:
        await session.execute(text("CREATE TABLE late (id int)"))
    await eventually(lambda: snapshot(database).replicas_out == 2)
    before = snapshot(database)

    for _ in range(7):
        await database.reader.scalar(one)
    async with database.read() as session:
        await session.execute(text("SELECT 1"))

    seen = snapshot(database)
    assert seen.replica_fallbacks - before.replica_fallbacks == 8
    assert [each.trouble for each in seen.replicas] == [LATE, LATE]
    assert all(each.lag is not None and each.lag > 0.5 for each in seen.replicas)
    scrape = await sampled(database, client)
    assert scrape["penstock_replica_fallbacks_total", ""] == seen.replica_fallbacks
    assert [scrape["penstock_replica_up", name] for name in names(cluster)] == [0, 0]


async def test_a_read_that_waits_for_its_write_is_counted(
    database: Database, client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        node.delay(20)
    waits = snapshot(database).position_waits
    async with database.write() as session:
        await session.execute(text("CREATE TABLE waited (id int)"))
    await database.reader.scalar(one)

    assert snapshot(database).position_waits == waits + 1
    scrape = await sampled(database, client)
    assert scrape["penstock_position_waits_total", ""] == snapshot(database).position_waits


async def test_what_was_counted_is_counted_once_when_the_database_is_opened_again(
    cluster: StreamingCluster, tmp_path: Path
) -> None:
    async with database_of(cluster, tmp_path) as other:
        await eventually(lambda: not snapshot(other).replicas_out)
        database = database_of(cluster, tmp_path)
        for _ in range(2):
            async with database:
                await eventually(lambda: not snapshot(database).replicas_out)
                for _ in range(10):
                    await database.reader.scalar(one)
                reads = snapshot(database).replica_reads
                await eventually(
                    lambda: other.telemetry.read().counters.replica_reads == reads  # noqa: B023 - now
                )
        assert snapshot(database).replica_reads == 20
        assert other.telemetry.read().counters.replica_reads == 20


async def test_a_promoted_replica_is_the_primary_and_not_left_out(
    own_cluster: StreamingCluster, tmp_path: Path
) -> None:
    database = Database.from_url(
        own_cluster.url,
        environment="testing",
        replicas=[node.url for node in own_cluster.replicas],
        replica_check_interval=0.2,
        telemetry_dir=tmp_path,
    )
    promoted = own_cluster.replicas[0]
    name = f"{promoted.server.host}:{promoted.server.port}"

    def roles() -> list[str]:
        members = snapshot(database).members
        return [each.role for each in members if each.name in ("primary", name)]

    async with database:
        await eventually(lambda: not snapshot(database).replicas_out)
        await asyncio.to_thread(own_cluster.primary.kill)
        await asyncio.to_thread(own_cluster.promote, promoted)
        await eventually(lambda: roles() == ["primary", "primary"])
        await eventually(lambda: snapshot(database).replicas_out == 0)
        assert snapshot(database).timeline == 2
