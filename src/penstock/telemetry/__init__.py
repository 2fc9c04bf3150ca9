"""What is counted about a database, and what it means."""

from penstock.telemetry.buckets import BOUNDS
from penstock.telemetry.reading import (
    HISTOGRAMS,
    Counters,
    Histogram,
    Reading,
    RouteUse,
    Sample,
    StatementUse,
    WorkerReading,
)
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
