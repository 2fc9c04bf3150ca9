"""The test bed of replicas does to a cluster what it says."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.clusters.node import wait_until
from tests.clusters.streaming import StreamingCluster, StreamingNode, streaming_cluster


def write(node: StreamingNode, number: int) -> None:
    node.execute("CREATE TABLE IF NOT EXISTS written (number int)")
    node.execute(f"INSERT INTO written VALUES ({number})")


def read(node: StreamingNode) -> list[int]:
    return [int(str(number)) for (number,) in node.execute("SELECT number FROM written ORDER BY 1")]


def test_a_row_of_the_primary_is_on_every_replica(cluster: StreamingCluster) -> None:
    write(cluster.primary, 1)
    cluster.wait_for_replay()
    assert [read(replica) for replica in cluster.replicas] == [[1], [1]]
    assert [node.role() for node in cluster.nodes] == ["primary", "standby", "standby"]


def test_a_reset_empties_the_database(cluster: StreamingCluster) -> None:
    found = "SELECT to_regclass('written')::text"
    assert [node.execute(found) for node in cluster.nodes] == [[(None,)]] * 3


async def test_each_url_reaches_its_node_as_a_plain_role(cluster: StreamingCluster) -> None:
    for url, port in [
        *((node.url, node.server.port) for node in cluster.nodes),
        (cluster.url, cluster.primary.server.port),
    ]:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            asked = (
                "SELECT current_setting('port')::int, current_user, current_setting('is_superuser')"
            )
            assert (await connection.execute(text(asked))).one() == (port, "app", "off")
        await engine.dispose()


def test_a_paused_replica_shows_nothing_new_until_it_resumes(cluster: StreamingCluster) -> None:
    paused, other = cluster.replicas
    write(cluster.primary, 1)
    cluster.wait_for_replay()
    paused.pause_replay()
    write(cluster.primary, 2)
    wait_until(lambda: read(other) == [1, 2], "the other replica shows it")
    assert read(paused) == [1]
    paused.resume_replay()
    wait_until(lambda: read(paused) == [1, 2], "the paused replica shows it")


def test_a_delayed_replica_is_behind(cluster: StreamingCluster) -> None:
    delayed, other = cluster.replicas
    write(cluster.primary, 1)
    cluster.wait_for_replay()
    delayed.delay(60_000)
    write(cluster.primary, 2)
    wait_until(lambda: read(other) == [1, 2], "the other replica shows it")
    assert read(delayed) == [1]
    delayed.delay(0)
    wait_until(lambda: read(delayed) == [1, 2], "the delayed replica shows it")


@pytest.mark.parametrize("end", [StreamingNode.stop, StreamingNode.kill])
def test_a_replica_that_was_down_catches_up(cluster: StreamingCluster, end: object) -> None:
    assert callable(end)
    replica = cluster.replicas[0]
    write(cluster.primary, 1)
    end(replica)
    assert replica.role() == "down"
    write(cluster.primary, 2)
    replica.start()
    cluster.wait_for_replay()
    assert read(replica) == [1, 2]


async def test_a_frozen_primary_answers_nobody_until_it_thaws(cluster: StreamingCluster) -> None:
    engine = create_async_engine(cluster.primary.url, connect_args={"timeout": 0.3})
    async with engine.connect() as connection:
        cluster.primary.freeze()
        asked = asyncio.ensure_future(connection.execute(text("SELECT 1")))
        with pytest.raises(TimeoutError):
            await engine.raw_connection()
        assert not asked.done()
        cluster.primary.thaw()
        assert (await asked).scalar_one() == 1
    await engine.dispose()


@pytest.mark.parametrize("kill", [False, True])
def test_a_restarted_primary_goes_on_where_it_was(cluster: StreamingCluster, kill: bool) -> None:
    write(cluster.primary, 1)
    if kill:
        cluster.primary.kill()
        cluster.primary.start()
    else:
        cluster.restart_primary()
    write(cluster.primary, 2)
    cluster.wait_for_replay()
    assert [read(node) for node in cluster.nodes] == [[1, 2]] * 3
    assert [node.timeline() for node in cluster.nodes] == [1, 1, 1]


def test_a_promoted_replica_writes_a_new_timeline(own_cluster: StreamingCluster) -> None:
    old, (promoted, other) = own_cluster.primary, own_cluster.replicas
    write(old, 1)
    own_cluster.wait_for_replay()
    old.kill()
    own_cluster.promote(promoted)
    write(promoted, 2)
    own_cluster.wait_for_replay()
    assert read(other) == [1, 2]
    assert [promoted.timeline(), other.timeline()] == [2, 2]
    assert own_cluster.replicas == [old, other]


@pytest.mark.parametrize("rewindable", [True, False])
def test_a_former_primary_comes_back_without_what_it_wrote_alone(
    own_cluster: StreamingCluster, rewindable: bool
) -> None:
    old, new = own_cluster.primary, own_cluster.replicas[0]
    write(old, 1)
    own_cluster.wait_for_replay()
    own_cluster.promote(new)
    write(old, 2)
    write(new, 3)
    if not rewindable:
        old.stop()
        for segment in (old.data / "pg_wal").glob("0*"):
            segment.unlink()
    assert own_cluster.demote(old) == rewindable
    own_cluster.wait_for_replay()
    assert [read(node) for node in own_cluster.nodes] == [[1, 3]] * 3
    assert [node.timeline() for node in own_cluster.nodes] == [2, 2, 2]


@pytest.mark.server
def test_nothing_is_left_of_a_cluster_after_a_failure() -> None:
    nodes: list[StreamingNode] = []
    with pytest.raises(ZeroDivisionError):
        fail_with_a_cluster(nodes)
    directories = [node.process.directory for node in nodes]
    assert [processes_of(directory) for directory in directories] == [[], []]
    assert [directory.exists() for directory in directories] == [False, False]


def fail_with_a_cluster(nodes: list[StreamingNode]) -> None:
    with streaming_cluster(replicas=1) as cluster:
        nodes += cluster.nodes
        assert all(processes_of(node.process.directory) for node in nodes)
        cluster.primary.kill()
        raise ZeroDivisionError


def processes_of(directory: Path) -> list[str]:
    """Return the processes that work in a directory or were started with its name, by number."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            works_there = (process / "cwd").readlink().is_relative_to(directory)
            names_it = str(directory).encode() in (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended, or is another user's
        if works_there or names_it:
            found.append(process.name)
    return found
