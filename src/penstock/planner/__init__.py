"""How many connections a fleet needs and may open: the budget, and a simulation of its pools."""

from penstock.planner.budget import ConnectionBudget, ServerLimits
from penstock.planner.durations import (
    Buckets,
    Bursts,
    Constant,
    Durations,
    Exponential,
    Lognormal,
    Recorded,
    Samples,
    poisson,
)
from penstock.planner.models import (
    DatabaseModel,
    FleetModel,
    PoolModel,
    ScalabilityLaw,
    Workload,
)
from penstock.planner.simulation import Latencies, Simulated, SimulatedSample, simulate

__all__ = [
    "Buckets",
    "Bursts",
    "ConnectionBudget",
    "Constant",
    "DatabaseModel",
    "Durations",
    "Exponential",
    "FleetModel",
    "Latencies",
    "Lognormal",
    "PoolModel",
    "Recorded",
    "Samples",
    "ScalabilityLaw",
    "ServerLimits",
    "Simulated",
    "SimulatedSample",
    "Workload",
    "poisson",
    "simulate",
]
