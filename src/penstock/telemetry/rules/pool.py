"""Rules about the pool: its queue, and connections that end too early or cannot be opened."""

from collections.abc import Sequence
from itertools import chain, pairwise
from math import floor

from penstock.findings import Finding, Severity, bounded, number_of
from penstock.telemetry.reading import SETTLED_AGE, Reading, WorkerReading
from penstock.telemetry.rules.leases import holders
from penstock.telemetry.rules.server import UTILISATION, server_unreachable
from penstock.telemetry.schema import Sample

LARGEST_POOL = 1000
"""Largest ``pool_size`` that the settings accept."""
LATENCY = 0.5
"""Longest acceptable mean wait for a connection, in seconds."""
LATENCY_SUSTAINED = 120
"""Seconds for which the mean wait must exceed it."""
SLOW_SHARE = 0.9
"""Share of these seconds, of all with requests, in which it must. The rest allows for samples that
were taken while the queue was empty."""
LONGEST_PAUSE = 30
"""Longest gap between two such seconds, without requests or without samples."""
BUSY_SHARE = 0.9
"""Share of open connections above which a larger pool would help."""
EXHAUSTED_SAMPLES = 5
"""Samples in a row in which every connection is checked out; a peak of 1 s is in one or two."""
LONGEST_GAP = 3.0
"""Seconds between two samples that still count as in a row; one may be missing or late."""
REJECTION_SECONDS = 10
"""Seconds with a rejection, of the last 30, that make a finding."""
REJECTION_SHARE = 0.01
"""Largest acceptable share of rejected requests within a minute, for an objective of 99 %."""
LEAST_REJECTIONS = 10
"""Rejections, in five different seconds, below which their share is not significant."""
REJECTION_CRITICAL = 0.1
"""Share of rejected requests above which the finding is critical."""


def checkout_latency(reading: Reading) -> Finding | None:
    """Return a finding if requests have waited too long for a connection for two minutes."""
    slow = [found for worker in reading.workers if (found := _slow_for_long(reading, worker))]
    if not slow:
        return None
    worst = max(slow, key=lambda found: sum(map(_wait, found)) / len(found))
    mean = sum(map(_wait, worst)) / len(worst)
    longest = max(sample.wait_longest for sample in worst)
    checked_out = sum(sample.checked_out for sample in worst) / len(worst)
    limit = worst[-1].limit
    return Finding(
        id="checkout-latency",
        severity=Severity.CRITICAL,
        evidence=(
            f"For {LATENCY_SUSTAINED} s, requests of {reading.workers_of(len(slow))} have waited "
            f"{mean:.2f} s for a connection on average and {longest:.2f} s at most, with "
            f"{checked_out:.0f}{f' of {limit}' if limit else ''} connections checked out."
            f"{holders(reading, worst)}"
        ),
        remedy=_relief(reading, worst),
    )


def pool_exhausted(reading: Reading) -> Finding | None:
    """Return a finding if every connection of a worker was checked out while requests waited."""
    runs = [_longest_run(reading.recent(worker, 60)) for worker in reading.workers]
    runs = [run for run in runs if len(run) >= EXHAUSTED_SAMPLES]
    if not runs:
        return None
    worst = max(runs, key=len)
    longest = max(sample.wait_longest for sample in worst)
    waiting = max(sample.waiting for sample in worst)
    return Finding(
        id="pool-exhausted",
        severity=Severity.CRITICAL if longest > LATENCY else Severity.WARNING,
        evidence=(
            f"All {number_of(worst[-1].limit, 'connection')} of {reading.workers_of(len(runs))} "
            f"were checked out for {len(worst)} s; {number_of(waiting, 'request')} waited, the "
            f"longest {longest:.2f} s."
            f"{holders(reading, worst)}"
        ),
        remedy=_larger_pool(reading, worst),
    )


def shedding(reading: Reading) -> Finding | None:
    """Return a finding if many requests got no connection."""
    windows = [found for worker in reading.workers if (found := reading.recent(worker, 60))]
    rejected = sum(_rejections(sample) for window in windows for sample in window)
    if not rejected:
        return None
    requests = rejected + sum(sample.checkouts for window in windows for sample in window)
    share = rejected / requests
    last = [reading.recent(worker, 30) for worker in reading.workers]
    sustained = _rejecting_seconds(last) >= REJECTION_SECONDS
    many = rejected >= LEAST_REJECTIONS and _rejecting_seconds(windows) >= LEAST_REJECTIONS // 2
    if not sustained and not (many and share > REJECTION_SHARE):
        return None
    worst = max(windows, key=lambda window: sum(map(_rejections, window)))
    return Finding(
        id="shedding",
        severity=Severity.CRITICAL if share > REJECTION_CRITICAL else Severity.WARNING,
        evidence=(
            f"{rejected} of {requests} requests ({share:.1%}) got no connection within the last "
            f"minute, in {_rejecting_seconds(last)} of the last 30 seconds: the pool rejected "
            f"them, or pool_timeout expired.{holders(reading, worst)}"
        ),
        remedy=_relief(reading, [sample for sample in worst if _rejections(sample)]),
    )


def _slow_for_long(reading: Reading, worker: WorkerReading) -> list[Sample]:
    until = reading.moment
    samples = reading.recent(worker, LATENCY_SUSTAINED + LONGEST_PAUSE)
    since = until - LATENCY_SUSTAINED
    within = [sample for sample in samples if sample.at > since]
    slow = [sample for sample in within if _wait(sample) > LATENCY]
    before = [sample.at for sample in samples if sample.at <= since and _wait(sample) > LATENCY]
    busy = sum(1 for sample in within if sample.checkouts or sample.waiting)
    if not before or not slow or len(slow) < busy * SLOW_SHARE:
        return []
    seconds = [before[-1], *(sample.at for sample in slow), until]
    return slow if max(b - a for a, b in pairwise(seconds)) <= LONGEST_PAUSE else []


def _wait(sample: Sample) -> float:
    """Return the mean wait of a second; without one that ended, the longest that has not."""
    if sample.waits:
        return sample.wait_seconds / sample.waits
    return sample.wait_longest if sample.waiting else 0.0


def _relief(reading: Reading, samples: Sequence[Sample]) -> str:
    # A connection that is idle in a sample was checked out between two, or nothing would wait.
    are_open = sum(sample.checked_in + sample.checked_out for sample in samples)
    if 0 < sum(sample.limit for sample in samples) * BUSY_SHARE <= are_open:
        return _larger_pool(reading, samples)
    return (
        "The pool may open more connections, but does not open them in time: set min_idle to "
        f"{max(1, samples[-1].size)} to keep them ready."
    )


def _longest_run(samples: Sequence[Sample]) -> list[Sample]:
    runs: list[list[Sample]] = [[]]
    for sample in samples:
        if not (sample.checked_out >= sample.limit > 0 and sample.waiting):
            runs.append([])
        elif runs[-1] and sample.at - runs[-1][-1].at > LONGEST_GAP:
            runs.append([sample])
        else:
            runs[-1].append(sample)
    return max(runs, key=len)


def _rejections(sample: Sample) -> int:
    return sample.shed + sample.timeouts


def _rejecting_seconds(windows: Sequence[Sequence[Sample]]) -> int:
    return len({int(each.at) for window in windows for each in window if _rejections(each)})


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
    windows = [reading.recent(worker, STALE_WINDOW) for worker in reading.workers]
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
        if _is_storm(window := reading.recent(worker, 60), worker.now.size)
    ]
    if not storms:
        return None
    worst = max(storms, key=_short_lived)
    size, most = worst[-1].size, max(sample.checked_out for sample in worst)
    return Finding(
        id="short-lived-connections",
        severity=Severity.WARNING,
        evidence=(
            f"Connections of {reading.workers_of(len(storms))} live for less than a minute: "
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


def connect_storm(reading: Reading) -> Finding | None:
    """Return a finding if connections are opened in bursts, or attempts keep failing."""
    return (not server_unreachable(reading) and _failures(reading)) or _storm(reading)


def _failures(reading: Reading) -> Finding | None:
    windows = [reading.recent(worker, FAILURE_WINDOW) for worker in reading.workers]
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
        samples = reading.recent(worker, 60)
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
            f"Connections of {reading.workers_of(len(storms))} are opened in bursts: {lost} "
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


RETURNED_SHARE = 0.4
"""Share of the total checkout time that returned connections must account for; it is one half just
before the second of several equal leases ends."""


def _mean_hold(samples: Sequence[Sample]) -> float:
    """Return how many seconds a connection is checked out on average; 0.0 without check-ins.

    It is the mean of the returned connections, if they account for enough of the total checkout
    time. Otherwise most connections are still checked out, and Little's law estimates it.

    The samples are those of one worker, without gaps.
    """
    checkins = sum(sample.checkins for sample in samples)
    if not checkins:
        return 0.0
    held = sum(sample.hold_seconds for sample in samples)
    out = sum(sample.checked_out for sample in samples)
    return (held if held >= out * RETURNED_SHARE else out) / checkins


def _since_first(reading: Reading, samples: Sequence[Sample]) -> list[Sample]:
    """Return a worker's samples of the last minute that follow the first of the given ones.

    The first one is left out: connections returned within its second were checked out before.
    """
    window = reading.recent(reading.worker_of(samples[-1]), 60)
    return [sample for sample in window if sample.at > samples[0].at]


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


def _larger_pool(reading: Reading, samples: Sequence[Sample]) -> str:
    """Return the remedy for too few connections in a worker, in the seconds of these samples.

    It is a larger ``pool_size`` if the server has room for it, otherwise a limit of the queue.
    """
    now, hold = samples[-1], _mean_hold(_since_first(reading, samples))
    grown = min(LARGEST_POOL, now.size + max(1, needed_connections(samples, hold) - now.limit))
    if (room := reading.server_capacity) is not None:
        each = floor((room * UTILISATION - reading.other_connections) / len(reading.workers))
        grown = min(grown, now.size + each - now.limit)
    shorter = f"Hold connections for less time{f' (now {hold:.3f} s on average)' if hold else ''}"
    if grown > now.size:
        return (
            f"{shorter}. If the work takes that long and the server has CPU to spare, raise "
            f"pool_size from {now.size} to {grown}."
        )
    queue = bounded(now.limit * LATENCY / hold if hold > 0 else now.limit, 1, 100_000)
    return (
        f"{shorter}. The server has no room for larger pools: set max_waiting to {queue}, so that "
        f"no request waits for longer than {LATENCY} s."
    )
