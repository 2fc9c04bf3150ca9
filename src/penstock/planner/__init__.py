"""Arithmetic of capacity: what a fleet may ask of a server."""

from penstock.planner.budget import ConnectionBudget, ServerLimits

__all__ = ["ConnectionBudget", "ServerLimits"]
