"""Rules about those who wait for a connection, or get none."""

from collections.abc import Sequence
from itertools import pairwise

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.rules.rule import holders, larger_pool, moment, of_workers, recent
from penstock.telemetry.schema import Sample

__all__ = ["checkout_latency", "pool_exhausted", "shedding"]

LATENCY = 0.5
"""Seconds that the wait for a connection may last on average (SPEC T20)."""

LATENCY_SUSTAINED = 120
"""Seconds for which it has to last longer than that (SPEC T20)."""

SLOW_SHARE = 0.9
"""Share of those seconds in which it has to, of all in which somebody asked. One in ten is granted
to a queue that was empty at the moment at which it was looked at."""

LONGEST_PAUSE = 30
"""Seconds that may pass without such a second, because nobody asked or no sample was taken."""

BUSY_SHARE = 0.9
"""Share of the connections that are open, above which more of them would help who waits."""

EXHAUSTED_SAMPLES = 5
"""Samples in a row at which every connection was out. A peak of a second is in one or two."""

LONGEST_GAP = 3.0
"""Seconds between two samples that still count as in a row: one may be missed, or late."""

REFUSAL_SECONDS = 10
"""Of the last 30 seconds, those with a refusal that make it a state and not an accident."""

REFUSAL_SHARE = 0.01
"""Share of refused callers within a minute that is too many: what an objective of 99 % leaves."""

REFUSALS_AT_LEAST = 10
"""Refusals, and five different seconds of them, below which a share says nothing."""

REFUSAL_CRITICAL = 0.1
"""Share of refused callers that makes it critical."""


def checkout_latency(reading: Reading) -> Finding | None:
    """Somebody has waited too long for a connection, for two minutes."""
    slow = [found for worker in reading.workers if (found := _slow_for_long(reading, worker))]
    if not slow:
        return None
    worst = max(slow, key=lambda found: sum(map(_wait, found)) / len(found))
    mean = sum(map(_wait, worst)) / len(worst)
    longest = max(sample.wait_longest for sample in worst)
    checked_out = sum(sample.checked_out for sample in worst) / len(worst)
    return Finding(
        id="checkout-latency",
        severity=Severity.CRITICAL,
        evidence=(
            f"{of_workers(len(slow), reading)} callers have waited for longer than {LATENCY} s for "
            f"{LATENCY_SUSTAINED} s: {mean:.2f} s on average, {longest:.2f} s at most, with "
            f"{checked_out:.0f} of {worst[-1].limit or 'any number of'} connections checked out."
            f"{holders(reading, worst)}"
        ),
        remedy=_relief(reading, worst),
    )


def pool_exhausted(reading: Reading) -> Finding | None:
    """Every connection of a worker was checked out for a while, and somebody waited."""
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
            f"{of_workers(len(runs), reading)} every connection was checked out, "
            f"{worst[-1].limit} of {worst[-1].limit}, at {len(worst)} samples in a row "
            "within the last minute; up to "
            f"{waiting} caller(s) waited, {longest:.2f} s at most."
            f"{holders(reading, worst)}"
        ),
        remedy=larger_pool(reading, worst),
    )


def shedding(reading: Reading) -> Finding | None:
    """Callers are refused again and again."""
    windows = [found for worker in reading.workers if (found := recent(reading, worker, 60))]
    refused = sum(_refusals(sample) for window in windows for sample in window)
    if not refused:
        return None
    asked = refused + sum(sample.checkouts for window in windows for sample in window)
    share = refused / asked
    last = [recent(reading, worker, 30) for worker in reading.workers]
    sustained = _seconds_of_refusal(last) >= REFUSAL_SECONDS
    many = refused >= REFUSALS_AT_LEAST and _seconds_of_refusal(windows) >= REFUSALS_AT_LEAST // 2
    if not sustained and not (many and share > REFUSAL_SHARE):
        return None
    worst = max(windows, key=lambda window: sum(map(_refusals, window)))
    return Finding(
        id="shedding",
        severity=Severity.CRITICAL if share > REFUSAL_CRITICAL else Severity.WARNING,
        evidence=(
            f"{refused} of {asked} callers ({share:.1%}) got no connection within the last minute, "
            f"in {_seconds_of_refusal(last)} of the last 30 seconds: they were rejected, or "
            f"their pool_timeout passed.{holders(reading, worst)}"
        ),
        remedy=_relief(reading, [sample for sample in worst if _refusals(sample)]),
    )


def _slow_for_long(reading: Reading, worker: WorkerReading) -> list[Sample]:
    until = moment(reading)
    samples = recent(reading, worker, LATENCY_SUSTAINED + LONGEST_PAUSE)
    since = until - LATENCY_SUSTAINED
    within = [sample for sample in samples if sample.at > since]
    slow = [sample for sample in within if _wait(sample) > LATENCY]
    before = [sample.at for sample in samples if sample.at <= since and _wait(sample) > LATENCY]
    asked = sum(1 for sample in within if sample.checkouts or sample.waiting)
    if not before or not slow or len(slow) < asked * SLOW_SHARE:
        return []
    seconds = [before[-1], *(sample.at for sample in slow), until]
    return slow if max(b - a for a, b in pairwise(seconds)) <= LONGEST_PAUSE else []


def _wait(sample: Sample) -> float:
    """The mean wait of who was served after one; where nobody was, that of who still waits."""
    if sample.waits:
        return sample.wait_seconds / sample.waits
    return sample.wait_longest if sample.waiting else 0.0


def _relief(reading: Reading, samples: Sequence[Sample]) -> str:
    # One that is idle just now was checked out between two samples, or nobody would have waited.
    are_open = sum(sample.checked_in + sample.checked_out for sample in samples)
    if 0 < sum(sample.limit for sample in samples) * BUSY_SHARE <= are_open:
        return larger_pool(reading, samples)
    return (
        "There is room for more connections, but they are not open in time: set min_idle to "
        f"{max(1, samples[-1].size)}, which keeps them ready."
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


def _refusals(sample: Sample) -> int:
    return sample.shed + sample.timeouts


def _seconds_of_refusal(windows: Sequence[Sequence[Sample]]) -> int:
    return len({int(each.at) for window in windows for each in window if _refusals(each)})
