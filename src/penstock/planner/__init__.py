"""Capacity planning: the queue in front of a pool, the sizes for a load, and their budget."""

from penstock.planner.budget import ConnectionBudget, ServerLimits
from penstock.planner.erlang import Queue, erlang_b, erlang_c
from penstock.planner.hold import HoldTime, fitting_p99
from penstock.planner.inputs import PlanInputs, overridden, read_inputs, write_inputs
from penstock.planner.plan import PgBouncerSizes, Plan, Prediction, plan
from penstock.planner.units import shown, shown_size

__all__ = [
    "ConnectionBudget",
    "HoldTime",
    "PgBouncerSizes",
    "Plan",
    "PlanInputs",
    "Prediction",
    "Queue",
    "ServerLimits",
    "erlang_b",
    "erlang_c",
    "fitting_p99",
    "overridden",
    "plan",
    "read_inputs",
    "shown",
    "shown_size",
    "write_inputs",
]
