"""Rules about the server, its replicas and the workers."""

from collections.abc import Sequence
from itertools import chain
from math import floor, isfinite
from statistics import median

from penstock.findings import Finding, Severity, bounded, number_of
from penstock.telemetry.reading import SETTLED_AGE, Reading, WorkerReading
from penstock.telemetry.schema import Sample

UTILISATION = 0.8
"""Share of the connections that should be in use on average at most. In an M/M/c queue the wait
grows steeply above it, and without bound towards 1.0 (Erlang C)."""
UNREACHABLE_FOR = 10.0
"""Seconds from the first failure to the newest sample; a server restarts in less."""
UNREACHABLE_ATTEMPTS = 2
"""Failed attempts since the last success; without traffic the pool tries every 15 seconds."""
SERVER_FULL = 0.8
"""Largest share of the server's connections in use that leaves room for administration, migrations
and the old workers of a deployment."""
SERVER_CRITICAL = 0.95
"""Share above which the server is likely to reject connections of the next burst."""
LAG_BYTES = 16 * 1024 * 1024
"""Acceptable lag of a replica in bytes: a segment of PostgreSQL's write-ahead log."""
LAG_SECONDS = 10.0
"""Acceptable lag in seconds, if it also lags in bytes: without writes on the primary the time grows
although nothing is missing."""
LAG_SUSTAINED = 40
"""Seconds for which the lag must last, with half as many samples: a large transaction takes a
moment. The server is queried every 15 seconds, so these are two or three answers."""
LEFT_OUT_WINDOW = 60
"""Seconds for which a replica must be left out; one that restarts is back sooner."""
LEFT_OUT_SAMPLES = 45
"""Samples that a worker must have within these seconds."""
FALLBACK_READS = 60
"""Least number of reads on the primary within these seconds that count: one per second."""
FALLBACKS = 0.5
"""Share of the reads on the primary above which the replicas relieve it of less than half."""
_MIB = 1024 * 1024
# Largest max_connections that PostgreSQL accepts.
_MOST_CONNECTIONS = 262_143


def server_unreachable(reading: Reading) -> Finding | None:
    """Return a finding if no connection can be opened, with or without traffic."""
    now = reading.moment
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
            f"{reading.workers_of(len(failing)).capitalize()} could not open a connection for "
            f"{now - first.unreachable:.0f} s: {attempts} attempts failed ({first.fault})."
        ),
        remedy=(
            "Check that the server is running, that this machine can reach it and that it accepts "
            "the user; the log and database.pool.snapshot().last_open_error have the driver's "
            "error. The pool reconnects as soon as it can."
        ),
    )


def server_connections(reading: Reading) -> Finding | None:
    """Return a finding if most connections of the server are in use."""
    now = reading.now
    shares = [
        share
        for worker in reading.workers
        for sample in reading.recent(worker, 60)
        if (share := _share(sample)) is not None
    ]
    share = _share(now)
    # Not for a peak: for more than half of the last minute, and still now.
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
            f"({share:.0%}) are in use, {reading.own_connections} of them by this service on this "
            "machine."
        ),
        remedy=_relief(reading),
    )


def pool_exceeds_server(reading: Reading) -> Finding | None:
    """Return a finding if the pools together may open more connections than the server has."""
    workers = [worker for worker in reading.workers if reading.is_settled(worker)]
    room = reading.server_capacity
    total = sum(worker.now.limit for worker in workers)
    if room is None or total <= room or not all(worker.now.limit for worker in workers):
        return None
    largest = max((worker.now for worker in workers), key=lambda now: now.limit)
    smaller = _smaller_pool(largest, floor(room * UTILISATION / len(workers)))
    raised = bounded(total / UTILISATION + 3, 1, _MOST_CONNECTIONS)
    return Finding(
        id="pool-exceeds-server",
        severity=Severity.WARNING,
        evidence=(
            f"The {'pool' if len(workers) == 1 else 'pools'} of "
            f"{number_of(len(workers), 'worker')} may open {total} connections, but the server "
            f"has {room} for them (max_connections {reading.now.server_limit:.0f} - 3 reserved)."
        ),
        remedy=(f"{smaller}, or raise max_connections to {raised}, or use PgBouncer."),
    )


def replica_lag(reading: Reading) -> Finding | None:
    """Return a finding if a replica has lagged for a while."""
    behind = [reading.recent(worker, LAG_SUSTAINED) for worker in reading.workers]
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
            f"The replica furthest behind has lagged by {megabytes:.1f} MiB"
            f"{f' (about {seconds:.0f} s)' if isfinite(seconds) else ''} for {LAG_SUSTAINED} s."
        ),
        remedy=(
            "pg_stat_replication on the primary shows the cause: if sent_lsn lags, the network; if "
            "only replay_lsn lags, a query on the replica, for which max_standby_streaming_delay "
            f"should be {LAG_SECONDS:.0f}s there. Set wal_keep_size to {kept}MB on the primary, or "
            "use a replication slot, so that the replica can catch up."
        ),
    )


def replicas_left_out(reading: Reading) -> Finding | None:
    """Return a finding if a replica is left out for a while, or most reads fall to the primary."""
    windows = [reading.recent(worker, LEFT_OUT_WINDOW) for worker in reading.workers]
    windows = [window for window in windows if window and window[-1].replicas]
    samples = list(chain.from_iterable(windows))
    fallbacks = sum(sample.replica_fallbacks for sample in samples)
    reads = fallbacks + sum(sample.replica_reads for sample in samples)
    are_many = fallbacks >= FALLBACK_READS and fallbacks > FALLBACKS * reads
    out = max((_left_out(window) for window in windows), default=0)
    if not (out or are_many):
        return None
    known = reading.now.replicas
    evidence = []
    if out:
        verb = "has" if out == 1 else "have"
        evidence.append(
            f"{out} of {number_of(known, 'replica')} {verb} served no reads for {LEFT_OUT_WINDOW} s"
        )
    if fallbacks:
        evidence.append(
            f"the primary served {fallbacks} of {reads} reads of the last minute for want of a "
            "replica"
        )
    text = "; ".join(evidence)
    return Finding(
        id="replicas-left-out",
        severity=Severity.CRITICAL if out == known else Severity.WARNING,
        evidence=f"{text[0].upper()}{text[1:]}.",
        remedy=(
            "The table of servers on the live page and the log say why each is left out: one that "
            "does not answer must be started or removed from replicas; for one that is late, see "
            "replica-lag, or raise replica_max_lag. Where none is left out, the reads have to see "
            "writes that the replicas show too late: raise replica_wait."
        ),
    )


def _left_out(window: Sequence[Sample]) -> int:
    is_long = len(window) >= LEFT_OUT_SAMPLES
    return min(sample.replicas_out for sample in window) if is_long else 0


def _share(sample: Sample) -> float | None:
    used, limit = sample.server_connections, sample.server_limit
    return used / limit if isfinite(used) and isfinite(limit) and limit > 0 else None


def _relief(reading: Reading) -> str:
    now = reading.now
    raised = bounded(now.server_connections / SERVER_FULL + 3, 1, _MOST_CONNECTIONS)
    raise_limit = f"raise max_connections from {now.server_limit:.0f} to {raised}"
    others = reading.other_connections
    each = floor((now.server_limit * SERVER_FULL - others) / len(reading.workers))
    largest = max((worker.now for worker in reading.workers), key=lambda sample: sample.limit)
    if others > reading.own_connections or each >= largest.limit:
        return (
            f"{others:.0f} connections belong to other clients: find them in pg_stat_activity, or "
            f"{raise_limit}."
        )
    smaller = _smaller_pool(largest, each)
    return f"{smaller}, or {raise_limit}."


def _smaller_pool(now: Sample, most: int) -> str:
    """Return how to give each worker a pool that opens so many connections at most.

    It is the beginning of a sentence; ``now`` is a sample of the worker with the largest pool.
    """
    overflow = now.limit - now.size
    if most >= now.size:
        return f"Lower max_overflow from {overflow} to {most - now.size} in each worker"
    if most >= 1:
        return (
            f"Lower pool_size from {now.size} to {most} and max_overflow from {overflow} to 0 in "
            "each worker"
        )
    return "Run fewer workers, because less than one connection is left for each"


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
"""Least number of their checkouts, 100 per second; with fewer, the distribution is random."""
BALANCE_SAMPLES = 45
"""Samples that each worker must have, so that it has neither hung nor just started."""
OVERLOADED = 2.0
"""Largest multiple of its fair share that a worker may serve."""
UNDERLOADED = 0.25
"""Least part of its fair share; of two workers, none can serve more than twice its share."""
LATE = 0.2
"""Delay of an event loop in seconds, and with it of every request of the worker."""
LATE_SAMPLES = 3
"""Delays that make a finding; a single one is a garbage collection or another process."""
VERY_LATE = 1.0
"""Delay in seconds of which one makes a finding."""
SILENT_TIMEOUT = 10.0
"""Seconds without a sample, while other workers have some, after which a loop counts as stopped."""
LOST_WINDOW = 900.0
"""Seconds for which a lost worker is reported, as long as samples are kept."""


def worker_lost(reading: Reading) -> Finding | None:
    """Return a finding if a worker has ended without closing its database."""
    now = reading.moment
    lost = [(pid, at) for pid, at in reading.lost if now - at < LOST_WINDOW]
    if not lost:
        return None
    pid, at = lost[-1]
    others = f" It is the last of {len(lost)} within 15 minutes." if len(lost) > 1 else ""
    return Finding(
        id="worker-lost",
        severity=Severity.WARNING,
        evidence=(
            f"Worker {pid} ended without closing its database, because it was killed or crashed; "
            f"this was noticed {max(0.0, now - at):.0f} s ago.{others}"
        ),
        remedy=(
            "Look for its exit status in the supervisor's log (137: SIGKILL, 139: a crash) and for "
            "the OOM killer in the kernel's log, and allow a graceful shutdown more time than the "
            "longest request takes. The server ends its connections after tcp_keepalive at the "
            "latest."
        ),
    )


def worker_imbalance(reading: Reading) -> Finding | None:
    """Return a finding if one worker serves much more or much less than its share."""
    rates = _rates(reading)
    total = sum(rates.values())
    if len(rates) < 2 or total * BALANCE_WINDOW < BALANCE_CHECKOUTS:
        return None
    fair = total / len(rates)
    busiest, idlest = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
    if rates[busiest] <= fair * OVERLOADED and rates[idlest] >= fair * UNDERLOADED:
        return None
    waited = sum(
        sample.waits for worker in reading.workers for sample in reading.recent(worker, 60)
    )
    return Finding(
        id="worker-imbalance",
        severity=Severity.WARNING if waited else Severity.INFO,
        evidence=(
            f"Of {total:.0f} checkouts per second, worker {busiest} serves {rates[busiest]:.0f} "
            f"and worker {idlest} {rates[idlest]:.0f}; a fair share of {len(rates)} workers is "
            f"{fair:.0f}. {number_of(waited, 'checkout')} waited within the last minute."
        ),
        remedy=(
            "A client connection stays with the worker that accepted it. Let the proxy in front "
            f"close it after {_requests(fair)} requests (nginx: keepalive_requests "
            f"{_requests(fair)}), 10 s of a worker's fair share, and balance by least_conn."
        ),
    )


def event_loop_blocked(reading: Reading) -> Finding | None:
    """Return a finding if an event loop is blocked repeatedly or has stopped."""
    if silent := [
        worker for worker in reading.workers if _silence(reading, worker) > SILENT_TIMEOUT
    ]:
        return _stopped(reading, silent)
    blocked = [late for worker in reading.workers if _is_blocked(late := _late(reading, worker))]
    if not blocked:
        return None
    longest = max(sample.loop_late for sample in chain.from_iterable(blocked))
    return Finding(
        id="event-loop-blocked",
        severity=Severity.WARNING,
        evidence=(
            f"The event loop of {reading.workers_of(len(blocked))} was blocked for longer than "
            f"{LATE} s within the last minute: {number_of(max(map(len, blocked)), 'time')} "
            f"in one worker, for {longest:.2f} s at most."
        ),
        remedy=_tracing(longest / 2),
    )


def _rates(reading: Reading) -> dict[int, float]:
    rates = {}
    for worker in reading.workers:
        samples = reading.recent(worker, BALANCE_WINDOW)
        if reading.is_settled(worker) and len(samples) >= BALANCE_SAMPLES:
            rates[worker.pid] = sum(sample.checkouts for sample in samples) / len(samples)
    return rates


def _requests(fair: float) -> int:
    return max(1, round(fair * 10))


def _silence(reading: Reading, worker: WorkerReading) -> float:
    return reading.moment - worker.now.at if reading.is_settled(worker) else 0.0


def _stopped(reading: Reading, silent: Sequence[WorkerReading]) -> Finding:
    seconds = max(_silence(reading, worker) for worker in silent)
    pids = ", ".join(str(worker.pid) for worker in silent)
    return Finding(
        id="event-loop-blocked",
        severity=Severity.CRITICAL,
        evidence=(
            f"The event loop of {reading.workers_of(len(silent))} has stopped: "
            f"{'worker' if len(silent) == 1 else 'workers'} {pids} reported nothing for up to "
            f"{seconds:.0f} s."
        ),
        remedy=f"Look at its stack trace (py-spy dump --pid {silent[0].pid}). {_tracing(LATE)}",
    )


def _late(reading: Reading, worker: WorkerReading) -> list[Sample]:
    return [
        sample
        for sample in reading.recent(worker, 60)
        if sample.loop_late > LATE and sample.at - worker.started >= SETTLED_AGE
    ]


def _is_blocked(late: Sequence[Sample]) -> bool:
    return len(late) >= LATE_SAMPLES or any(sample.loop_late > VERY_LATE for sample in late)


def _tracing(seconds: float) -> str:
    return (
        "Set PYTHONASYNCIODEBUG to 1 in a test environment and loop.slow_callback_duration to "
        f"{seconds:.1f}, which logs blocking code; move that to a thread by asyncio.to_thread()."
    )
