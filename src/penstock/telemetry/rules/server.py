"""Rules about the server and about workers."""

from collections.abc import Sequence
from itertools import chain
from math import floor, isfinite
from statistics import median

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading, WorkerReading
from penstock.telemetry.rules.rule import (
    SETTLED_AGE,
    UTILISATION,
    bounded,
    is_settled,
    moment,
    of_others,
    of_workers,
    own_connections,
    recent,
    smaller_pool,
    usable,
)
from penstock.telemetry.schema import Sample

__all__ = [
    "event_loop_blocked",
    "pool_exceeds_server",
    "replica_lag",
    "server_connections",
    "worker_imbalance",
    "worker_lost",
]

SERVER_FULL = 0.8
"""Share of the server's connections that may be in use: a fifth is left to administration,
migrations and the old workers of a deployment."""

SERVER_CRITICAL = 0.95
"""Share at which the next burst is refused."""

LAG_BYTES = 16 * 1024 * 1024
"""Bytes that a replica may be behind: a segment of PostgreSQL's write-ahead log."""

LAG_SECONDS = 10.0
"""Seconds that it may be behind, while it is behind by bytes, too. The time alone grows on a
primary to which nobody writes."""

LAG_SUSTAINED = 40
"""Seconds for which it has to be, and half as many samples: a large transaction takes a moment. The
server is asked every 15 seconds, so that is at least two answers, mostly three."""

_MIB = 1024 * 1024
# What PostgreSQL accepts as max_connections.
_MOST_CONNECTIONS = 262_143


def server_connections(reading: Reading) -> Finding | None:
    """Most of the connections that the server accepts are in use."""
    now = reading.now
    shares = [
        share
        for worker in reading.workers
        for sample in recent(reading, worker, 60)
        if (share := _share(sample)) is not None
    ]
    share = _share(now)
    # Not for a peak: more than half of the last minute, and still so.
    if (
        share is None
        or (level := min([share, *([median(shares)] if shares else [])])) <= SERVER_FULL
    ):
        return None
    return Finding(
        id="server-connections",
        severity=Severity.CRITICAL if level > SERVER_CRITICAL else Severity.WARNING,
        evidence=(
            f"{now.server_connections:.0f} of {now.server_limit:.0f} connections of the server "
            f"({share:.0%}) are in use, {own_connections(reading)} of them by this service on this "
            "machine."
        ),
        remedy=_relief(reading),
    )


def pool_exceeds_server(reading: Reading) -> Finding | None:
    """All pools together may open more connections than the server has."""
    workers = [worker for worker in reading.workers if is_settled(reading, worker)]
    room = usable(reading)
    total = sum(worker.now.limit for worker in workers)
    if room is None or total <= room or not all(worker.now.limit for worker in workers):
        return None
    largest = max((worker.now for worker in workers), key=lambda now: now.limit)
    smaller = smaller_pool(largest, floor(room * UTILISATION / len(workers)))
    raised = bounded(total / UTILISATION + 3, 1, _MOST_CONNECTIONS)
    return Finding(
        id="pool-exceeds-server",
        severity=Severity.WARNING,
        evidence=(
            f"The pools of {len(workers)} worker(s) may open {total} connections together; the "
            f"server has {room} (max_connections {reading.now.server_limit:.0f} - 3 reserved)."
        ),
        remedy=(
            f"{smaller[0].upper()}{smaller[1:]} in each worker, or raise max_connections to "
            f"{raised}, or put PgBouncer in between."
        ),
    )


def replica_lag(reading: Reading) -> Finding | None:
    """A replica is behind, in bytes and for a while."""
    behind = [recent(reading, worker, LAG_SUSTAINED) for worker in reading.workers]
    behind = [known for window in behind if _is_behind(known := _with_lag(window))]
    if not behind:
        return None
    worst = max((window[-1] for window in behind), key=lambda sample: sample.replica_lag_bytes)
    megabytes = worst.replica_lag_bytes / _MIB
    kept = bounded(2 * megabytes, 64, 1_000_000)
    seconds = worst.replica_lag_seconds
    return Finding(
        id="replica-lag",
        severity=Severity.WARNING,
        evidence=(
            f"The replica furthest behind has not replayed {megabytes:.1f} MiB"
            f"{f', about {seconds:.0f} s' if isfinite(seconds) else ''}, for {LAG_SUSTAINED} s."
        ),
        remedy=(
            "pg_stat_replication on the primary says why: where sent_lsn is behind, the network; "
            "where only replay_lsn is, a query on the replica: set max_standby_streaming_delay to "
            f"{LAG_SECONDS:.0f}s there. Set wal_keep_size to {kept}MB on the primary, or use a "
            "replication slot, so that the replica can catch up."
        ),
    )


def _share(sample: Sample) -> float | None:
    used, limit = sample.server_connections, sample.server_limit
    return used / limit if isfinite(used) and isfinite(limit) and limit > 0 else None


def _relief(reading: Reading) -> str:
    now = reading.now
    raised = bounded(now.server_connections / SERVER_FULL + 3, 1, _MOST_CONNECTIONS)
    raise_limit = f"raise max_connections from {now.server_limit:.0f} to {raised}"
    others = of_others(reading)
    each = floor((now.server_limit * SERVER_FULL - others) / len(reading.workers))
    largest = max((worker.now for worker in reading.workers), key=lambda sample: sample.limit)
    if others > own_connections(reading) or each >= largest.limit:
        return (
            f"{others:.0f} connections are of others: find out whose in pg_stat_activity, or "
            f"{raise_limit}."
        )
    smaller = smaller_pool(largest, each)
    return f"{smaller[0].upper()}{smaller[1:]} in each worker, or {raise_limit}."


def _with_lag(window: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in window if isfinite(sample.replica_lag_bytes)]


def _is_behind(known: Sequence[Sample]) -> bool:
    return len(known) >= LAG_SUSTAINED / 2 and all(
        sample.replica_lag_bytes > LAG_BYTES
        or (sample.replica_lag_bytes > 0 and sample.replica_lag_seconds > LAG_SECONDS)
        for sample in known
    )


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

SILENT_TIMEOUT = 10.0
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
    if silent := [
        worker for worker in reading.workers if _silence(reading, worker) > SILENT_TIMEOUT
    ]:
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
        if sample.loop_late > LATE and sample.at - worker.started >= SETTLED_AGE
    ]


def _is_blocked(late: Sequence[Sample]) -> bool:
    return len(late) >= LATE_SAMPLES or any(sample.loop_late > VERY_LATE for sample in late)


def _find_it(seconds: float) -> str:
    return (
        "Set PYTHONASYNCIODEBUG to 1 in a test environment and loop.slow_callback_duration to "
        f"{seconds:.1f}, which logs what blocks; move that to a thread with asyncio.to_thread()."
    )
