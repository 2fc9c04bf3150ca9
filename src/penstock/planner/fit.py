"""Whether pools and server can bear a load, and what it takes where they cannot."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, floor, log10
from typing import Any

from penstock.budget import ConnectionBudget
from penstock.planner.checks import HIGH_UTILISATION, LARGEST_USUAL, SMALLEST_USUAL
from penstock.planner.erlang import fewest_servers
from penstock.planner.inputs import LARGEST_POOL, LARGEST_RATE, PlanInputs
from penstock.planner.units import shown, shown_rate, shown_share
from penstock.settings import Proxy

MOST_SHARED = 100_000
"""Connections of a pooler to the server, at the most."""
_LEAST_SHARE = 1e-9
_MOST_CONNECTIONS = 262_143
_MOST_CORES = 4096
_MOST_WORKERS = 1024
_STEPS = 45


class Limit(StrEnum):
    """What bounds the load of a plan."""

    UTILISATION = "utilisation"
    WAIT = "wait"
    P99 = "p99"
    CORES = "cores"
    BUDGET = "budget"
    POOL = "pool size"
    RATE = "largest rate"


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What it takes where a load does not fit; each alone suffices, None where it does not.

    Args:
        connections: That each pool needs; None where no pool of up to 1,000 keeps the goals.
        max_connections: That the server must accept, with ``cores`` where that is not None.
        cores: That the server must have, with ``max_connections`` where that is not None.
        pgbouncer: Whether PgBouncer in transaction mode suffices.
        workers: Of each instance.
        rate: Requests per second at the most.
        query_time: Mean seconds of a query at the most, its percentile in the same proportion.
    """

    connections: int | None
    max_connections: int | None
    cores: int | None
    pgbouncer: bool
    workers: int | None
    rate: float | None
    query_time: float | None


def per_second(inputs: PlanInputs) -> float:
    """Return how often a connection is asked for, by the whole service."""
    return (inputs.rate or 0.0) * inputs.connections_per_request


def least(inputs: PlanInputs) -> int:
    """Return the connections that each pool needs under any load."""
    return max(inputs.deadlock_floor, SMALLEST_USUAL)


def broken_goal(inputs: PlanInputs, connections: int, checkouts: float) -> Limit | None:
    """Return the goal that a queue does not keep; None where it keeps all.

    Args:
        inputs: With the goals.
        connections: Of the pool, or of PgBouncer.
        checkouts: Per second.
    """
    queue = inputs.hold.queue(connections, checkouts)
    if queue.utilisation > inputs.utilisation:
        return Limit.UTILISATION
    if inputs.wait is not None and queue.wait_quantile(0.99) > inputs.wait:
        return Limit.WAIT
    if inputs.p99 is not None and inputs.hold.response_quantile(queue) > inputs.p99:
        return Limit.P99
    return None


def fewest_of_pool(inputs: PlanInputs) -> int | None:
    """Return the fewest connections with which a pool keeps the goals; None for over 1,000."""
    found = max(_fewest(inputs, per_second(inputs) / inputs.pools, LARGEST_POOL), least(inputs))
    return found if found <= LARGEST_POOL else None


def fewest_shared(inputs: PlanInputs) -> int | None:
    """Return the fewest server connections with which PgBouncer keeps them; None for over 100,000.

    The percentile of the response is a goal of the pools.
    """
    found = _fewest(inputs.model_copy(update={"p99": None}), per_second(inputs), MOST_SHARED)
    return found if found <= MOST_SHARED else None


def _fewest(inputs: PlanInputs, checkouts: float, most: int) -> int:
    return fewest_servers(lambda n: broken_goal(inputs, n, checkouts) is None, most + 1)


def budget_behind(inputs: PlanInputs, connections: int) -> ConnectionBudget:
    """Return the budget of a PgBouncer with so many connections to the server."""
    return replace(inputs.budget(connections, 0), workers=1, instances=1)


def limit_of(inputs: PlanInputs, largest: int = LARGEST_POOL) -> Limit | None:
    """Return what keeps a load from fitting; None where it fits.

    Args:
        inputs: With the rate. Where both sizes are given, the pools have them; else as many
            connections as they need.
        largest: The most that these may be.
    """
    if inputs.active(inputs.rate or 0.0) > inputs.most_active * HIGH_UTILISATION:
        return Limit.CORES
    if inputs.pool_size is not None and inputs.max_overflow is not None:
        connections, by_size = inputs.pool_size + inputs.max_overflow, None
    else:
        connections, by_size = largest_of_pool(inputs, largest)
        if connections < least(inputs):
            return by_size
    goal = broken_goal(inputs, connections, per_second(inputs) / inputs.pools)
    return (by_size or goal) if goal else _limit_behind(inputs)


def _limit_behind(inputs: PlanInputs) -> Limit | None:
    if not inputs.shares_connections:
        return None
    room, server = MOST_SHARED, inputs.server
    if server is not None:
        room = min(room, budget_behind(inputs, 0).largest_pool(server))
    alone = inputs.model_copy(update={"p99": None})
    fits = room > 0 and broken_goal(alone, room, per_second(inputs)) is None
    return None if fits else Limit.BUDGET


def largest_of_pool(inputs: PlanInputs, largest: int = LARGEST_POOL) -> tuple[int, Limit]:
    """Return the connections that each pool may have, and what does not let it have more."""
    server = inputs.server
    if server is None or inputs.shares_connections:
        return largest, Limit.POOL
    room = inputs.budget(1, 0).largest_pool(server)
    return (room, Limit.BUDGET) if room <= LARGEST_POOL else (LARGEST_POOL, Limit.POOL)


def largest_rate(inputs: PlanInputs, largest: int = LARGEST_USUAL) -> tuple[float, Limit] | None:
    """Return the largest rate that fits, and what bounds it; None where no rate fits.

    Args:
        inputs: With the goals and perhaps the sizes.
        largest: The most connections of a pool whose size is free, where no server is known.
    """

    def limit(rate: float) -> Limit | None:
        return limit_of(inputs.model_copy(update={"rate": rate}), largest)

    if limit(LARGEST_RATE) is None:
        return LARGEST_RATE, Limit.RATE
    found = _largest(lambda rate: limit(rate) is None, LARGEST_RATE)
    if found is None:
        return None
    # A little more than the largest breaks what bounds it.
    return found, next(each for by in (1.002, 1.01, 1.1, 2.0, 1e9) if (each := limit(found * by)))


def _largest(fits: Callable[[float], bool], high: float) -> float | None:
    """Return the largest number that fits, rounded down as it is shown; None where none does."""
    low = high * _LEAST_SHARE
    if not fits(low):
        return None
    for _ in range(_STEPS):
        # Between two numbers of different size, the middle is the geometric one.
        middle = (low * high) ** 0.5
        low, high = (middle, high) if fits(middle) else (low, middle)
    size = floor(log10(low))
    digits = 2 if size < 0 else max(3, size + 1)
    step = 10.0 ** (size - digits + 1)
    return float(f"{floor(low / step) * step:.{digits}g}")


def shortfall(inputs: PlanInputs) -> Shortfall | None:
    """Return what it takes where the load does not fit with pools of any size; else None."""
    free = inputs.model_copy(update={"pool_size": None, "max_overflow": None, "p99": None})
    if limit_of(free) is None:
        return None

    def fits(**changes: Any) -> bool:
        return limit_of(free.model_copy(update=changes)) is None

    needed = fewest_of_pool(free)
    server = _server_for(free, needed)
    has_server = bool(server) and fits(**server)
    query, p99 = free.query_time or 0.0, free.query_p99

    def fits_query(time: float) -> bool:
        return fits(query_time=time, query_p99=None if p99 is None else p99 * (time / query))

    rate = largest_rate(free, LARGEST_POOL)
    return Shortfall(
        connections=needed,
        max_connections=server.get("max_connections") if has_server else None,
        cores=server.get("cores") if has_server else None,
        pgbouncer=not free.shares_connections and fits(proxy=(*free.proxy, Proxy.PGBOUNCER)),
        workers=next((n for n in _other_workers(free.workers) if fits(workers=n)), None),
        rate=rate[0] if rate else None,
        query_time=_largest(fits_query, query),
    )


def _server_for(inputs: PlanInputs, needed: int | None) -> dict[str, int]:
    """Return the changes of the server with which a load fits."""
    found: dict[str, int] = {}
    connections = fewest_shared(inputs) if inputs.shares_connections else needed
    if connections is not None and inputs.server is not None:
        budget = (
            budget_behind(inputs, connections)
            if inputs.shares_connections
            else inputs.budget(connections, 0)
        )
        if budget.wanted > budget.allowed(inputs.server):
            found["max_connections"] = budget.needed(inputs.reserved)
    active = inputs.active(inputs.rate or 0.0) / HIGH_UTILISATION
    if active > inputs.most_active:
        found["cores"] = ceil((active - inputs.spindles) / 2)
    is_possible = (
        found.get("max_connections", 0) <= _MOST_CONNECTIONS
        and found.get("cores", 0) <= _MOST_CORES
    )
    return found if is_possible else {}


def _other_workers(workers: int) -> list[int]:
    """Return fewer workers, whose queues serve more, and then more, whose pools are smaller."""
    fewer = [workers >> by for by in range(1, 11) if workers >> by]
    return [*fewer, *(n for by in range(1, 11) if (n := workers << by) <= _MOST_WORKERS)]


def advice(inputs: PlanInputs, missing: Shortfall | None) -> str:
    """Return what to do about sizes that do not keep the goals or do not fit.

    Args:
        inputs: Of the plan.
        missing: As :func:`shortfall` returns it.
    """
    if missing is not None:
        return _what_it_takes(inputs, missing)
    free = inputs.model_copy(update={"p99": None})
    needed = fewest_of_pool(free) or LARGEST_POOL
    used = inputs.hold.queue(needed, per_second(inputs) / inputs.pools).utilisation
    return (
        f"Set pool_size + max_overflow to {needed}, of which {shown_share(used)} are in use then, "
        "or hold connections for less time."
    )


def _what_it_takes(inputs: PlanInputs, missing: Shortfall) -> str:
    needs = (
        f"no pool of up to {LARGEST_POOL:,} connections keeps the goals"
        if missing.connections is None
        else f"each pool needs {missing.connections} connections"
    )
    room, by = largest_of_pool(inputs)
    has = f", and the server has room for {room}" if by is Limit.BUDGET else ""
    server = [
        *([f"max_connections of {missing.max_connections}"] if missing.max_connections else []),
        *([f"{missing.cores} cores"] if missing.cores else []),
    ]
    ways = [
        *([" and ".join(server)] if server else []),
        *(["PgBouncer in between"] if missing.pgbouncer else []),
        *([f"{missing.workers} worker(s) in each instance"] if missing.workers else []),
        *([f"a rate of at most {shown_rate(missing.rate)} requests/s"] if missing.rate else []),
        *([f"queries of at most {shown(missing.query_time)}"] if missing.query_time else []),
    ]
    takes = f"It takes {', or '.join(ways)}." if ways else "It takes another deployment."
    return f"The load does not fit: {needs}{has}. {takes}"
