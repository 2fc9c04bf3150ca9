"""A capacity plan: the sizes that a load needs, and how the pool behaves with them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import ceil, isfinite
from typing import Any

from penstock.base_error import SettingsError
from penstock.budget import ConnectionBudget
from penstock.findings import Finding, most_severe_first
from penstock.planner import checks
from penstock.planner.durations import poisson
from penstock.planner.erlang import Queue
from penstock.planner.fit import (
    MOST_SHARED,
    Limit,
    Shortfall,
    advice,
    budget_behind,
    fewest_of_pool,
    fewest_shared,
    largest_rate,
    least,
    limit_of,
    shortfall,
)
from penstock.planner.hold import HoldTime
from penstock.planner.inputs import LARGEST_POOL, PlanInputs
from penstock.planner.memory import ServerMemory
from penstock.planner.models import FleetModel, PoolModel, Workload
from penstock.planner.simulation import Simulated, simulate
from penstock.planner.units import shown
from penstock.settings import (
    OVERFLOW_SHARE,
    PROFILES,
    RECYCLE_SHARE,
    DatabaseSettings,
    Environment,
)

_PROFILE = PROFILES[Environment.PRODUCTION]
_COMMAND_TIMEOUT: float = DatabaseSettings.model_fields["command_timeout"].default
SIMULATED = 200_000
"""Requests of a plan's simulation: a second or two of one core."""
_SIMULATED_POOLS = 16
WHAT_IF_RATES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Rates of the table, as multiples of the planned one."""
WHAT_IF_SIZES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Connections of each pool, as multiples of the planned ones."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """How the pools behave at one rate, by :mod:`penstock.planner.erlang`.

    Args:
        rate: Requests per second of the whole service.
        connections: Of each pool: ``pool_size + max_overflow``.
        queue: In front of each pool, which has its even share of the rate.
        response_p99: 99th percentile of wait and hold time together, in seconds.
    """

    rate: float
    connections: int
    queue: Queue
    response_p99: float

    def document(self) -> dict[str, float | None]:
        """Return it as values that JSON has; None for what grows without bound."""
        queue = self.queue
        numbers = {
            "rate": self.rate,
            "connections": self.connections,
            "utilisation": queue.utilisation,
            "waiting_probability": queue.waiting_probability,
            "mean_wait": queue.mean_wait,
            "wait_p99": queue.wait_quantile(0.99),
            "response_p99": self.response_p99,
        }
        return {name: number if isfinite(number) else None for name, number in numbers.items()}


@dataclass(frozen=True, slots=True)
class PgBouncerSizes:
    """A PgBouncer in transaction mode for the planned load.

    Args:
        default_pool_size: Server connections for one database and user.
        max_db_connections: The most to one database, whichever users it has.
        max_client_conn: Clients that it must accept during a deployment.
        max_connections: What the server needs then.
    """

    default_pool_size: int
    max_db_connections: int
    max_client_conn: int
    max_connections: int


@dataclass(frozen=True)
class Plan:
    """A plan: what to set, what to expect, and what is wrong with it.

    Args:
        inputs: What it was made from, with the rate.
        pool_size: Connections that each worker keeps.
        max_overflow: Connections that it may add in a burst.
        statement_timeout: Seconds that a statement may take (``command_timeout``).
        pool_timeout: Seconds that a request waits for a connection.
        pool_recycle: Seconds after which a connection is replaced.
        pgbouncer: Its sizes where one is needed; None where the server has room for all pools, or
            where it would not suffice.
        limit: What bounds the largest rate; None where the rate was given.
    """

    inputs: PlanInputs
    pool_size: int
    max_overflow: int
    statement_timeout: float
    pool_timeout: float
    pool_recycle: int
    pgbouncer: PgBouncerSizes | None
    limit: Limit | None = None

    @cached_property
    def hold(self) -> HoldTime:
        """How long a request holds each of its connections."""
        return self.inputs.hold

    @property
    def rate(self) -> float:
        """Requests per second of the whole service."""
        return self.inputs.rate or 0.0

    @property
    def connections(self) -> int:
        """Connections that each pool may open."""
        return self.pool_size + self.max_overflow

    @cached_property
    def predicted(self) -> Prediction:
        """What to expect at the planned rate."""
        return self.predict()

    @cached_property
    def budget(self) -> ConnectionBudget:
        """What may be open on the server itself during a deployment."""
        if self.inputs.shares_connections and self.pgbouncer is not None:
            return budget_behind(self.inputs, self.pgbouncer.max_db_connections)
        return self.inputs.budget(self.pool_size, self.max_overflow)

    @property
    def max_connections(self) -> int:
        """What the server must accept, with the reserve."""
        return self.budget.needed(self.inputs.reserved)

    @cached_property
    def memory(self) -> ServerMemory:
        """What the connections take on the server when all are open."""
        inputs = self.inputs
        return ServerMemory.of(
            self.budget.wanted, inputs.memory, inputs.work_mem, inputs.work_mem_nodes
        )

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with it, the most severe first."""
        inputs = self.inputs
        found = (
            checks.sample(inputs.sample),
            checks.utilisation(self.predicted.queue, inputs.utilisation, self._advice),
            checks.long_wait(self.predicted.queue, inputs.wait, self._advice),
            self._budget_finding(),
            checks.active_connections(inputs.active(self.rate), inputs.most_active, self._advice),
            checks.deadlock_floor(self.connections, inputs.deadlock_floor, self._advice),
            checks.timeout_order(
                pool_timeout=self.pool_timeout,
                command_timeout=self.statement_timeout,
                request_timeout=inputs.request_timeout,
                balancer_timeout=inputs.balancer_timeout,
            ),
            checks.late_recycle(self.pool_recycle, inputs.idle_limit),
            checks.memory(self.memory, inputs.memory),
            checks.unusual_size(
                self.pool_size, self.max_overflow, self._advice, fewest_of_pool(inputs)
            ),
            checks.overflow_behind_pooler(self.max_overflow) if inputs.shares_connections else None,
        )
        return most_severe_first(each for each in found if each is not None)

    @cached_property
    def shortfall(self) -> Shortfall | None:
        """What it takes where the load does not fit; None where it does."""
        return shortfall(self.inputs)

    def _budget_finding(self) -> Finding | None:
        inputs = self.inputs
        if inputs.shares_connections and self.pgbouncer is None:
            return checks.beyond_pooler(MOST_SHARED, self._advice)
        return None if inputs.server is None else self.budget.check(inputs.server, self._advice)

    @cached_property
    def _advice(self) -> str:
        return advice(self.inputs, self.shortfall)

    def predict(self, rate: float | None = None, connections: int | None = None) -> Prediction:
        """Return what to expect when something is not as planned.

        Args:
            rate: Requests per second of the whole service; None for the planned ones.
            connections: Of each pool; None for the planned ones.
        """
        return _predict(
            self.inputs,
            self.hold,
            self.rate if rate is None else rate,
            self.connections if connections is None else connections,
        )

    def simulated(
        self,
        requests: int = SIMULATED,
        *,
        seed: int = 0,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> Simulated:
        """Simulate the plan's pools at the planned rate, with the ledger that ships.

        No pool has an influence on another, so that at most 16 of a larger fleet are simulated,
        with their share of the rate.

        Args:
            requests: Requests for a connection that arrive.
            seed: The source of chance; the same one gives the same outcome.
            on_progress: Called now and then with the number of requests that have arrived.

        Raises:
            SettingsError: ``requests`` is below 1.
        """
        pools, queue = min(self.inputs.pools, _SIMULATED_POOLS), self.predicted.queue
        arrivals = poisson(pools * queue.load / queue.service)
        return simulate(
            Workload(arrivals, self.hold, requests),
            PoolModel(self.pool_size, self.max_overflow, self.pool_timeout, self.pool_recycle),
            fleet=FleetModel(workers=pools),
            seed=seed,
            on_progress=on_progress,
        )

    def what_if(self) -> list[list[Prediction]]:
        """Return predictions: a row for each rate, in it one for each number of connections."""
        sizes = sorted({max(1, round(self.connections * share)) for share in WHAT_IF_SIZES})
        return [
            [self.predict(self.rate * share, size) for size in sizes] for share in WHAT_IF_RATES
        ]

    def settled(self) -> PlanInputs:
        """Return inputs that give this plan, whatever a later release would propose."""
        names = ("pool_size", "max_overflow", "statement_timeout", "pool_timeout", "pool_recycle")
        return self.inputs.model_copy(update={name: getattr(self, name) for name in names})

    def document(self) -> dict[str, Any]:
        """Return everything as values that JSON has, durations in seconds and sizes in bytes."""
        return {
            "inputs": self.inputs.given(),
            "settings": {
                "pool_size": self.pool_size,
                "max_overflow": self.max_overflow,
                "pool_timeout": self.pool_timeout,
                "pool_recycle": self.pool_recycle,
                "command_timeout": self.statement_timeout,
            },
            "max_connections": self.max_connections,
            "pgbouncer": None if self.pgbouncer is None else asdict(self.pgbouncer),
            "hold_time": self.hold.mean,
            "predicted": self.predicted.document(),
            "memory": asdict(self.memory) | {"total": self.memory.total},
            "limit": self.limit,
            "shortfall": None if self.shortfall is None else asdict(self.shortfall),
            "what_if": [[each.document() for each in row] for row in self.what_if()],
            "findings": [asdict(finding) for finding in self.findings],
        }


def plan(given: Mapping[str, object], names: Mapping[str, str] | None = None) -> Plan:
    """Return a plan.

    Args:
        given: The fields of :class:`PlanInputs` by name; ``query_time`` and either ``rate`` or
            ``p99`` are needed.
        names: What each is called where it was given, for the messages; None for its own name.

    Raises:
        SettingsError: One is wrong or missing; the message names it and what is accepted.
    """
    inputs, limit = PlanInputs.of(given, names), None
    if inputs.p99 is not None:
        inputs, limit = _at_largest_rate(inputs, (names or {}).get("p99", "p99"))
    pool_size, max_overflow = _sizes(inputs)
    statement_timeout = inputs.statement_timeout or _statement_timeout(inputs)
    return Plan(
        inputs=inputs,
        pool_size=pool_size,
        max_overflow=max_overflow,
        statement_timeout=statement_timeout,
        pool_timeout=inputs.pool_timeout or min(_PROFILE.pool_timeout, statement_timeout / 2),
        pool_recycle=_recycle(inputs),
        pgbouncer=_pgbouncer(inputs, pool_size, max_overflow),
        limit=limit,
    )


def _predict(inputs: PlanInputs, hold: HoldTime, rate: float, connections: int) -> Prediction:
    queue = hold.queue(connections, rate * inputs.connections_per_request / inputs.pools)
    return Prediction(rate, connections, queue, hold.response_quantile(queue))


def _sizes(inputs: PlanInputs) -> tuple[int, int]:
    size, overflow = inputs.pool_size, inputs.max_overflow
    if size is not None and overflow is not None:
        return size, overflow
    needed = fewest_of_pool(inputs) or LARGEST_POOL
    if size is None:
        share = 0.0 if inputs.shares_connections else OVERFLOW_SHARE
        kept = ceil(needed / (1 + share)) if overflow is None else needed - overflow
        size = min(max(1, kept), LARGEST_POOL)
    if overflow is None:
        overflow = max(0, needed - size)
    return size, overflow


def _statement_timeout(inputs: PlanInputs) -> float:
    ends = [each for each in (inputs.request_timeout, inputs.balancer_timeout) if each]
    return min([_COMMAND_TIMEOUT, *(end * 2 / 3 for end in ends)])


def _recycle(inputs: PlanInputs) -> int:
    if inputs.pool_recycle is not None:
        return max(1, int(inputs.pool_recycle))
    idle = inputs.idle_limit
    return min(_PROFILE.pool_recycle, _PROFILE.pool_recycle if idle is None else _early(idle))


def _early(idle: float) -> int:
    return max(1, int(idle * RECYCLE_SHARE))


def _pgbouncer(inputs: PlanInputs, pool_size: int, max_overflow: int) -> PgBouncerSizes | None:
    budget, server = inputs.budget(pool_size, max_overflow), inputs.server
    fits = server is None or budget.wanted <= budget.allowed(server)
    if fits and not inputs.shares_connections:
        return None
    shared = fewest_shared(inputs)
    if shared is None:
        return None
    behind = budget_behind(inputs, shared)
    missing = None if inputs.shares_connections else shortfall(inputs)
    if missing is not None and not missing.pgbouncer:
        return None
    return PgBouncerSizes(
        default_pool_size=shared,
        max_db_connections=shared,
        max_client_conn=budget.wanted,
        max_connections=behind.needed(inputs.reserved),
    )


def _at_largest_rate(inputs: PlanInputs, name: str) -> tuple[PlanInputs, Limit]:
    """Return inputs with the largest rate at which ``p99`` and the limits are kept, and which."""
    found = largest_rate(inputs)
    if found is None:
        alone = inputs.hold.response_quantile(inputs.hold.queue(1, 0.0))
        limit = limit_of(inputs.model_copy(update={"rate": 1e-9}))
        raise SettingsError(
            f"{name}={shown(inputs.p99 or 0.0)}: no rate keeps it; "
            + (
                f"the 99th percentile of the hold time alone is {shown(alone)}: more than that is "
                "accepted"
                if limit in {Limit.P99, Limit.POOL} or alone > (inputs.p99 or 0.0)
                else f"the server has no room for {least(inputs)} connections in each of the "
                f"{inputs.pools} pools: raise max_connections or run fewer workers"
            )
        )
    rate, limit = found
    inputs = inputs.model_copy(update={"rate": rate})
    size, overflow = _sizes(inputs)
    changes = {"p99": None, "pool_size": size, "max_overflow": overflow}
    return inputs.model_copy(update=changes), limit
