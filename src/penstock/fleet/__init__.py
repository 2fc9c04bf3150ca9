"""The fleet: processes that share a server divide its connections among themselves."""

from penstock.fleet.fleet import Fleet
from penstock.fleet.share import FleetSnapshot

__all__ = ["Fleet", "FleetSnapshot"]
