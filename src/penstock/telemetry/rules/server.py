"""Rules about the server: its connections and its replicas."""

from collections.abc import Sequence
from math import floor, isfinite
from statistics import median

from penstock.findings import Finding, Severity
from penstock.telemetry.reading import Reading
from penstock.telemetry.rules.capacity import (
    UTILISATION,
    bounded,
    of_others,
    own_connections,
    smaller_pool,
    usable,
)
from penstock.telemetry.rules.rule import is_settled, recent
from penstock.telemetry.sample import Sample

__all__ = ["pool_exceeds_server", "replica_lag", "server_connections"]

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
