"""The test bed of failover does to Patroni what it says."""

import httpx
import pytest
from tests.clusters.node import ClusterNode, wait_until
from tests.clusters.patroni import PatroniCluster, patroni_cluster

pytestmark = [pytest.mark.server, pytest.mark.slow]


def write(node: ClusterNode, number: int) -> None:
    node.execute("CREATE TABLE IF NOT EXISTS written (number int)")
    node.execute(f"INSERT INTO written VALUES ({number})")


def wait_for(node: ClusterNode, *numbers: int) -> None:
    rows = [(number,) for number in numbers]
    asked = "SELECT number FROM written ORDER BY 1"
    wait_until(lambda: node.execute(asked) == rows, f"{numbers} on {node.name}")


def test_one_node_leads_and_the_others_follow(patroni: PatroniCluster) -> None:
    leader, replicas = patroni.leader(), patroni.replicas()
    assert {leader, *replicas} == set(patroni.nodes)
    assert len(replicas) == 2
    assert [node.role() for node in (leader, *replicas)] == ["primary", "standby", "standby"]
    assert httpx.get(f"{leader.rest_url}/replica", trust_env=False).status_code == 503


def test_a_switchover_changes_the_leader_and_loses_nothing(patroni: PatroniCluster) -> None:
    old = patroni.leader()
    write(old, 1)
    timeline = old.timeline()
    new = patroni.switchover(patroni.replicas()[1])
    write(new, 2)
    patroni.wait_until_whole()
    assert old.role() == "standby"
    assert {node.timeline() for node in patroni.nodes} == {timeline + 1}
    for node in patroni.nodes:
        wait_for(node, 1, 2)


def test_the_others_elect_a_leader_where_it_was_killed(patroni: PatroniCluster) -> None:
    write(patroni.leader(), 1)
    for replica in patroni.replicas():
        wait_for(replica, 1)
    dead = patroni.kill_leader()
    new = patroni.leader()
    assert new is not dead
    write(new, 2)
    patroni.start(dead)
    wait_for(dead, 1, 2)


def test_nothing_takes_writes_while_etcd_is_down(patroni: PatroniCluster) -> None:
    write(patroni.leader(), 1)
    patroni.kill_etcd()
    wait_until(lambda: {node.role() for node in patroni.nodes} == {"standby"}, "all are standbys")
    for node in patroni.nodes:
        wait_for(node, 1)
    patroni.start_etcd()
    write(patroni.leader(), 2)


def test_a_crashed_leader_hands_over_at_once_and_a_synchronous_replica_has_everything() -> None:
    with patroni_cluster(synchronous=True, settings={"primary_start_timeout": 0}) as cluster:
        (synchronous,) = (node for node in cluster.replicas() if node.is_synchronous())
        write(cluster.leader(), 1)
        crashed = cluster.crash_leader()
        new = cluster.leader(other_than=crashed)
        assert new is synchronous
        wait_for(new, 1)
        cluster.wait_until_whole()
        assert crashed.role() == "standby"
