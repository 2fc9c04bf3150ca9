"""What a rule is, and what several rules share: time windows, wording and pool sizes."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil, floor, isfinite

from penstock.findings import Finding
from penstock.telemetry.reading import LeaseSample, Reading, WorkerReading
from penstock.telemetry.schema import Sample

Rule = Callable[[Reading], Finding | None]
"""Returns a finding about one database, or None; the result depends on the reading alone."""

SETTLED_AGE = 60.0
"""Seconds after which a worker's start is over. During the start it imports modules, fills caches
and opens connections all at once, which is not a problem."""


def moment(reading: Reading) -> float:
    """Return the Unix time of the newest sample; 0.0 without workers."""
    return max((worker.now.at for worker in reading.workers), default=0.0)


def recent(reading: Reading, worker: WorkerReading, seconds: int) -> list[Sample]:
    """Return a worker's samples of the last seconds, oldest first.

    Rules look at each worker separately, because each has its own pool: idle connections of one
    do not help another that is exhausted, and a second that one of them has missed would look like
    a change of their sum.
    """
    until = moment(reading)
    newest = worker.history[-seconds - 1 :]
    return [sample for sample in newest if until - seconds < sample.at <= until]


def is_settled(reading: Reading, worker: WorkerReading) -> bool:
    """Return whether a worker's start is over."""
    return moment(reading) - worker.started >= SETTLED_AGE


def number_of(count: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 request`` or ``2 requests``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return f"{text[0].upper()}{text[1:]}"


def workers_of(count: int, reading: Reading) -> str:
    """Return how many of the workers are concerned, such as ``1 of 2 workers``."""
    total = len(reading.workers)
    return "the worker" if total == 1 else f"{count} of {total} workers"


UTILISATION = 0.8
"""Share of the connections that should be in use on average at most. In an M/M/c queue the wait
grows steeply above it, and without bound towards 1.0 (Erlang C)."""

LARGEST_POOL = 1000
"""Largest ``pool_size`` that the settings accept."""

RETURNED_SHARE = 0.4
"""Share of the total checkout time that returned connections must account for; it is one half just
before the second of several equal leases ends."""

# PostgreSQL's default of superuser_reserved_connections.
_RESERVED = 3

# Longest acceptable wait in seconds; the threshold of checkout-latency.
_ACCEPTABLE_WAIT = 0.5


def bounded(value: float, least: int, most: int) -> int:
    """Return a number rounded up and limited to a range.

    Args:
        value: The number; NaN counts as too large.
        least: Lower limit.
        most: Upper limit.
    """
    return ceil(max(least, value)) if value < most else most


def server_capacity(reading: Reading) -> int | None:
    """Return how many connections the server accepts from services; None while unknown."""
    limit = reading.now.server_limit
    return max(0, floor(limit) - _RESERVED) if isfinite(limit) and limit > 0 else None


def own_connections(reading: Reading) -> int:
    """Return how many connections the workers have open, are opening or closing."""
    now = reading.now
    return now.checked_in + now.checked_out + now.opening + now.invalid


def other_connections(reading: Reading) -> float:
    """Return how many connections the server has from other clients; 0.0 while unknown."""
    used = reading.now.server_connections
    return max(0.0, used - own_connections(reading)) if isfinite(used) else 0.0


def mean_hold(samples: Sequence[Sample]) -> float:
    """Return how many seconds a connection is checked out on average; 0.0 without check-ins.

    It is the mean of the returned connections, if they account for enough of the total checkout
    time. Otherwise most connections are still checked out, and Little's law estimates it.

    Args:
        samples: Samples of one worker, without gaps.
    """
    checkins = sum(sample.checkins for sample in samples)
    if not checkins:
        return 0.0
    held = sum(sample.hold_seconds for sample in samples)
    out = sum(sample.checked_out for sample in samples)
    return (held if held >= out * RETURNED_SHARE else out) / checkins


def since_first(reading: Reading, samples: Sequence[Sample]) -> list[Sample]:
    """Return a worker's samples of the last minute that follow the first of the given ones.

    The first one is left out: connections returned within its second were checked out before.

    Args:
        reading: Reading of the database.
        samples: Samples of the worker; at least one.
    """
    worker = next(each for each in reading.workers if samples[-1] in each.history)
    window = recent(reading, worker, 60)
    return [sample for sample in window if sample.at > samples[0].at]


def holders(reading: Reading, samples: Sequence[Sample]) -> str:
    """Return which route holds most of a worker's checked-out connections now.

    Args:
        reading: Reading of the database.
        samples: Samples of the worker; at least one.

    Returns:
        A sentence with a space before it; empty when no lease is known.
    """
    worker = next(each for each in reading.workers if samples[-1] in each.history)
    return holder(worker.leases, moment(reading), worker.now.checked_out)


def holder(leases: Sequence[LeaseSample], now: float, out: int) -> str:
    """Return which route holds most of some leases.

    Args:
        leases: Leases of one or more workers.
        now: Unix time.
        out: Total number of checked-out connections.

    Returns:
        A sentence with a space before it; empty without leases.
    """
    counts = Counter(lease.route for lease in leases)
    if not counts:
        return ""
    (route, count), *_ = counts.most_common(1)
    oldest = now - min(lease.since for lease in leases if lease.route == route)
    return (
        f" {route} now holds {count} of {number_of(max(out, count), 'connection')}, "
        f"the oldest for {max(0.0, oldest):.1f} s."
    )


def needed_connections(samples: Sequence[Sample], hold: float) -> int:
    """Return the number of connections with which a worker would have had no queue.

    By Little's law it is the average number of connections that were checked out, waited for, or
    would have been checked out by rejected callers, divided by ``UTILISATION``.

    Args:
        samples: Samples of one worker; at least one.
        hold: Mean time for which a connection is checked out, in seconds.
    """
    present = sum(sample.checked_out + sample.waiting for sample in samples)
    absent = sum(sample.shed for sample in samples) * hold
    return bounded((present + absent) / len(samples) / UTILISATION, 1, LARGEST_POOL)


def larger_pool(reading: Reading, samples: Sequence[Sample]) -> str:
    """Return the remedy for too few connections in a worker.

    Args:
        reading: Reading of the database.
        samples: Samples of the worker from the seconds in question; at least one.

    Returns:
        A larger ``pool_size`` if the server has room for it, otherwise a limit of the queue.
    """
    now, hold = samples[-1], mean_hold(since_first(reading, samples))
    grown = min(LARGEST_POOL, now.size + max(1, needed_connections(samples, hold) - now.limit))
    if (room := server_capacity(reading)) is not None:
        each = floor((room * UTILISATION - other_connections(reading)) / len(reading.workers))
        grown = min(grown, now.size + each - now.limit)
    shorter = f"Hold connections for less time{f' (now {hold:.3f} s on average)' if hold else ''}"
    if grown > now.size:
        return (
            f"{shorter}. If the work takes that long and the server has CPU to spare, raise "
            f"pool_size from {now.size} to {grown}."
        )
    queue = bounded(now.limit * _ACCEPTABLE_WAIT / hold if hold > 0 else now.limit, 1, 100_000)
    return (
        f"{shorter}. The server has no room for larger pools: set max_waiting to {queue}, so that "
        f"no request waits for longer than {_ACCEPTABLE_WAIT} s."
    )


def smaller_pool(now: Sample, most: int) -> str:
    """Return how to make the workers' pools smaller, as the beginning of a sentence.

    Args:
        now: The newest sample of the worker with the largest pool.
        most: Largest number of connections that each worker should have.
    """
    overflow = now.limit - now.size
    if most >= now.size:
        return f"Lower max_overflow from {overflow} to {most - now.size} in each worker"
    if most >= 1:
        return (
            f"Lower pool_size from {now.size} to {most} and max_overflow from {overflow} to 0 in "
            "each worker"
        )
    return "Run fewer workers, because less than one connection is left for each"
