"""Rules about connections that do not live as long as they should, or cannot be opened."""

from itertools import chain

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading
from penstock.telemetry.rules.capacity import LARGEST_POOL, bounded
from penstock.telemetry.rules.rule import of_workers, recent
from penstock.telemetry.sample import Sample

__all__ = ["short_lived_connections", "stale_connections"]

STALE_WINDOW = 300
"""Seconds within which dead connections are counted."""

STALE = 3
"""Dead connections that are too many to be an accident."""

STALE_SHARE = 0.1
"""Share of dead ones among those closed; the others were replaced in time."""

STALE_SPREAD = 30.0
"""Seconds from the first to the last. Those of a server that is restarted die together."""

RECYCLE_SHARE = 0.75
"""Share of a connection's expected life after which it is replaced, as for the known proxies."""

SHORT_LIVED = 10
"""Short-lived connections within a minute below which the size of the pool does not matter."""

SHORT_LIVED_SECONDS = 3
"""Different seconds in which they are closed. A pool that is made smaller closes them in one."""

OVERFLOW_IDLE = 60
"""Seconds: the default of ``overflow_idle`` and the age up to which a connection is short-lived."""


def stale_connections(reading: Reading) -> Finding | None:
    """Connections are found dead again and again."""
    windows = [recent(reading, worker, STALE_WINDOW) for worker in reading.workers]
    deaths = sorted(sample.at for window in windows for sample in window if sample.died)
    died = sum(sample.died for sample in chain.from_iterable(windows))
    closed = sum(sample.closed for sample in chain.from_iterable(windows))
    if died < STALE or died < closed * STALE_SHARE or deaths[-1] - deaths[0] < STALE_SPREAD:
        return None
    kept = sum(
        sum(sample.checked_in + sample.checked_out for sample in window) / len(window)
        for window in windows
        if window
    )
    life = max(1.0, kept * STALE_WINDOW / died)
    recycle = bounded(life * RECYCLE_SHARE, 30, 86_400)
    return Finding(
        id="stale-connections",
        severity=Severity.WARNING,
        evidence=(
            f"{died} of {closed} connections that were closed within {STALE_WINDOW // 60} minutes "
            f"had died, over {deaths[-1] - deaths[0]:.0f} s. With {kept:.0f} open on average, one "
            f"lives for about {life:.0f} s before the server, or what is in between, drops it."
        ),
        remedy=(
            f"Set pool_recycle to {recycle} and keepalive to {min(120, recycle // 2)}, or proxy to "
            "what stands between the service and the server, which sets both by its idle limit."
        ),
    )


def short_lived_connections(reading: Reading) -> Finding | None:
    """Connections are opened and closed again within a minute, one after the other."""
    storms = [
        window
        for worker in reading.workers
        if _is_storm(window := recent(reading, worker, 60), worker.now.size)
    ]
    if not storms:
        return None
    worst = max(storms, key=_short_lived)
    size, most = worst[-1].size, max(sample.checked_out for sample in worst)
    return Finding(
        id="short-lived-connections",
        severity=Severity.WARNING,
        evidence=(
            f"{of_workers(len(storms), reading)} connections live for less than a minute: "
            f"{_short_lived(worst)} were closed that young within the last minute, at a pool_size "
            f"of {size} with up to {most} lent at once."
        ),
        remedy=(
            f"Raise pool_size from {size} to {min(most, LARGEST_POOL)}, or set overflow_idle to "
            f"{OVERFLOW_IDLE} or more."
            if most > size
            else f"Set overflow_idle and pool_recycle to {OVERFLOW_IDLE} or more, and look for "
            "what invalidates connections: the pool is large enough."
        ),
    )


def _is_storm(window: list[Sample], size: int) -> bool:
    seconds = sum(1 for sample in window if sample.short_lived)
    # Without a size there is no pool that could keep them.
    return (
        size > 0
        and max(size, SHORT_LIVED) <= _short_lived(window)
        and (seconds >= SHORT_LIVED_SECONDS)
    )


def _short_lived(window: list[Sample]) -> int:
    return sum(sample.short_lived for sample in window)
