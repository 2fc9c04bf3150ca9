"""How many connections there should be, for the remedies."""

from collections.abc import Sequence
from math import ceil, floor, isfinite

from penstock.telemetry.reading import Reading
from penstock.telemetry.sample import Sample

__all__ = [
    "LARGEST_POOL",
    "UTILISATION",
    "bounded",
    "larger_pool",
    "mean_loan",
    "of_others",
    "own_connections",
    "smaller_pool",
    "usable",
    "wanted",
]

UTILISATION = 0.8
"""Share of the connections that may be in use on average. In an M/M/c queue the wait grows without
bound towards 1.0, and steeply from here on (Erlang C)."""

LARGEST_POOL = 1000
"""What the settings accept as ``pool_size``."""

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


def mean_loan(samples: Sequence[Sample]) -> float:
    """Return how many seconds a connection is lent on average; 0.0 where none came back.

    By Little's law, from how many were lent: of long loans none may have ended in a few samples,
    and those that did would tell of short ones only.
    """
    checkins = sum(sample.checkins for sample in samples)
    return sum(sample.checked_out for sample in samples) / checkins if checkins else 0.0


def wanted(samples: Sequence[Sample]) -> int:
    """Return the connections with which a worker would have served everybody without a queue.

    By Little's law that is how many were lent, waited for, or would have been lent to those that
    were turned away, on average, at a utilisation of ``UTILISATION``.

    Args:
        samples: Of one worker, at least one.
    """
    present = sum(sample.checked_out + sample.waiting for sample in samples)
    absent = sum(sample.shed for sample in samples) * mean_loan(samples)
    return bounded((present + absent) / len(samples) / UTILISATION, 1, LARGEST_POOL)


def larger_pool(reading: Reading, samples: Sequence[Sample]) -> str:
    """Return what to do about too few connections in a worker.

    Args:
        reading: Of the database.
        samples: Of the worker, from when they were too few; at least one.

    Returns:
        A larger ``pool_size`` as far as the server has room, and otherwise a bound of the queue.
    """
    now = samples[-1]
    grown = min(LARGEST_POOL, now.size + max(1, wanted(samples) - now.limit))
    if (room := usable(reading)) is not None:
        each = floor((room * UTILISATION - of_others(reading)) / len(reading.workers))
        grown = min(grown, now.size + each - now.limit)
    hold = mean_loan(samples)
    shorter = f"shorten the loans{f', which last about {hold:.3f} s each' if hold else ''}"
    if grown > now.size:
        return (
            f"Raise pool_size from {now.size} to {grown}, if the server has processors to spare, "
            f"or {shorter}."
        )
    queue = bounded(now.limit * _PATIENCE / hold if hold > 0 else now.limit, 1, 100_000)
    return (
        f"The server has no room for larger pools: {shorter}, and set max_waiting to {queue}, so "
        f"that nobody waits for longer than {_PATIENCE} s in vain."
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
