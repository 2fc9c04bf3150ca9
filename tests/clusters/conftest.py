"""A cluster per module, mended between its tests, and one per test for what nothing mends."""

from collections.abc import Iterator

import pytest
from tests.clusters.patroni import PatroniCluster, patroni_cluster
from tests.clusters.streaming import StreamingCluster, streaming_cluster


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[StreamingCluster]:
    """What ``cluster`` gives to each test of the module."""
    with streaming_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: StreamingCluster) -> Iterator[StreamingCluster]:
    """A primary and two replicas, which a test may stop, kill, freeze, pause and delay."""
    yield shared_cluster
    shared_cluster.reset()


@pytest.fixture
def own_cluster() -> Iterator[StreamingCluster]:
    """A primary and two replicas of the test's own, whose roles it may change."""
    with streaming_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_patroni() -> Iterator[PatroniCluster]:
    """What ``patroni`` gives to each test of the module."""
    with patroni_cluster() as cluster:
        yield cluster


@pytest.fixture
def patroni(shared_patroni: PatroniCluster) -> Iterator[PatroniCluster]:
    """Three nodes under Patroni, which a test may switch over, kill and crash."""
    yield shared_patroni
    shared_patroni.reset()
