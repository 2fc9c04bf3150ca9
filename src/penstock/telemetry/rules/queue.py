"""Rules about waiting for a connection, an exhausted pool and rejected requests."""

from collections.abc import Sequence
from itertools import pairwise

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.rules.rule import (
    holders,
    larger_pool,
    moment,
    number_of,
    recent,
    workers_of,
)
from penstock.telemetry.schema import Sample

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
            f"For {LATENCY_SUSTAINED} s, requests of {workers_of(len(slow), reading)} have waited "
            f"{mean:.2f} s for a connection on average and {longest:.2f} s at most, with "
            f"{checked_out:.0f}{f' of {limit}' if limit else ''} connections checked out."
            f"{holders(reading, worst)}"
        ),
        remedy=_relief(reading, worst),
    )


def pool_exhausted(reading: Reading) -> Finding | None:
    """Return a finding if every connection of a worker was checked out while requests waited."""
    runs = [_longest_run(recent(reading, worker, 60)) for worker in reading.workers]
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
            f"All {number_of(worst[-1].limit, 'connection')} of {workers_of(len(runs), reading)} "
            f"were checked out for {len(worst)} s; {number_of(waiting, 'request')} waited, the "
            f"longest {longest:.2f} s."
            f"{holders(reading, worst)}"
        ),
        remedy=larger_pool(reading, worst),
    )


def shedding(reading: Reading) -> Finding | None:
    """Return a finding if many requests got no connection."""
    windows = [found for worker in reading.workers if (found := recent(reading, worker, 60))]
    rejected = sum(_rejections(sample) for window in windows for sample in window)
    if not rejected:
        return None
    requests = rejected + sum(sample.checkouts for window in windows for sample in window)
    share = rejected / requests
    last = [recent(reading, worker, 30) for worker in reading.workers]
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
    until = moment(reading)
    samples = recent(reading, worker, LATENCY_SUSTAINED + LONGEST_PAUSE)
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
        return larger_pool(reading, samples)
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
