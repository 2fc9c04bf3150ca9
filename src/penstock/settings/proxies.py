"""What stands between the service and its database, and how long it lets a connection idle."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["PROXIES", "RECYCLE_SHARE", "SHARING", "SLEEPING", "IdleLimit", "Proxy"]


class Proxy(StrEnum):
    """A proxy, pooler or load balancer in front of the database."""

    AWS_NETWORK_LOAD_BALANCER = "aws-network-load-balancer"
    AWS_RDS_PROXY = "aws-rds-proxy"
    AZURE_LOAD_BALANCER = "azure-load-balancer"
    AZURE_PGBOUNCER = "azure-pgbouncer"
    CLOUD_SQL_AUTH_PROXY = "cloud-sql-auth-proxy"
    NEON = "neon"
    PGBOUNCER = "pgbouncer"
    SUPAVISOR = "supavisor"


@dataclass(frozen=True, slots=True)
class IdleLimit:
    """How long a proxy keeps a connection on which nothing happens.

    Args:
        idle_timeout: Seconds, as the proxy is set up by default; None where it sets none.
        source: Where the number comes from.
    """

    idle_timeout: int | None
    source: str

    @property
    def pool_recycle(self) -> int | None:
        """Seconds after which a connection is replaced in time; None where there is no limit."""
        return None if self.idle_timeout is None else int(self.idle_timeout * RECYCLE_SHARE)


RECYCLE_SHARE = 0.75

PROXIES: Mapping[Proxy, IdleLimit] = {
    Proxy.AWS_NETWORK_LOAD_BALANCER: IdleLimit(
        350, "Elastic Load Balancing, Network Load Balancers, TCP idle timeout"
    ),
    Proxy.AWS_RDS_PROXY: IdleLimit(
        1800, "Amazon RDS User Guide, RDS Proxy connection considerations, IdleClientTimeout"
    ),
    Proxy.AZURE_LOAD_BALANCER: IdleLimit(
        240, "Microsoft Learn, Azure Load Balancer TCP Reset and Idle Timeout"
    ),
    Proxy.AZURE_PGBOUNCER: IdleLimit(
        None, "Microsoft Learn, PgBouncer in Azure Database for PostgreSQL, server parameters"
    ),
    # The proxy closes nothing itself; the network under it forgets what is silent.
    Proxy.CLOUD_SQL_AUTH_PROXY: IdleLimit(
        600, "Google Cloud, Troubleshooting VMs, connection tracking of VPC networks"
    ),
    # Not the pooler's limit but the database's: it is suspended, and its connections end.
    Proxy.NEON: IdleLimit(300, "Neon documentation, Scale to zero (formerly Autosuspend)"),
    Proxy.PGBOUNCER: IdleLimit(None, "PgBouncer config.md, client_idle_timeout"),
    Proxy.SUPAVISOR: IdleLimit(None, "Supavisor lib/supavisor/tenants/tenant.ex"),
}

# They put a database that nobody uses to sleep, which is no use if the pool keeps it awake.
SLEEPING = frozenset({Proxy.NEON})

# They lend one server connection to many clients in turn, so a statement prepared by one client
# may be missing for it later, or be another client's. PgBouncer does so before 1.21 and wherever
# max_prepared_statements is 0, as in Azure's; without a cache it is right on every version.
SHARING = frozenset({Proxy.AZURE_PGBOUNCER, Proxy.PGBOUNCER, Proxy.SUPAVISOR})
