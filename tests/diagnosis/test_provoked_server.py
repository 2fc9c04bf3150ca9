"""A server that is full, or smaller than the pools, and a replica that is behind."""

import pytest
from tests.diagnosis.workers import Findings

pytestmark = pytest.mark.timeout(300)


def test_others_that_take_most_of_the_servers_connections(provoked: Findings) -> None:
    assert provoked["crowded"].keys() == {"server-connections"}
    assert "connections are of others" in provoked["crowded"]["server-connections"]["remedy"]


def test_a_pool_that_may_grow_beyond_the_server(provoked: Findings) -> None:
    assert provoked["greedy"].keys() == {"pool-exceeds-server"}


def test_a_replica_that_replays_nothing(provoked: Findings) -> None:
    assert provoked["lagging"].keys() == {"replica-lag"}
    assert "has not replayed 24." in provoked["lagging"]["replica-lag"]["evidence"]
