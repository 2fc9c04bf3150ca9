"""What a member sees of the fleet and of the server, at one moment."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from penstock.budget import ServerLimits
from penstock.fleet.member import Member

Row = tuple[int, int, int, str, int]
"""A row of ``look.sql``."""


@dataclass(frozen=True, slots=True)
class View:
    """The server's connections at one moment.

    Args:
        limits: What the server accepts.
        connections: How many each member has open.
        outside: How many all other clients have open.
    """

    limits: ServerLimits
    connections: Mapping[Member, int]
    outside: int

    @classmethod
    def of_rows(cls, rows: Iterable[Row]) -> Self:
        """Return what the rows of ``look.sql`` say, of which there is at least one."""
        connections: dict[Member, int] = {}
        outside, limits = 0, ServerLimits(0)
        for max_connections, reserved, _, name, count in rows:
            limits = ServerLimits(max_connections, reserved)
            member = Member.of_name(name)
            if member is None:
                outside += count
            else:
                connections[member] = connections.get(member, 0) + count
        return cls(limits, connections, outside)
