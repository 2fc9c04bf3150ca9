"""A closed-loop HTTP load generator."""

from penstock.load.closed_loop import Request, RequestKind, Scenario, run_closed_loop
from penstock.load.result import Figures, LoadResult

__all__ = ["Figures", "LoadResult", "Request", "RequestKind", "Scenario", "run_closed_loop"]
