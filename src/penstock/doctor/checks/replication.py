"""Checks of replication, of the write-ahead log and of its archive."""

from penstock.doctor.check import (
    Check,
    NotKnown,
    Observation,
    Query,
    Rows,
    listed,
    literal,
    number_of,
    size,
    span,
)
from penstock.findings import Severity

SLOTS = Query("slots")
STANDBY = Query("standby", on_replica=True)
LARGE_SLOT = 10 * 1024**3
LAG_BYTES, LAG_SECONDS = 16 * 1024**2, 10.0
REQUESTED_CHECKPOINTS = 10
BUFFERS_FULL, BUFFERS_FULL_SHARE = 1000, 0.01


def _drop_slot(slot: str) -> str:
    return f"SELECT pg_drop_replication_slot({literal(slot)});"


def _inactive_slot(rows: Rows) -> Observation | None:
    found = [row for row in rows if not row["is_active"] and row["wal_status"] != "lost"]
    if not found:
        return None
    kept = sum(row["kept_bytes"] for row in found)
    named = [f"{row['slot']} ({size(row['kept_bytes'])})" for row in found]
    return Observation(
        Severity.CRITICAL if kept > LARGE_SLOT else Severity.WARNING,
        f"{number_of(len(found), 'replication slot')} that nobody reads: {listed(named)}.",
        "The server keeps the write-ahead log for them until its disk is full. Start the reader, "
        "or drop the slot.",
        tuple(_drop_slot(row["slot"]) for row in found),
    )


def _lost_slot(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["wal_status"] in ("lost", "unreserved")]
    if not found:
        return None
    return Observation(
        Severity.CRITICAL,
        f"{number_of(len(found), 'replication slot')} without what the reader needs: "
        f"{listed([row['slot'] + ' is ' + row['wal_status'] for row in found])}.",
        "The reader of a lost slot must be built anew; raise max_slot_wal_keep_size for others.",
        tuple(_drop_slot(row["slot"]) for row in found if row["wal_status"] == "lost"),
    )


def _unlimited_slot(rows: Rows) -> Observation | None:
    if not rows or not rows[0]["is_unlimited"]:
        return None
    return Observation(
        Severity.WARNING,
        f"max_slot_wal_keep_size is -1 with {number_of(len(rows), 'replication slot')}.",
        "A reader that stops fills the disk. Set what the disk can spare.",
        ("ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';", "SELECT pg_reload_conf();"),
    )


def _lag(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if row["lag_bytes"] > LAG_BYTES or (row["lag_bytes"] and row["lag_seconds"] > LAG_SECONDS)
    ]
    if not found:
        return None
    named = [
        f"{row['replica']} by {size(row['lag_bytes'])} ({span(row['lag_seconds'])})"
        for row in found
    ]
    return Observation(
        Severity.WARNING,
        f"{number_of(len(found), 'replica')} behind: {listed(named)}.",
        "If sent_lsn lags, it is the network; if only replay_lsn lags, a query on the replica, for "
        "which max_standby_streaming_delay is too long.",
        ("SELECT application_name, sent_lsn, replay_lsn FROM pg_stat_replication;",),
    )


def _synchronous(rows: Rows) -> Observation | None:
    row = rows[0]
    if not row["named"] or row["present"] or row["synchronous_commit"] in ("off", "local"):
        return None
    return Observation(
        Severity.CRITICAL,
        f"synchronous_standby_names is {row['named']}, and no synchronous standby is connected: "
        "every COMMIT waits for one.",
        "Start the standby, or take it out of synchronous_standby_names until it is back.",
        ("ALTER SYSTEM SET synchronous_standby_names = '';", "SELECT pg_reload_conf();"),
    )


def _paused(rows: Rows) -> Observation | None:
    if not rows[0]["is_paused"]:
        return None
    return Observation(
        Severity.WARNING,
        f"Replay is paused; {size(rows[0]['waiting_bytes'])} wait to be replayed.",
        "Reads here return old data until it goes on.",
        ("SELECT pg_wal_replay_resume();",),
    )


def _behind(rows: Rows) -> Observation | None:
    row = rows[0]
    if row["waiting_bytes"] <= LAG_BYTES:
        return None
    return Observation(
        Severity.WARNING,
        f"This replica has not replayed {size(row['waiting_bytes'])} that it has received; its "
        f"last transaction is {span(row['seconds'])} old.",
        "A query here may hold replay back for up to max_standby_streaming_delay.",
    )


def _receiver(rows: Rows) -> Observation | None:
    if rows[0]["is_streaming"] is None:
        raise NotKnown("this role sees no primary_conninfo")
    if not rows[0]["is_streaming"] or rows[0]["receivers"]:
        return None
    return Observation(
        Severity.CRITICAL,
        "This replica has a primary_conninfo and no WAL receiver: it gets nothing new.",
        "The server's log says why it cannot connect to the primary, or whether the log that it "
        "needs is gone there.",
    )


def _conflicts(rows: Rows) -> Observation | None:
    if not rows:
        return None
    kinds = ("tablespace", "lock", "snapshot", "bufferpin", "deadlock")
    named = [
        f"{row[f'confl_{kind}']} by {kind} in {row['database']}"
        for row in rows
        for kind in kinds
        if row[f"confl_{kind}"]
    ]
    return Observation(
        Severity.WARNING,
        f"Statements were cancelled because replay was in their way: {listed(named)}.",
        "Let reads be repeated; hot_standby_feedback = on avoids those by snapshot, at the price "
        "of dead rows on the primary.",
    )


def _subscription(rows: Rows) -> Observation | None:
    if not rows:
        return None
    named = [
        f"{row['subscription']}: {row['apply_error_count']} while applying, "
        f"{row['sync_error_count']} while copying"
        for row in rows
    ]
    return Observation(
        Severity.WARNING,
        f"Subscriptions with errors: {listed(named)}.",
        "The server's log has each error; replication stands still until its cause is gone.",
        tuple(f"ALTER SUBSCRIPTION {row['subscription']} SKIP (lsn = '...');" for row in rows[:20]),
    )


def _archive(rows: Rows) -> Observation | None:
    row = rows[0]
    if not row["failed_count"]:
        return None
    if row["is_failing"]:
        return Observation(
            Severity.CRITICAL,
            f"Archiving fails: {row['failed_count']} attempts, the last at {row['last_failed']}.",
            "The server keeps what is not archived until its disk is full, and backups have a gap. "
            "Its log says what archive_command answered.",
        )
    return Observation(
        Severity.INFO,
        f"Archiving failed {row['failed_count']} times, and works now.",
        "The server's log has the failures.",
    )


def _checkpoints(rows: Rows) -> Observation | None:
    row = rows[0]
    if row["requested"] < REQUESTED_CHECKPOINTS or row["requested"] <= row["timed"]:
        return None
    return Observation(
        Severity.WARNING,
        f"{row['requested']} checkpoints were requested and {row['timed']} were due by time within "
        f"{row['hours']:.1f} h, with max_wal_size {row['max_wal_size']}.",
        "Each writes whole pages to the log again. Raise max_wal_size.",
        ("ALTER SYSTEM SET max_wal_size = '4GB';", "SELECT pg_reload_conf();"),
    )


def _wal_buffers(rows: Rows) -> Observation | None:
    row = rows[0]
    full, records = row["wal_buffers_full"], row["wal_records"]
    if full < BUFFERS_FULL or full <= records * BUFFERS_FULL_SHARE:
        return None
    return Observation(
        Severity.INFO,
        f"{full:,} of {records:,} records of the write-ahead log found its buffers full "
        f"(wal_buffers {row['wal_buffers']}).",
        "Set wal_buffers to 16MB, and restart.",
        ("ALTER SYSTEM SET wal_buffers = '16MB'; -- and restart",),
    )


CHECKS = (
    Check(
        "inactive-slot",
        "Replication slots without a reader",
        "warning, critical where they keep more than 10 GiB",
        SLOTS,
        _inactive_slot,
    ),
    Check(
        "lost-slot",
        "Replication slots that lost their log",
        "critical where wal_status is unreserved or lost",
        SLOTS,
        _lost_slot,
    ),
    Check(
        "unlimited-slot",
        "What slots may keep",
        "warning where there are slots and max_slot_wal_keep_size is -1",
        SLOTS,
        _unlimited_slot,
    ),
    Check(
        "replication-lag",
        "Replicas of this server",
        "warning above 16 MiB, or above 10 s with at least one byte",
        Query("replicas", shows_own_sessions_only=True),
        _lag,
    ),
    Check(
        "synchronous-standby",
        "Synchronous standbys",
        "critical where one is named and none is connected",
        Query("synchronous", shows_own_sessions_only=True, on_replica=False),
        _synchronous,
    ),
    Check("replay-paused", "Paused replay", "warning on a paused replica", STANDBY, _paused),
    Check(
        "replay-lag",
        "Replay on this replica",
        "warning above 16 MiB received and not replayed",
        STANDBY,
        _behind,
    ),
    Check(
        "wal-receiver",
        "The replica's link to its primary",
        "critical where primary_conninfo is set and no WAL receiver runs",
        STANDBY,
        _receiver,
    ),
    Check(
        "replication-conflicts",
        "Statements cancelled by replay",
        "warning for any since the statistics began",
        Query("conflicts", on_replica=True),
        _conflicts,
    ),
    Check(
        "subscription-errors",
        "Logical replication",
        "warning for errors while applying or copying",
        Query("subscriptions", since=15),
        _subscription,
    ),
    Check(
        "archive-failures",
        "Archiving",
        "critical where the last attempt failed, info where it works again",
        Query("archiver"),
        _archive,
    ),
    Check(
        "requested-checkpoints",
        "Checkpoints",
        "warning from 10 requested ones on, if they are more than those due by time",
        Query("checkpoints", since=17),
        _checkpoints,
    ),
    Check(
        "wal-buffers",
        "Buffers of the write-ahead log",
        "info from 1,000 waits on, if they are more than 1 % of the records",
        Query("wal", since=14),
        _wal_buffers,
    ),
)
