"""What is counted about a database, and what it means."""

from penstock.telemetry.schema import BOUNDS, HISTOGRAMS, Counters, Histogram, Sample
from penstock.telemetry.snapshot import Reading, RouteUse, StatementUse, WorkerReading
from penstock.telemetry.statement_watch import StatementWatch
from penstock.telemetry.telemetry import Telemetry

__all__ = [
    "BOUNDS",
    "HISTOGRAMS",
    "Counters",
    "Histogram",
    "Reading",
    "RouteUse",
    "Sample",
    "StatementUse",
    "StatementWatch",
    "Telemetry",
    "WorkerReading",
]
