"""Several servers with one database: which one reads, and from which position on."""

from penstock.cluster.cluster import Cluster
from penstock.cluster.position import Position, PositionTokens, ReadPolicy
from penstock.cluster.routed_lane import RoutedLane
from penstock.cluster.snapshot import ClusterSnapshot, MemberSnapshot

__all__ = [
    "Cluster",
    "ClusterSnapshot",
    "MemberSnapshot",
    "Position",
    "PositionTokens",
    "ReadPolicy",
    "RoutedLane",
]
