"""What a rule is, the time that it looks at, and how many connections there should be."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil, floor, isfinite

from penstock.findings import Finding
from penstock.telemetry.reading import LeaseSample, Reading, WorkerReading
from penstock.telemetry.schema import Sample

__all__ = [
    "LARGEST_POOL",
    "SETTLED_AGE",
    "UTILISATION",
    "Rule",
    "bounded",
    "held_by",
    "holders",
    "is_settled",
    "larger_pool",
    "mean_hold",
    "moment",
    "of_others",
    "of_workers",
    "own_connections",
    "recent",
    "since_first",
    "smaller_pool",
    "usable",
    "wanted",
]

Rule = Callable[[Reading], Finding | None]
"""Looks at one database; what it returns depends on the reading alone."""

SETTLED_AGE = 60.0
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
    return moment(reading) - worker.started >= SETTLED_AGE


def of_workers(count: int, reading: Reading) -> str:
    """Return how many of the workers something is said of, as evidence begins."""
    return f"In {count} of {len(reading.workers)} worker(s)"


UTILISATION = 0.8
"""Share of the connections that may be in use on average. In an M/M/c queue the wait grows without
bound towards 1.0, and steeply from here on (Erlang C)."""

LARGEST_POOL = 1000
"""What the settings accept as ``pool_size``."""

MOST = 0.4
"""Share of the time for which connections were out that those which came back have to explain; it
is a half just before the second of several equal leases ends."""

# PostgreSQL's default of superuser_reserved_connections.
_RESERVED = 3

# Seconds that those who may wait should wait at most; the limit of checkout-latency.
_PATIENCE = 0.5


def bounded(value: float, least: int, most: int) -> int:
    """Return a number rounded up and within bounds; the upper one where it is not a number."""
    return ceil(max(least, value)) if value < most else most


def usable(reading: Reading) -> int | None:
    """Return how many connections the server has for services; None while that is not known."""
    limit = reading.now.server_limit
    return max(0, floor(limit) - _RESERVED) if isfinite(limit) and limit > 0 else None


def own_connections(reading: Reading) -> int:
    """Return how many connections the workers have open, also those that begin or end."""
    now = reading.now
    return now.checked_in + now.checked_out + now.opening + now.invalid


def of_others(reading: Reading) -> float:
    """Return how many connections the server has from elsewhere; 0.0 while that is not known."""
    used = reading.now.server_connections
    return max(0.0, used - own_connections(reading)) if isfinite(used) else 0.0


def mean_hold(samples: Sequence[Sample]) -> float:
    """Return how many seconds a connection is checked out on average; 0.0 where none came back.

    Those that came back tell it, if they account for most of the time for which connections were
    out. Else most are out still, of which they say nothing: then it is Little's law.

    Args:
        samples: Of one worker, without gaps: what comes back may do so in a second without a peak.
    """
    checkins = sum(sample.checkins for sample in samples)
    if not checkins:
        return 0.0
    held = sum(sample.hold_seconds for sample in samples)
    out = sum(sample.checked_out for sample in samples)
    return (held if held >= out * MOST else out) / checkins


def since_first(reading: Reading, samples: Sequence[Sample]) -> list[Sample]:
    """Return all samples of a worker after the first of some, within the last minute.

    Not that one: within its second those have come back that were out before.
    """
    worker = next(each for each in reading.workers if samples[-1] in each.history)
    window = recent(reading, worker, 60)
    return [sample for sample in window if sample.at > samples[0].at]


def holders(reading: Reading, samples: Sequence[Sample]) -> str:
    """Return which route holds most of what is checked out of a worker now.

    Args:
        reading: Of the database.
        samples: Of the worker; at least one.

    Returns:
        A sentence with a space before it; empty where nothing is known of it.
    """
    worker = next(each for each in reading.workers if samples[-1] in each.history)
    held = held_by(worker.leases, moment(reading), worker.now.checked_out)
    return f" Now {held}." if held else ""


def held_by(leases: Sequence[LeaseSample], now: float, out: int) -> str:
    """Say which route has most of some leases.

    Args:
        leases: Of one or more workers.
        now: Unix time.
        out: How many connections are checked out in all.
    """
    counts = Counter(lease.route for lease in leases)
    if not counts:
        return ""
    (route, count), *_ = counts.most_common(1)
    oldest = now - min(lease.since for lease in leases if lease.route == route)
    return f"{route} holds {count} of {max(out, count)}, the oldest for {max(0.0, oldest):.1f} s"


def wanted(samples: Sequence[Sample], hold: float) -> int:
    """Return the connections with which a worker would have served everybody without a queue.

    By Little's law that is how many were checked out, waited for, or would have been checked out
    to those that were rejected, on average, at a utilisation of ``UTILISATION``.

    Args:
        samples: Of one worker, at least one.
        hold: Seconds for which a connection is checked out on average.
    """
    present = sum(sample.checked_out + sample.waiting for sample in samples)
    absent = sum(sample.shed for sample in samples) * hold
    return bounded((present + absent) / len(samples) / UTILISATION, 1, LARGEST_POOL)


def larger_pool(reading: Reading, samples: Sequence[Sample]) -> str:
    """Return what to do about too few connections in a worker.

    Args:
        reading: Of the database.
        samples: Of the worker, from when they were too few; at least one.

    Returns:
        A larger ``pool_size`` as far as the server has room, and otherwise a bound of the queue.
    """
    now, hold = samples[-1], mean_hold(since_first(reading, samples))
    grown = min(LARGEST_POOL, now.size + max(1, wanted(samples, hold) - now.limit))
    if (room := usable(reading)) is not None:
        each = floor((room * UTILISATION - of_others(reading)) / len(reading.workers))
        grown = min(grown, now.size + each - now.limit)
    shorter = f"Shorten the leases{f', which last about {hold:.3f} s each' if hold else ''}"
    if grown > now.size:
        return (
            f"{shorter}. If that is what the work takes and the server has processors to spare, "
            f"raise pool_size from {now.size} to {grown}."
        )
    queue = bounded(now.limit * _PATIENCE / hold if hold > 0 else now.limit, 1, 100_000)
    return (
        f"{shorter}. The server has no room for larger pools: set max_waiting to {queue}, so that "
        f"nobody waits for longer than {_PATIENCE} s in vain."
    )


def smaller_pool(now: Sample, most: int) -> str:
    """Return how to make a worker's pool fit.

    Args:
        now: The worker's newest sample.
        most: Connections that it may have.
    """
    overflow = now.limit - now.size
    if most >= now.size:
        return f"lower max_overflow from {overflow} to {most - now.size}"
    if most >= 1:
        return f"lower pool_size from {now.size} to {most} and max_overflow from {overflow} to 0"
    return "run fewer workers, since not even one connection is left for each"
