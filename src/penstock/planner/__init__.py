"""Capacity planning: sizes for a load, the queue in front of a pool, and simulations of it."""

from penstock.budget import ConnectionBudget, ServerLimits
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
from penstock.planner.erlang import Queue, erlang_b, erlang_c
from penstock.planner.fit import Limit, Shortfall
from penstock.planner.hold import HoldTime, fitting_p99
from penstock.planner.inputs import (
    PlanInputs,
    input_default,
    input_kind,
    overridden,
    read_inputs,
    write_inputs,
)
from penstock.planner.models import (
    DatabaseModel,
    FleetModel,
    PoolModel,
    ScalabilityLaw,
    Workload,
)
from penstock.planner.plan import SIMULATED, PgBouncerSizes, Plan, Prediction, plan
from penstock.planner.simulation import Latencies, Simulated, SimulatedSample, simulate
from penstock.planner.units import shown, shown_rate, shown_share, shown_size

__all__ = [
    "SIMULATED",
    "Buckets",
    "Bursts",
    "ConnectionBudget",
    "Constant",
    "DatabaseModel",
    "Durations",
    "Exponential",
    "FleetModel",
    "HoldTime",
    "Latencies",
    "Limit",
    "Lognormal",
    "PgBouncerSizes",
    "Plan",
    "PlanInputs",
    "PoolModel",
    "Prediction",
    "Queue",
    "Recorded",
    "Samples",
    "ScalabilityLaw",
    "ServerLimits",
    "Shortfall",
    "Simulated",
    "SimulatedSample",
    "Workload",
    "erlang_b",
    "erlang_c",
    "fitting_p99",
    "input_default",
    "input_kind",
    "overridden",
    "plan",
    "poisson",
    "read_inputs",
    "shown",
    "shown_rate",
    "shown_share",
    "shown_size",
    "simulate",
    "write_inputs",
]
