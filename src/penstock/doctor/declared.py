"""Declared pools against what is there: the settings of a service, and its connections."""

from dataclasses import dataclass

from penstock.budget import ConnectionBudget, ServerLimits
from penstock.doctor.check import Check, Observation, Query, Rows
from penstock.findings import Severity
from penstock.settings import DatabaseSettings


@dataclass(frozen=True, slots=True)
class DeclaredPools:
    """What the pools of a service may open.

    Args:
        application: Its ``application_name``.
        workers: Processes on each machine.
        instances: Machines.
        pool_size: Connections that each worker keeps.
        max_overflow: Connections that it may add.
    """

    application: str
    workers: int
    instances: int
    pool_size: int
    max_overflow: int

    @classmethod
    def of(cls, settings: DatabaseSettings) -> "DeclaredPools":
        """Return the pools that settings describe."""
        return cls(
            application=settings.application_name,
            workers=settings.workers,
            instances=settings.instances,
            pool_size=settings.pool_size,
            max_overflow=settings.max_overflow,
        )

    @property
    def budget(self) -> ConnectionBudget:
        """The most connections that all of them may have open."""
        return ConnectionBudget(
            workers=self.workers,
            instances=self.instances,
            pool_size=self.pool_size,
            max_overflow=self.max_overflow,
            reserve=0.0,
        )


def declared_checks(pools: DeclaredPools) -> tuple[Check, ...]:
    """Return the checks of a service's declared pools.

    Args:
        pools: What its settings say.
    """
    query = Query("connections")

    def beyond(rows: Rows) -> Observation | None:
        open_ = sum(row["connections"] for row in rows if row["application"] == pools.application)
        if open_ <= pools.budget.wanted:
            return None
        return Observation(
            Severity.WARNING,
            f"{pools.application} has {open_} connections open and its settings "
            f"allow {pools.budget.wanted}.",
            "More workers or machines run than WEB_CONCURRENCY and DATABASE_INSTANCES say, or "
            "something else has the same application_name.",
        )

    def larger(rows: Rows) -> Observation | None:
        first = rows[0]
        others = sum(
            row["connections"] - row["own"]
            for row in rows
            if row["application"] != pools.application
        )
        reserved = first["superuser_reserved"] + first["reserved"]
        found = pools.budget.check(ServerLimits(first["accepted"], reserved + others))
        if found is None:
            return None
        evidence = (
            f"The pools of {pools.application} may open {pools.budget.wanted} connections "
            f"({pools.instances} x {pools.workers} x ({pools.pool_size} pool_size + "
            f"{pools.max_overflow} max_overflow)); {max(0, first['accepted'] - reserved - others)} "
            f"are left for them: max_connections {first['accepted']}, less {reserved} reserved "
            f"and {others} that others have open."
        )
        return Observation(found.severity, evidence, found.remedy)

    return (
        Check(
            "declared-pool-exceeded",
            "Connections beyond the declared pools",
            "warning where the application has more open than its settings allow",
            query,
            beyond,
        ),
        Check(
            "declared-pool-too-large",
            "Declared pools beyond the server",
            "critical where they may open more than the server accepts, less what others have open",
            query,
            larger,
        ),
    )
