"""How many connections a fleet may open, held against what its server can give."""

import math
from dataclasses import dataclass

from penstock.findings import Finding, Severity


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server says of its connections.

    Args:
        max_connections: All that it accepts.
        reserved: Those that only superusers and reserved roles can have
            (``superuser_reserved_connections + reserved_connections``).
    """

    max_connections: int
    reserved: int = 0

    def allowed(self, reserve: float) -> int:
        """Return the connections that a fleet may have when a share of them is kept in reserve.

        Args:
            reserve: The share, 0.0 to 1.0.
        """
        return math.floor((self.max_connections - self.reserved) * (1 - reserve))


@dataclass(frozen=True, slots=True)
class ConnectionBudget:
    """The most connections that a fleet opens: instances x workers x (size + overflow).

    Args:
        workers: Processes in each instance, each with a pool of its own.
        instances: Machines, containers or pods that share the server.
        pool_size: Connections that each pool keeps.
        max_overflow: Connections that each pool may add.
        reserve: Share of the server's usable connections, 0.0 to 1.0, that stays free for
            administration and migrations; 0.2 to 0.3 is customary.
        others: Connections of jobs and tools beside the pools.
    """

    workers: int
    instances: int
    pool_size: int
    max_overflow: int
    reserve: float
    others: int = 0

    @property
    def wanted(self) -> int:
        """Connections that are open when every pool is full."""
        pools = self.instances * self.workers * (self.pool_size + self.max_overflow)
        return pools + self.others

    def needed(self, reserved: int) -> int:
        """Return the ``max_connections`` that leave the reserve.

        Args:
            reserved: As :class:`ServerLimits` has it.
        """
        return math.ceil(self.wanted / (1 - self.reserve)) + reserved

    def allowed(self, server: ServerLimits) -> int:
        """Return the connections that the fleet may have when the reserve is kept.

        Args:
            server: What the server accepts.
        """
        return server.allowed(self.reserve)

    def check(self, server: ServerLimits, remedy: str | None = None) -> Finding | None:
        """Return a finding when the fleet may ask for more than it is allowed, else None.

        Args:
            server: What the server accepts.
            remedy: What to do where more is known of the load; None for what follows from the
                sizes alone.
        """
        allowed = self.allowed(server)
        if self.wanted <= allowed:
            return None
        usable = server.max_connections - server.reserved
        return Finding(
            id="connection-budget",
            severity=Severity.CRITICAL if self.wanted > usable else Severity.WARNING,
            evidence=(
                f"{self.instances} instance(s) x {self.workers} worker(s) x ({self.pool_size} "
                f"pool_size + {self.max_overflow} max_overflow)"
                f"{f' + {self.others} of others' if self.others else ''} = {self.wanted} "
                "connections; the "
                f"server serves {usable} (max_connections {server.max_connections} - "
                f"{server.reserved} reserved), {allowed} with {self.reserve:.0%} kept in reserve."
            ),
            remedy=remedy or self._remedy(server),
        )

    def largest_pool(self, server: ServerLimits) -> int:
        """Return the connections that each pool may have for all to fit; 0 where not one does.

        Args:
            server: What the server accepts.
        """
        return max(0, self.allowed(server) - self.others) // (self.instances * self.workers)

    def _remedy(self, server: ServerLimits) -> str:
        each = self.largest_pool(server)
        needed = self.needed(server.reserved)
        fit = f"Set pool_size + max_overflow to {each} or less" if each else "Run fewer workers"
        return f"{fit}, or raise max_connections to {needed}, or put PgBouncer in between."
