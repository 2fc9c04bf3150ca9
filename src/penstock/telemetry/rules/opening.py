"""The rule about connections that are opened in masses, or in vain."""

from collections.abc import Sequence
from itertools import chain

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading
from penstock.telemetry.rules.capacity import LARGEST_POOL, bounded
from penstock.telemetry.rules.connections import OVERFLOW_IDLE
from penstock.telemetry.rules.rule import SETTLED, moment, of_workers, recent
from penstock.telemetry.sample import Sample

__all__ = ["connect_storm", "server_unreachable"]

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
        settled = [sample for sample in samples if sample.at - worker.started >= SETTLED]
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
