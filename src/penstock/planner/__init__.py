"""How many connections a fleet may open: the budget, held against what its server can give."""

from penstock.planner.budget import ConnectionBudget, ServerLimits

__all__ = ["ConnectionBudget", "ServerLimits"]
