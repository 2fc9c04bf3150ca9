"""Rules about workers: how the traffic is spread, and whether their event loops run."""

from collections.abc import Sequence
from itertools import chain

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.rules.rule import SETTLED, is_settled, moment, of_workers, recent
from penstock.telemetry.sample import Sample

__all__ = ["event_loop_blocked", "worker_imbalance", "worker_lost"]

BALANCE_WINDOW = 60
"""Seconds over which workers are compared."""

BALANCE_CHECKOUTS = 6000
"""Checkouts of all of them within these, 100 a second: with less, chance decides who has work."""

BALANCE_SAMPLES = 45
"""Samples that each needs within these, so that it is not one that hung or has just begun."""

OVERLOADED = 2.0
"""Times its fair share that a worker may do."""

UNDERLOADED = 0.25
"""Part of its fair share that it should do at least; of two workers none can do more than twice."""

LATE = 0.2
"""Seconds by which a loop is late, and with it every request of the worker, whatever it does."""

LATE_SAMPLES = 3
"""Times that it is, as above. Once is a garbage collection, or a neighbour on the machine."""

VERY_LATE = 1.0
"""Seconds by which once is enough."""

SILENT = 10.0
"""Seconds without a sample, while another worker has some, after which its loop stands still."""


LOST_WINDOW = 900.0
"""Seconds for which it is said that a worker was lost: as long as the samples'."""


def worker_lost(reading: Reading) -> Finding | None:
    """A worker has ended without closing its database."""
    now = moment(reading)
    lost = [(pid, at) for pid, at in reading.lost if now - at < LOST_WINDOW]
    if not lost:
        return None
    pid, at = lost[-1]
    others = f", the newest of {len(lost)} within 15 minutes" if len(lost) > 1 else ""
    return Finding(
        id="worker-lost",
        severity=Severity.WARNING,
        evidence=(
            f"Worker {pid} ended without closing its database, as when it is killed or crashes: "
            f"that was noticed {max(0.0, now - at):.0f} s ago{others}."
        ),
        remedy=(
            "Look at the supervisor's log for its exit status (137: SIGKILL, 139: a crash), at the "
            "kernel's for the OOM killer, and give a graceful stop more time than the longest "
            "request takes. Its connections end at the server after tcp_keepalive at the latest."
        ),
    )


def worker_imbalance(reading: Reading) -> Finding | None:
    """One worker does much more than its share, or much less."""
    rates = _rates(reading)
    total = sum(rates.values())
    if len(rates) < 2 or total * BALANCE_WINDOW < BALANCE_CHECKOUTS:
        return None
    fair = total / len(rates)
    busiest, idlest = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
    if rates[busiest] <= fair * OVERLOADED and rates[idlest] >= fair * UNDERLOADED:
        return None
    waited = sum(
        sample.waits for worker in reading.workers for sample in recent(reading, worker, 60)
    )
    return Finding(
        id="worker-imbalance",
        severity=Severity.WARNING if waited else Severity.INFO,
        evidence=(
            f"Of {total:.0f} checkouts a second worker {busiest} does {rates[busiest]:.0f} and "
            f"worker {idlest} {rates[idlest]:.0f}, where {fair:.0f} would be fair among "
            f"{len(rates)}; {waited} had to wait within the last minute."
        ),
        remedy=(
            "Each client connection stays with the worker that accepted it. In the proxy in front, "
            f"end it after {_requests(fair)} requests (nginx: keepalive_requests {_requests(fair)})"
            ", ten seconds of a worker's fair share, and balance by least_conn."
        ),
    )


def event_loop_blocked(reading: Reading) -> Finding | None:
    """An event loop stands still, again and again or for long."""
    if silent := [worker for worker in reading.workers if _silence(reading, worker) > SILENT]:
        return _stands_still(reading, silent)
    blocked = [late for worker in reading.workers if _is_blocked(late := _late(reading, worker))]
    if not blocked:
        return None
    longest = max(sample.loop_late for sample in chain.from_iterable(blocked))
    return Finding(
        id="event-loop-blocked",
        severity=Severity.WARNING,
        evidence=(
            f"{of_workers(len(blocked), reading)} the event loop was blocked for longer than "
            f"{LATE} s within the last minute, {max(map(len, blocked))} time(s) in one worker, "
            f"for {longest:.2f} s at most."
        ),
        remedy=_find_it(longest / 2),
    )


def _rates(reading: Reading) -> dict[int, float]:
    rates = {}
    for worker in reading.workers:
        samples = recent(reading, worker, BALANCE_WINDOW)
        if is_settled(reading, worker) and len(samples) >= BALANCE_SAMPLES:
            rates[worker.pid] = sum(sample.checkouts for sample in samples) / len(samples)
    return rates


def _requests(fair: float) -> int:
    return max(1, round(fair * 10))


def _silence(reading: Reading, worker: WorkerReading) -> float:
    return moment(reading) - worker.now.at if is_settled(reading, worker) else 0.0


def _stands_still(reading: Reading, silent: Sequence[WorkerReading]) -> Finding:
    seconds = max(_silence(reading, worker) for worker in silent)
    pids = ", ".join(str(worker.pid) for worker in silent)
    return Finding(
        id="event-loop-blocked",
        severity=Severity.CRITICAL,
        evidence=(
            f"{of_workers(len(silent), reading)} the event loop stands still: nothing was heard of "
            f"{pids} for up to {seconds:.0f} s."
        ),
        remedy=f"Look at its stack (py-spy dump --pid {silent[0].pid}). {_find_it(LATE)}",
    )


def _late(reading: Reading, worker: WorkerReading) -> list[Sample]:
    return [
        sample
        for sample in recent(reading, worker, 60)
        if sample.loop_late > LATE and sample.at - worker.started >= SETTLED
    ]


def _is_blocked(late: Sequence[Sample]) -> bool:
    return len(late) >= LATE_SAMPLES or any(sample.loop_late > VERY_LATE for sample in late)


def _find_it(seconds: float) -> str:
    return (
        "Set PYTHONASYNCIODEBUG to 1 in a test environment and loop.slow_callback_duration to "
        f"{seconds:.1f}, which logs what blocks; move that to a thread with asyncio.to_thread()."
    )
