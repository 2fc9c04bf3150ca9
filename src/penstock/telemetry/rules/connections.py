"""Rules about connections that do not live as long as they should, or cannot be opened."""

from collections.abc import Sequence
from itertools import chain

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading
from penstock.telemetry.rules.rule import (
    LARGEST_POOL,
    SETTLED_AGE,
    bounded,
    moment,
    of_workers,
    recent,
)
from penstock.telemetry.schema import Sample

__all__ = ["connect_storm", "server_unreachable", "short_lived_connections", "stale_connections"]

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
            f"of {size} with up to {most} checked out at once."
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


STORM_SECONDS = 10.0
"""Seconds within which connections are opened that the pool does not keep."""

FAILURE_WINDOW = 120
"""Seconds within which attempts fail again and again: the pool waits for up to 30 s between two."""

FAILURE_SECONDS = 4
"""Different seconds with a failed attempt that make it again and again."""

FAILURE_SPREAD = 10.0
"""Seconds from the first to the last. A server is restarted within less."""

SHORTEST_LIFE = 600
"""Seconds; the shortest ``pool_recycle`` of any profile."""

# Times by which opening may take longer than 99 % of them did.
_CONNECT_PATIENCE = 3


UNREACHABLE_FOR = 10.0
"""Seconds from the first failure to the newest sample. A server is restarted within less."""

UNREACHABLE_ATTEMPTS = 2
"""Attempts that failed since one succeeded. Without traffic one is made each 15 seconds."""


def server_unreachable(reading: Reading) -> Finding | None:
    """No connection can be opened, whether somebody needs one or not."""
    now = moment(reading)
    failing = [
        worker
        for worker in reading.workers
        if worker.failures >= UNREACHABLE_ATTEMPTS
        and 0.0 < worker.unreachable <= now - UNREACHABLE_FOR
    ]
    if not failing:
        return None
    first = min(failing, key=lambda worker: worker.unreachable)
    attempts = sum(worker.failures for worker in failing)
    return Finding(
        id="server-unreachable",
        severity=Severity.CRITICAL,
        evidence=(
            f"{of_workers(len(failing), reading)} no connection could be opened for "
            f"{now - first.unreachable:.0f} s: {attempts} attempts failed ({first.fault})."
        ),
        remedy=(
            "Look whether the server runs and is reached from this machine, and whether it accepts "
            "the user: the log and database.pool.last_open_error have the driver's whole error. "
            "The pool connects by itself as soon as it can."
        ),
    )


def connect_storm(reading: Reading) -> Finding | None:
    """Connections are opened in masses, or attempts to open one fail again and again."""
    return (not server_unreachable(reading) and _failures(reading)) or _storm(reading)


def _failures(reading: Reading) -> Finding | None:
    windows = [recent(reading, worker, FAILURE_WINDOW) for worker in reading.workers]
    samples = list(chain.from_iterable(windows))
    failed = sorted(
        {int(sample.at): sample.at for sample in samples if sample.open_failures}.values()
    )
    failures = sum(sample.open_failures for sample in samples)
    opened = sum(sample.opened for sample in samples)
    if len(failed) < FAILURE_SECONDS or failed[-1] - failed[0] < FAILURE_SPREAD:
        return None
    if failures <= opened:
        return None
    usual = reading.histogram("create").quantile(0.99)
    patience = bounded(usual * _CONNECT_PATIENCE, 10, 120)
    return Finding(
        id="connect-storm",
        severity=Severity.CRITICAL,
        evidence=(
            f"{failures} attempts to open a connection failed within {FAILURE_WINDOW} s, in "
            f"{len(failed)} different seconds, and {opened} succeeded."
        ),
        remedy=(
            "The reason is what requests failed with, and database.pool.last_open_error: the "
            "server is down, full, or refuses the user. If it is slow only, set connect_timeout "
            f"to {patience}."
        ),
    )


def _storm(reading: Reading) -> Finding | None:
    storms = []
    for worker in reading.workers:
        samples = recent(reading, worker, 60)
        settled = [sample for sample in samples if sample.at - worker.started >= SETTLED_AGE]
        if (lost := _opened_in_vain(settled)) > worker.now.size > 0:
            storms.append((lost, samples))
    if not storms:
        return None
    lost, samples = max(storms, key=lambda storm: storm[0])
    size, most = samples[-1].size, max(sample.checked_out for sample in samples)
    larger = f"raise pool_size from {size} to {min(most, LARGEST_POOL)}, "
    return Finding(
        id="connect-storm",
        severity=Severity.WARNING,
        evidence=(
            f"{of_workers(len(storms), reading)} connections are opened in masses: {lost} within "
            f"{STORM_SECONDS:.0f} s that made the pool no larger, at a pool_size of {size}."
        ),
        remedy=(
            f"Unless the server was restarted, {larger if most > size else ''}set overflow_idle to "
            f"{OVERFLOW_IDLE} or more, pool_recycle to {SHORTEST_LIFE} or more, and look at what "
            "else closes connections."
        ),
    )


def _opened_in_vain(samples: Sequence[Sample]) -> int:
    """The most connections opened within ``STORM_SECONDS``, less those by which the pool grew."""
    most = 0
    for index, first in enumerate(samples):
        opened = 0
        for sample in samples[index + 1 :]:
            if sample.at - first.at > STORM_SECONDS:
                break
            opened += sample.opened
            most = max(most, opened - max(0, _open(sample) - _open(first)))
    return most


def _open(sample: Sample) -> int:
    return sample.checked_in + sample.checked_out
