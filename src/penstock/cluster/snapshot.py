"""What one worker knows of the servers of a cluster, at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from penstock.cluster.member import IS_PRIMARY, Member

NO_ANSWER = "it does not answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSnapshot:
    """One server of a cluster.

    Args:
        name: Its host and port; ``primary`` for what writes, wherever that is.
        role: What it said that it is: ``primary``, ``replica``, or ``unknown``.
        lag: Seconds that it is behind; None where it does not say.
        trouble: Why it serves no reads, without addresses and errors, which are in the log; empty
            where it may serve some.
        load: Connections in use and callers in line, for each unit of its weight.
        reads: Reads of this worker that it was chosen for.
        share: These as a share of all reads of this worker, from 0.0 to 1.0.
    """

    name: str
    role: str
    lag: float | None
    trouble: str
    load: float
    reads: int
    share: float

    @classmethod
    def of(cls, member: Member, max_lag: float, reads: int) -> "MemberSnapshot":
        """Return what is known of a server now.

        Args:
            member: It.
            max_lag: Seconds that a replica may be behind.
            reads: Of all servers.
        """
        is_answering, look = member.lag < inf, member.look
        says_position = look is not None and look.lsn is not None
        trouble = member.trouble if is_answering else NO_ANSWER
        return cls(
            name=member.name,
            role=member.role,
            lag=member.lag if is_answering and says_position else None,
            trouble=trouble or (_late(max_lag) if member.lag > max_lag else ""),
            load=member.load,
            reads=member.served,
            share=member.served / reads if reads else 0.0,
        )


def _late(max_lag: float) -> str:
    return f"it is behind for longer than replica_max_lag ({max_lag:g} s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """A primary and its replicas, as one worker sees them.

    Args:
        primary: What writes.
        replicas: What else there is to read from, by name.
        timeline: The latest history that a primary was seen in; 0 before one was.
        replica_reads: Reads of this worker that replicas were chosen for, departed ones included.
        replica_fallbacks: Reads of this worker that went to the primary for want of a replica.
        position_waits: Reads of this worker that have waited for a replica to reach their position.
    """

    primary: MemberSnapshot
    replicas: Sequence[MemberSnapshot]
    timeline: int
    replica_reads: int
    replica_fallbacks: int
    position_waits: int

    @property
    def members(self) -> tuple[MemberSnapshot, ...]:
        """Every server, the primary first."""
        return (self.primary, *self.replicas)

    @property
    def replicas_out(self) -> int:
        """Replicas that serve no reads; not one that has become the primary."""
        return sum(each.trouble not in ("", IS_PRIMARY) for each in self.replicas)
