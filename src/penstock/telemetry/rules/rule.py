"""What a rule is, and the stretch of time that it looks at."""

from collections.abc import Callable

from penstock.findings import Finding
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.sample import Sample

__all__ = ["SETTLED", "Rule", "is_settled", "moment", "of_workers", "recent"]

Rule = Callable[[Reading], Finding | None]
"""Looks at one database; what it returns depends on the reading alone."""

SETTLED = 60.0
"""Seconds after which a worker's start is over. Modules are imported, caches filled and connections
opened in the first of them, all at once, and none of that is a problem."""


def moment(reading: Reading) -> float:
    """Return the Unix time of the newest sample; 0.0 without any worker."""
    return max((worker.now.at for worker in reading.workers), default=0.0)


def recent(reading: Reading, worker: WorkerReading, seconds: int) -> list[Sample]:
    """Return a worker's samples of the last seconds, oldest first.

    Each worker is looked at by itself, because it has a pool by itself: one that is exhausted is
    not helped by its neighbour's idle connections, and a second that one of them has missed would
    look like a change in the sum of both.
    """
    until = moment(reading)
    newest = worker.history[-seconds - 1 :]
    return [sample for sample in newest if until - seconds < sample.at <= until]


def is_settled(reading: Reading, worker: WorkerReading) -> bool:
    """Whether a worker's start is over."""
    return moment(reading) - worker.started >= SETTLED


def of_workers(count: int, reading: Reading) -> str:
    """Return how many of the workers something is said of, as evidence begins."""
    return f"In {count} of {len(reading.workers)} worker(s)"
