"""An HTTP load generator, with a closed and an open loop."""

from penstock.load.closed_loop import run_closed_loop
from penstock.load.histogram import Histogram
from penstock.load.open_loop import Arrivals, run_open_loop
from penstock.load.result import Figures, Generator, LoadResult, Second
from penstock.load.scenario import Request, RequestKind, Scenario

__all__ = [
    "Arrivals",
    "Figures",
    "Generator",
    "Histogram",
    "LoadResult",
    "Request",
    "RequestKind",
    "Scenario",
    "Second",
    "run_closed_loop",
    "run_open_loop",
]
