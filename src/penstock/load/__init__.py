"""An HTTP load generator, with a closed and an open loop."""

from penstock.load.client import check_answers
from penstock.load.closed_loop import run_closed_loop
from penstock.load.histogram import Histogram
from penstock.load.locustfile import write_locustfile
from penstock.load.open_loop import Arrivals, run_open_loop
from penstock.load.page import write_page
from penstock.load.report import LoadReport, remarks
from penstock.load.result import Figures, Generator, LoadResult, Second
from penstock.load.scenario import Request, RequestKind, Scenario
from penstock.load.target import Target, read_targets, scenario_of
from penstock.load.terminal import comparison_table, figures_table, progress
from penstock.load.threshold import Threshold

__all__ = [
    "Arrivals",
    "Figures",
    "Generator",
    "Histogram",
    "LoadReport",
    "LoadResult",
    "Request",
    "RequestKind",
    "Scenario",
    "Second",
    "Target",
    "Threshold",
    "check_answers",
    "comparison_table",
    "figures_table",
    "progress",
    "read_targets",
    "remarks",
    "run_closed_loop",
    "run_open_loop",
    "scenario_of",
    "write_locustfile",
    "write_page",
]
