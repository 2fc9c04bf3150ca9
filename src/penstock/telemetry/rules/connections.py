"""Rules about connections that end too early or cannot be opened."""

from collections.abc import Sequence
from itertools import chain

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading
from penstock.telemetry.rules.rule import (
    LARGEST_POOL,
    SETTLED_AGE,
    bounded,
    moment,
    number_of,
    recent,
    sentence,
    workers_of,
)
from penstock.telemetry.schema import Sample

STALE_WINDOW = 300
"""Seconds within which dead connections are counted."""

STALE = 3
"""Dead connections that make a finding."""

STALE_SHARE = 0.1
"""Share of dead connections, of all that were closed, that makes a finding."""

STALE_SPREAD = 30.0
"""Seconds from the first death to the last; at a restart of the server they die together."""

RECYCLE_SHARE = 0.75
"""The proposed ``pool_recycle``, as a share of a connection's expected life."""

SHORT_LIVED = 10
"""Least number of short-lived connections within a minute, whatever the size of the pool."""

SHORT_LIVED_SECONDS = 3
"""Different seconds in which they must be closed; resizing a pool closes them in one."""

OVERFLOW_IDLE = 60
"""Default of ``overflow_idle`` in seconds, and the age up to which a connection is short-lived."""


def stale_connections(reading: Reading) -> Finding | None:
    """Return a finding if connections are repeatedly found dead."""
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
            f"{died} of {number_of(closed, 'connection')} closed within {STALE_WINDOW // 60} "
            f"minutes were found dead, over {deaths[-1] - deaths[0]:.0f} s. With {kept:.0f} open "
            f"on average, a connection lives for about {life:.0f} s before the server or a proxy "
            "drops it."
        ),
        remedy=(
            f"Set pool_recycle to {recycle} and keepalive to {min(120, recycle // 2)}. If a known "
            "proxy is between the service and the server, set proxy, which derives both from its "
            "idle timeout."
        ),
    )


def short_lived_connections(reading: Reading) -> Finding | None:
    """Return a finding if many connections are closed within a minute of being opened."""
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
            f"Connections of {workers_of(len(storms), reading)} live for less than a minute: "
            f"{_short_lived(worst)} were closed within the last minute, with pool_size {size} and "
            f"up to {most} checked out at once."
        ),
        remedy=(
            f"Raise pool_size from {size} to {min(most, LARGEST_POOL)}, or set overflow_idle to "
            f"{OVERFLOW_IDLE} or more."
            if most > size
            else f"Set overflow_idle and pool_recycle to {OVERFLOW_IDLE} or more, and find "
            "the code that invalidates connections; the pool is large enough."
        ),
    )


def _is_storm(window: list[Sample], size: int) -> bool:
    seconds = sum(1 for sample in window if sample.short_lived)
    # With pool_size 0 the pool keeps no connection.
    return (
        size > 0
        and max(size, SHORT_LIVED) <= _short_lived(window)
        and (seconds >= SHORT_LIVED_SECONDS)
    )


def _short_lived(window: list[Sample]) -> int:
    return sum(sample.short_lived for sample in window)


STORM_SECONDS = 10.0
"""Seconds within which opened connections that the pool does not keep are counted."""

FAILURE_WINDOW = 120
"""Seconds within which failed attempts are counted; the pool pauses for up to 30 s between two."""

FAILURE_SECONDS = 4
"""Different seconds with a failed attempt that make a finding."""

FAILURE_SPREAD = 10.0
"""Seconds from the first failure to the last; a server restarts in less."""

SHORTEST_LIFE = 600
"""Shortest ``pool_recycle`` of any profile, in seconds."""

# The proposed connect_timeout, as a multiple of the 99th percentile.
_CONNECT_TIMEOUT_FACTOR = 3


UNREACHABLE_FOR = 10.0
"""Seconds from the first failure to the newest sample; a server restarts in less."""

UNREACHABLE_ATTEMPTS = 2
"""Failed attempts since the last success; without traffic the pool tries every 15 seconds."""


def server_unreachable(reading: Reading) -> Finding | None:
    """Return a finding if no connection can be opened, with or without traffic."""
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
            f"{sentence(workers_of(len(failing), reading))} could not open a connection for "
            f"{now - first.unreachable:.0f} s: {attempts} attempts failed ({first.fault})."
        ),
        remedy=(
            "Check that the server is running, that this machine can reach it and that it accepts "
            "the user; the log and database.pool.snapshot().last_open_error have the driver's "
            "error. The pool reconnects as soon as it can."
        ),
    )


def connect_storm(reading: Reading) -> Finding | None:
    """Return a finding if connections are opened in bursts, or attempts keep failing."""
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
    timeout = bounded(usual * _CONNECT_TIMEOUT_FACTOR, 10, 120)
    return Finding(
        id="connect-storm",
        severity=Severity.CRITICAL,
        evidence=(
            f"{failures} attempts to open a connection failed within {FAILURE_WINDOW} s, in "
            f"{len(failed)} different seconds; {opened} succeeded."
        ),
        remedy=(
            "The failed requests and database.pool.snapshot().last_open_error tell the reason: "
            "the server is down, has no connections left or rejects the user. If it is only slow, "
            f"set connect_timeout to {timeout}."
        ),
    )


def _storm(reading: Reading) -> Finding | None:
    storms = []
    for worker in reading.workers:
        samples = recent(reading, worker, 60)
        settled = [sample for sample in samples if sample.at - worker.started >= SETTLED_AGE]
        if (lost := _opened_without_growth(settled)) > worker.now.size > 0:
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
            f"Connections of {workers_of(len(storms), reading)} are opened in bursts: {lost} "
            f"within {STORM_SECONDS:.0f} s that did not enlarge the pool, with pool_size {size}."
        ),
        remedy=(
            f"Unless the server was restarted, {larger if most > size else ''}set overflow_idle to "
            f"{OVERFLOW_IDLE} or more, pool_recycle to {SHORTEST_LIFE} or more, and find "
            "what else closes connections."
        ),
    )


def _opened_without_growth(samples: Sequence[Sample]) -> int:
    """Return the most connections opened within ``STORM_SECONDS``, less the growth of the pool."""
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
