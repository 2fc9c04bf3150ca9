"""What stands between a service and its database, by name: how it treats connections."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Proxy(StrEnum):
    """A proxy, pooler, load balancer or network in front of the database."""

    ALLOYDB_AUTH_PROXY = "alloydb-auth-proxy"
    AWS_NAT_GATEWAY = "aws-nat-gateway"
    AWS_NLB = "aws-nlb"
    AWS_RDS = "aws-rds"
    AWS_RDS_PROXY = "aws-rds-proxy"
    AZURE_LOAD_BALANCER = "azure-load-balancer"
    AZURE_PGBOUNCER = "azure-pgbouncer"
    AZURE_POSTGRESQL = "azure-postgresql"
    CLOUD_SQL_AUTH_PROXY = "cloud-sql-auth-proxy"
    CRUNCHY_PGBOUNCER = "crunchy-pgbouncer"
    DIGITALOCEAN_POOL = "digitalocean-pool"
    FLY_PGBOUNCER = "fly-pgbouncer"
    GCP_VPC = "gcp-vpc"
    HEROKU_PGBOUNCER = "heroku-pgbouncer"
    NEON = "neon"
    ODYSSEY = "odyssey"
    PGBOUNCER = "pgbouncer"
    PGCAT = "pgcat"
    PGPOOL = "pgpool"
    SUPAVISOR = "supavisor"
    SUPAVISOR_SESSION = "supavisor-session"


class PoolMode(StrEnum):
    """How long a pooler leaves a server connection with one client."""

    SESSION = "session"
    """Until the client disconnects."""
    PINNED = "transaction, pinned by session state"
    """For a transaction; once the client has left state there, until it disconnects."""
    TRANSACTION = "transaction"
    """For a transaction, whatever state the client has left there."""


class IdleEnd(StrEnum):
    """What becomes of a connection that is idle for too long."""

    KEPT = "kept"
    CLOSED = "closed"
    """The client's side is sent a FIN, which the pool sees without a round trip."""
    RESET = "forgotten; the next packet is answered with a reset"
    SILENT = "forgotten; packets are lost in silence"
    UNKNOWN = "unknown"


RECYCLE_SHARE = 0.75
"""Share of the idle timeout after which connections are replaced."""
KEEPALIVE = 120.0
TCP_KEEPALIVE = 300
"""Seconds. 300 to 600 is rare enough to cost nothing and outlasts what most firewalls allow."""
SMALL_POOL = 10
"""The largest default of ``pool_size`` behind a pooler, which holds the many connections itself."""

PGBOUNCER_PARAMETERS = "what PgBouncer does not follow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyProfile:
    """How a proxy treats connections, as it is set up by default.

    Args:
        title: The service, and where it listens.
        idle_timeout: Seconds; None where there is none, or none is known.
        idle_end: What becomes of a connection that is idle for longer.
        pool_mode: How a pooler shares server connections; None for what passes all on.
        keeps_statements: Whether prepared statements may be kept by default.
        sleeps: Whether it suspends an idle database, which the pool must not keep awake then.
        pins: What makes it leave a server connection with one client.
        refuses: Which startup parameters it refuses.
        note: What else to know.
        sources: Addresses of the documentation that says so.
    """

    title: str
    idle_timeout: int | None = None
    idle_end: IdleEnd = IdleEnd.KEPT
    pool_mode: PoolMode | None = None
    keeps_statements: bool = True
    sleeps: bool = False
    pins: str = ""
    refuses: str = ""
    note: str = ""
    sources: tuple[str, ...]

    @property
    def pool_recycle(self) -> int | None:
        """Seconds after which a connection is replaced in time; None where there is no limit."""
        return None if self.idle_timeout is None else int(self.idle_timeout * RECYCLE_SHARE)

    @property
    def keepalive(self) -> float:
        """Seconds of idleness after which a ping leaves time for another before the limit."""
        if self.sleeps:
            return 0.0
        return KEEPALIVE if self.idle_timeout is None else min(KEEPALIVE, self.idle_timeout / 2)


def _pgbouncer(title: str, note: str, *sources: str) -> ProxyProfile:
    """Return the profile of a PgBouncer that somebody else runs, in a mode that may be changed."""
    return ProxyProfile(
        title=title,
        idle_end=IdleEnd.UNKNOWN,
        pool_mode=PoolMode.TRANSACTION,
        keeps_statements=False,
        refuses=PGBOUNCER_PARAMETERS,
        note=note,
        sources=sources,
    )


def _through_vpc(title: str, note: str) -> ProxyProfile:
    """Return the profile of what leads through Google's network and passes all on."""
    return ProxyProfile(
        title=title,
        idle_timeout=600,
        idle_end=IdleEnd.SILENT,
        note=note,
        sources=("https://cloud.google.com/compute/docs/troubleshooting/general-tips",),
    )


_RDS_PROXY = "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy-{}.html"
_SUPAVISOR = "https://github.com/supabase/supavisor/blob/main/{}"

PROXIES: Mapping[Proxy, ProxyProfile] = {
    Proxy.ALLOYDB_AUTH_PROXY: _through_vpc(
        "AlloyDB Auth Proxy", "A tunnel: all is as with a direct connection."
    ),
    Proxy.AWS_NAT_GATEWAY: ProxyProfile(
        title="AWS NAT gateway",
        idle_timeout=350,
        idle_end=IdleEnd.RESET,
        note="The timeout is fixed.",
        sources=(
            "https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-troubleshooting.html",
        ),
    ),
    Proxy.AWS_NLB: ProxyProfile(
        title="AWS Network Load Balancer",
        idle_timeout=350,
        idle_end=IdleEnd.RESET,
        note="A TCP listener may have 60 to 6000 s.",
        sources=(
            "https://docs.aws.amazon.com/elasticloadbalancing/latest/network/update-idle-timeout.html",
        ),
    ),
    Proxy.AWS_RDS: ProxyProfile(
        title="Amazon RDS and Aurora, direct",
        idle_timeout=350,
        idle_end=IdleEnd.SILENT,
        note=(
            "Not the server's limit but the security group's, on instances of Nitro v6; 432000 s "
            "on others."
        ),
        sources=(
            "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ConnectionTrackingConfiguration.html",
        ),
    ),
    Proxy.AWS_RDS_PROXY: ProxyProfile(
        title="Amazon RDS Proxy",
        idle_timeout=1800,
        idle_end=IdleEnd.CLOSED,
        pool_mode=PoolMode.PINNED,
        keeps_statements=False,
        pins=(
            "SET, set_config (tenant context, too), PREPARE, EXECUTE, DEALLOCATE, DISCARD, "
            "temporary objects, cursors, LISTEN, LOAD, nextval, setval, session advisory locks, a "
            "text above 16 KB"
        ),
        refuses="options",
        note="It cancels no statement on a client's request.",
        sources=(_RDS_PROXY.format("connections"), _RDS_PROXY.format("pinning")),
    ),
    Proxy.AZURE_LOAD_BALANCER: ProxyProfile(
        title="Azure Load Balancer",
        idle_timeout=240,
        idle_end=IdleEnd.SILENT,
        note="A rule may have 4 to 100 minutes, and send a reset.",
        sources=("https://learn.microsoft.com/en-us/azure/load-balancer/load-balancer-tcp-reset",),
    ),
    Proxy.AZURE_PGBOUNCER: _pgbouncer(
        "Azure Database for PostgreSQL, built-in PgBouncer, port 6432",
        "max_prepared_statements is 0 by default.",
        "https://learn.microsoft.com/en-us/azure/postgresql/flexible-server/concepts-pgbouncer",
    ),
    Proxy.AZURE_POSTGRESQL: ProxyProfile(
        title="Azure Database for PostgreSQL, direct",
        idle_end=IdleEnd.UNKNOWN,
        note="The server closes none by itself; for the network, name azure-load-balancer, too.",
        sources=("https://www.postgresql.org/docs/current/runtime-config-client.html",),
    ),
    Proxy.CLOUD_SQL_AUTH_PROXY: _through_vpc(
        "Google Cloud SQL Auth Proxy",
        "A tunnel: all is as with a direct connection.",
    ),
    Proxy.CRUNCHY_PGBOUNCER: _pgbouncer(
        "Crunchy Bridge, PgBouncer, port 5431",
        "Each database needs the extension crunchy_pooler; no superuser can log in.",
        "https://docs.crunchybridge.com/how-to/pgbouncer",
    ),
    Proxy.DIGITALOCEAN_POOL: _pgbouncer(
        "DigitalOcean, connection pool, port 25061",
        "Each pool has a mode of its own.",
        "https://docs.digitalocean.com/products/databases/postgresql/how-to/manage-connection-pools/",
    ),
    Proxy.FLY_PGBOUNCER: ProxyProfile(
        title="Fly Managed Postgres, pgbouncer.*.flympg.net",
        idle_timeout=300,
        idle_end=IdleEnd.CLOSED,
        pool_mode=PoolMode.TRANSACTION,
        keeps_statements=False,
        refuses=PGBOUNCER_PARAMETERS,
        note=(
            "300 s is Fly's advice; its proxy ends what is open for 10 minutes when it restarts. "
            "Session mode is the default."
        ),
        sources=("https://fly.io/docs/mpg/client-configuration/",),
    ),
    Proxy.GCP_VPC: _through_vpc(
        "Google Cloud, firewall of a VPC network", "10 minutes of connection tracking."
    ),
    Proxy.HEROKU_PGBOUNCER: _pgbouncer(
        "Heroku Postgres, DATABASE_CONNECTION_POOL_URL",
        "Not on Essential plans.",
        "https://devcenter.heroku.com/articles/postgres-connection-pooling",
    ),
    Proxy.NEON: ProxyProfile(
        title="Neon, pooled host (-pooler)",
        idle_timeout=300,
        idle_end=IdleEnd.CLOSED,
        pool_mode=PoolMode.TRANSACTION,
        sleeps=True,
        refuses=PGBOUNCER_PARAMETERS,
        note="Not the pooler's limit but the database's, which is suspended without queries.",
        sources=(
            "https://neon.com/docs/connect/connection-pooling",
            "https://neon.com/docs/introduction/scale-to-zero",
        ),
    ),
    Proxy.ODYSSEY: ProxyProfile(
        title="Odyssey",
        pool_mode=PoolMode.TRANSACTION,
        keeps_statements=False,
        refuses="unknown",
        note="pool_client_idle_timeout and pool_reserve_prepared_statement are off by default.",
        sources=("https://github.com/yandex/odyssey/blob/master/docs/configuration/rules.md",),
    ),
    Proxy.PGBOUNCER: ProxyProfile(
        title="PgBouncer",
        pool_mode=PoolMode.TRANSACTION,
        keeps_statements=False,
        refuses=PGBOUNCER_PARAMETERS,
        note="client_idle_timeout is off by default; max_prepared_statements is 200 since 1.24.",
        sources=("https://www.pgbouncer.org/config.html",),
    ),
    Proxy.PGCAT: ProxyProfile(
        title="PgCat",
        idle_end=IdleEnd.UNKNOWN,
        pool_mode=PoolMode.TRANSACTION,
        keeps_statements=False,
        refuses="unknown",
        note="Its idle_timeout is for the server's side; none is documented for clients.",
        sources=("https://github.com/postgresml/pgcat/blob/main/CONFIG.md",),
    ),
    Proxy.PGPOOL: ProxyProfile(
        title="Pgpool-II",
        pool_mode=PoolMode.SESSION,
        keeps_statements=False,
        refuses="unknown",
        note="client_idle_limit is off by default.",
        sources=(
            "https://www.pgpool.net/docs/latest/en/html/runtime-config-connection-pooling.html",
        ),
    ),
    Proxy.SUPAVISOR: ProxyProfile(
        title="Supabase, Supavisor, port 6543",
        pool_mode=PoolMode.TRANSACTION,
        keeps_statements=False,
        refuses="unknown",
        note="client_idle_timeout is off by default.",
        sources=(
            _SUPAVISOR.format("docs/faq.md"),
            _SUPAVISOR.format("lib/supavisor/tenants/tenant.ex"),
        ),
    ),
    Proxy.SUPAVISOR_SESSION: ProxyProfile(
        title="Supabase, Supavisor, port 5432",
        pool_mode=PoolMode.SESSION,
        keeps_statements=False,
        refuses="unknown",
        note="Each client takes one of the pooler's server connections.",
        sources=(
            _SUPAVISOR.format("docs/faq.md"),
            _SUPAVISOR.format("lib/supavisor/tenants/tenant.ex"),
        ),
    ),
}


_BELOW_IDLE_LIMIT: Mapping[str, str] = {
    "pool_recycle": (
        "a whole number of seconds from 1 to {} is accepted, {default} is the default"
    ),
    "keepalive": "a number of seconds up to {} is accepted, or 0 for no pings",
    "tcp_keepalive": "a whole number of seconds from 10 to {} is accepted",
}
"""What settings accept behind a proxy, by their names; with the largest value and the default."""


def named(value: object) -> tuple[Proxy, ...]:
    """Return the proxies that a setting names, with commas between; what is none is left out."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, Iterable):
        return ()
    each = [name.strip() for name in names if isinstance(name, str)]
    return tuple(Proxy(name) for name in each if name in set(Proxy))


def poolers_among(proxies: Iterable[Proxy]) -> tuple[Proxy, ...]:
    """Return those that share server connections among clients."""
    return tuple(proxy for proxy in proxies if PROXIES[proxy].pool_mode is not None)


def only_postgresqls(proxies: Iterable[Proxy]) -> tuple[Proxy, ...]:
    """Return those that never stand in front of MySQL, as networks and RDS Proxy do."""
    direct = {Proxy.ALLOYDB_AUTH_PROXY, Proxy.AZURE_POSTGRESQL}
    only = direct.union(poolers_among(Proxy)) - {Proxy.AWS_RDS_PROXY}
    return tuple(proxy for proxy in proxies if proxy in only)


def least_patient(proxies: Iterable[Proxy]) -> Proxy | None:
    """Return the one with the shortest idle timeout, which counts; None where none has any."""
    limits = [(limit, proxy) for proxy in proxies if (limit := PROXIES[proxy].idle_timeout)]
    return min(limits)[1] if limits else None


def check_idle_limit(name: str, value: float, proxies: Iterable[Proxy]) -> None:
    """Refuse a setting that lets a connection be idle for as long as a proxy keeps it.

    Args:
        name: Of the setting: ``pool_recycle``, ``keepalive`` or ``tcp_keepalive``.
        value: Seconds.
        proxies: In any order.

    Raises:
        ValueError: It is not below the shortest idle timeout.
    """
    proxy = least_patient(proxies)
    limit = PROXIES[proxy].idle_timeout if proxy else None
    if limit is None or (value < limit and (value > 0 or name != "pool_recycle")):
        return
    default = int(limit * RECYCLE_SHARE)
    accepted = _BELOW_IDLE_LIMIT[name].format(limit - 1, default=default)
    raise ValueError(f"{proxy} ends a connection that was idle for {limit} seconds; {accepted}")


def settings_behind(proxies: Iterable[Proxy], alone: Mapping[str, Any]) -> dict[str, object]:
    """Return the values of the settings that were not set, behind all of these.

    Args:
        proxies: In any order.
        alone: The settings without any, whose numbers become smaller.
    """
    profiles = [PROXIES[proxy] for proxy in proxies]
    if not profiles:
        return {}
    defaults: dict[str, object] = {
        "pool_pre_ping": True,
        "keepalive": min(profile.keepalive for profile in profiles),
    }
    early = [profile.pool_recycle for profile in profiles if profile.pool_recycle is not None]
    if early:
        defaults |= {name: min(alone[name], *early) for name in ("pool_recycle", "tcp_keepalive")}
    if any(profile.pool_mode for profile in profiles):
        defaults |= {"pool_size": min(alone["pool_size"], SMALL_POOL), "max_overflow": 0}
    if not all(profile.keeps_statements for profile in profiles):
        defaults["statement_cache_size"] = 0
    if any(profile.sleeps for profile in profiles):
        defaults["min_idle"] = 0
    return defaults
