"""What may be wrong with a plan, each as a finding or None; ``docs/planning.md`` explains each."""

from itertools import pairwise
from math import ceil, inf

from penstock.findings import Finding, Severity, number_of
from penstock.planner.erlang import Queue
from penstock.planner.memory import LEAST_WORK_MEM, ServerMemory
from penstock.planner.units import MIB, shown, shown_share, shown_size
from penstock.settings import PRESETS, PROFILES, RECYCLE_SHARE, Environment

LEAST_SAMPLE = 1000
"""Checkouts of which ten are above the 99th percentile."""
HIGH_UTILISATION = 0.8
"""Mean share of the connections in use above which waits grow steeply."""


def sample(checkouts: int | None) -> Finding | None:
    """Return a finding if the hold times rest on few checkouts.

    Args:
        checkouts: From which they were measured; None where they were given.
    """
    if checkouts is None or checkouts >= LEAST_SAMPLE:
        return None
    return Finding(
        id="plan-sample",
        severity=Severity.WARNING,
        evidence=(
            f"The hold times are those of {number_of(checkouts, 'checkout')}; below "
            f"{LEAST_SAMPLE:,} their 99th percentile, and the rate, mean little."
        ),
        remedy="Plan while the service has its usual load, or give query_time and query_p99.",
    )


def utilisation(queue: Queue, target: float, remedy: str) -> Finding | None:
    """Return a finding if too large a share of the connections is in use on average.

    Args:
        queue: In front of one pool.
        target: Largest share that was asked for; above 0.8, and above 1.0, it is graver.
        remedy: The size that keeps the goals, or what it takes where none does.
    """
    used = queue.utilisation
    if used <= target:
        return None
    grows = used >= 1
    severity = Severity.WARNING if used > HIGH_UTILISATION else Severity.INFO
    return Finding(
        id="plan-utilisation",
        severity=Severity.CRITICAL if grows else severity,
        evidence=(
            f"{queue.load:,.2f} of the {queue.servers} connections of each pool are in use on "
            f"average ({shown_share(used)})"
            f"{', and the queue grows without bound' if grows else ''}."
        ),
        remedy=remedy,
    )


def long_wait(queue: Queue, longest: float | None, remedy: str) -> Finding | None:
    """Return a finding if the 99th percentile of the wait is above a goal.

    Args:
        queue: In front of one pool.
        longest: The goal in seconds; None for none.
        remedy: The size that keeps the goals, or what it takes where none does.
    """
    wait = queue.wait_quantile(0.99)
    if longest is None or wait <= longest or queue.utilisation >= 1:
        return None
    return Finding(
        id="plan-wait",
        severity=Severity.WARNING,
        evidence=(
            f"1 % of the requests wait for a connection for more than {shown(wait)}; the goal is "
            f"{shown(longest)}."
        ),
        remedy=remedy,
    )


def active_connections(active: float, most: float, remedy: str) -> Finding | None:
    """Return a finding if the server has more to do at once than it does well.

    Args:
        active: Mean number of connections that it works on.
        most: 2 x cores + spindles; infinite where they are not known.
        remedy: What it takes.
    """
    if most == inf or active <= most * HIGH_UTILISATION:
        return None
    return Finding(
        id="database-cores",
        severity=Severity.CRITICAL if active > most else Severity.WARNING,
        evidence=(
            f"The server works on {active:,.1f} connections at once on average; 2 x cores + "
            f"spindles, with which it does most, are {most:.0f}."
        ),
        remedy=f"{remedy} Replicas that read help, too; more connections would make it slower.",
    )


def deadlock_floor(connections: int, least: int, remedy: str) -> Finding | None:
    """Return a finding if requests that hold a connection can all wait for another.

    Args:
        connections: Of each pool.
        least: Requests at once x (connections of each - 1) + 1.
        remedy: The size that keeps the goals, or what it takes where none does.
    """
    if connections >= least:
        return None
    return Finding(
        id="deadlock-floor",
        severity=Severity.CRITICAL,
        evidence=(
            f"Each pool has {connections} connections; requests that hold several at once can all "
            f"wait for each other unless there are {least}."
        ),
        remedy=f"Use one connection per request. {remedy}",
    )


def timeout_order(
    *,
    pool_timeout: float,
    command_timeout: float,
    request_timeout: float | None,
    balancer_timeout: float | None,
) -> Finding | None:
    """Return a finding if a timeout is not longer than the one within it.

    Args:
        pool_timeout: Seconds that a request waits for a connection.
        command_timeout: Seconds of a statement.
        request_timeout: Seconds of a request; None where there is no such limit.
        balancer_timeout: Seconds of the load balancer; None where there is no such limit.
    """
    chain = [
        (name, seconds)
        for name, seconds in (
            ("pool_timeout", pool_timeout),
            ("command_timeout", command_timeout),
            ("request timeout", request_timeout),
            ("load balancer's timeout", balancer_timeout),
        )
        if seconds is not None
    ]
    wrong = [(inner, outer) for inner, outer in pairwise(chain) if inner[1] >= outer[1]]
    if not wrong:
        return None
    said = "; ".join(
        f"{inner} is {shown(seconds)} and {outer} {shown(limit)}"
        for (inner, seconds), (outer, limit) in wrong
    )
    return Finding(
        id="timeout-order",
        severity=Severity.WARNING,
        evidence=f"{said[0].upper()}{said[1:]}.",
        remedy="Each timeout must be longer than the one within it: pool_timeout, command_timeout, "
        "request, load balancer.",
    )


def late_recycle(pool_recycle: float, idle_limit: float | None) -> Finding | None:
    """Return a finding if a proxy closes idle connections before the pool replaces them.

    Args:
        pool_recycle: Seconds.
        idle_limit: The proxy's idle timeout in seconds; None where it has none.
    """
    if idle_limit is None or pool_recycle < idle_limit:
        return None
    return Finding(
        id="late-recycle",
        severity=Severity.WARNING,
        evidence=(
            f"pool_recycle is {pool_recycle:.0f} s; the proxy closes connections that were idle "
            f"for {idle_limit:.0f} s."
        ),
        remedy=f"Set pool_recycle to {max(1, int(idle_limit * RECYCLE_SHARE))}.",
    )


def memory(needed: ServerMemory, available: int | None) -> Finding | None:
    """Return a finding if the server has less memory than its connections may take.

    Args:
        needed: By the plan.
        available: Bytes of the machine; None where that is not known.
    """
    if available is None or needed.total <= available:
        return None
    least = f"{ceil(needed.least_memory() / MIB)}MB"
    lower = (
        f"Set work_mem to {fitting // 1024}kB, or give the server more memory."
        if (fitting := needed.fitting_work_mem(available)) >= LEAST_WORK_MEM
        else f"Give the server {least} of memory, with work_mem {LEAST_WORK_MEM // 1024}kB."
    )
    return Finding(
        id="plan-memory",
        severity=Severity.WARNING,
        evidence=(
            f"{needed.connections} connections with {needed.nodes} x work_mem "
            f"{shown_size(needed.work_mem)} each, and shared_buffers "
            f"{shown_size(needed.shared_buffers)}, may take {shown_size(needed.total)}; the server "
            f"has {shown_size(available)}."
        ),
        remedy=lower,
    )


_SIZES = [(each.pool_size, each.max_overflow or 0) for each in PRESETS.values()] + [
    (profile.pool_size, profile.max_overflow)
    for environment, profile in PROFILES.items()
    if environment is not Environment.SERVERLESS
]
SMALLEST_USUAL = min(size for size, _ in _SIZES)
LARGEST_USUAL = max(size + overflow for size, overflow in _SIZES)
LARGEST_OVERFLOW = max(overflow / size for size, overflow in _SIZES)


def unusual_size(
    pool_size: int, max_overflow: int, remedy: str, needed: int | None
) -> Finding | None:
    """Return a finding if a pool is of another size, or has more overflow, than any preset has.

    Args:
        pool_size: Connections that it keeps.
        max_overflow: Connections that it may add.
        remedy: The size that keeps the goals, or what it takes where none does.
        needed: The fewest connections that keep them; None where none do.
    """
    if pool_size + max_overflow > LARGEST_USUAL:
        evidence = (
            f"Each pool may open {pool_size + max_overflow} connections; the largest preset has "
            f"{LARGEST_USUAL}."
        )
        remedy = (
            remedy
            if needed is not None and needed <= LARGEST_USUAL
            else "The load needs as many, or more: hold connections for less time."
        )
    elif pool_size + max_overflow < SMALLEST_USUAL:
        evidence = (
            f"Each pool has {pool_size + max_overflow} connection; the smallest profile has "
            f"{SMALLEST_USUAL}."
        )
        remedy = f"{remedy} With one, the readiness probe waits for what a request holds."
    elif max_overflow > LARGEST_OVERFLOW * pool_size:
        evidence = (
            f"max_overflow is {max_overflow / pool_size:.1f} times pool_size; no profile has more "
            f"than {LARGEST_OVERFLOW:.1f}."
        )
        remedy = "Keep more of them: what is opened in a burst makes its requests wait longer."
    else:
        return None
    return Finding("unusual-pool-size", Severity.INFO, evidence, remedy)


def beyond_pooler(most: int, remedy: str) -> Finding:
    """Return the finding that no pooler has connections enough for the load.

    Args:
        most: Server connections of a pooler.
        remedy: What it takes.
    """
    return Finding(
        id="connection-budget",
        severity=Severity.CRITICAL,
        evidence=f"The load needs more than {most:,} connections from the pooler to the server.",
        remedy=remedy,
    )


def overflow_behind_pooler(max_overflow: int) -> Finding | None:
    """Return a finding if a pool behind a pooler has overflow.

    Args:
        max_overflow: Of each pool.
    """
    if not max_overflow:
        return None
    return Finding(
        id="overflow-behind-pooler",
        severity=Severity.INFO,
        evidence=f"max_overflow is {max_overflow} behind a pooler, which queues by itself.",
        remedy="Set max_overflow to 0: the pooler absorbs bursts.",
    )
