"""Every rule by the id of its finding, and the findings of all rules."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from penstock.findings import Finding, most_severe_first
from penstock.telemetry.reading import Reading
from penstock.telemetry.rules.leases import (
    connection_leak,
    idle_in_transaction,
    n_plus_one,
    slow_statement,
)
from penstock.telemetry.rules.plan import plan_drift
from penstock.telemetry.rules.pool import (
    checkout_latency,
    connect_storm,
    pool_exhausted,
    shedding,
    short_lived_connections,
    stale_connections,
)
from penstock.telemetry.rules.server import (
    event_loop_blocked,
    pool_exceeds_server,
    replica_lag,
    replicas_left_out,
    server_connections,
    server_unreachable,
    worker_imbalance,
    worker_lost,
)

Rule = Callable[[Reading], Finding | None]
"""Returns a finding about one database, or None; the result depends on the reading alone."""

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "checkout-latency": checkout_latency,
        "pool-exhausted": pool_exhausted,
        "shedding": shedding,
        "connection-leak": connection_leak,
        "idle-in-transaction": idle_in_transaction,
        "stale-connections": stale_connections,
        "short-lived-connections": short_lived_connections,
        "connect-storm": connect_storm,
        "server-unreachable": server_unreachable,
        "server-connections": server_connections,
        "pool-exceeds-server": pool_exceeds_server,
        "replica-lag": replica_lag,
        "replicas-left-out": replicas_left_out,
        "n-plus-one": n_plus_one,
        "slow-statement": slow_statement,
        "worker-imbalance": worker_imbalance,
        "event-loop-blocked": event_loop_blocked,
        "worker-lost": worker_lost,
        "plan-drift": plan_drift,
    }
)
"""Rules by the id of their finding, under which ``docs/findings.md`` explains it."""


def find(reading: Reading, others: Iterable[Finding] = ()) -> list[Finding]:
    """Return the findings about one database.

    It depends on the reading alone, without a clock or I/O, and so works on old readings, too.

    Args:
        reading: What the workers of the database report.
        others: Findings that no reading shows.

    Returns:
        At most one finding of each rule, and the others, the most severe first.
    """
    found = [finding for rule in RULES.values() if (finding := rule(reading))]
    return list(most_severe_first([*found, *others]))
