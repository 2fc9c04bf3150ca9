"""Telemetry of a database: what its workers count and measure, and the findings in it."""

from penstock.telemetry.reading import PlannedLoad, Reading, RouteUse, StatementUse, WorkerReading
from penstock.telemetry.schema import BOUNDS, HISTOGRAMS, Counters, Histogram, Sample
from penstock.telemetry.statement_watch import StatementWatch
from penstock.telemetry.telemetry import Telemetry

__all__ = [
    "BOUNDS",
    "HISTOGRAMS",
    "Counters",
    "Histogram",
    "PlannedLoad",
    "Reading",
    "RouteUse",
    "Sample",
    "StatementUse",
    "StatementWatch",
    "Telemetry",
    "WorkerReading",
]
