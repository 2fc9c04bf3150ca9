"""Checks of what each database has counted since its statistics began."""

import re
from collections.abc import Callable

from penstock.doctor.check import (
    Check,
    NotKnown,
    Observation,
    Query,
    Row,
    Rows,
    listed,
    literal,
    number_of,
    size,
)
from penstock.findings import Severity

DATABASES = Query("databases")
READ_BLOCKS, HIT_RATIO, LOW_HIT_RATIO = 100_000, 0.99, 0.95
DEADLOCKS, DEADLOCKS_PER_HOUR = 5, 1.0
FEW_SESSIONS, SHARE_OF_SESSIONS = 10, 0.01
TEMP_PER_HOUR = 1024**3
TRANSACTIONS, ROLLED_BACK = 1000, 0.1
XID_WARNING, XID_CRITICAL = 800_000_000, 1_500_000_000
SLRU_READS, SLRU_HIT_RATIO = 10_000, 0.99


def _each(rows: Rows, column: str, noun: str) -> str:
    most = sorted(rows, key=lambda row: -row[column])
    return listed([f"{row[column]:,} {noun} {row['database']}" for row in most])


def _own(rows: Rows) -> Row:
    return next(row for row in rows if row["is_own"])


def _checksums(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["checksum_failures"]]
    if not found:
        return None
    return Observation(
        Severity.CRITICAL,
        f"Pages with a wrong checksum: {_each(found, 'checksum_failures', 'in')}.",
        "The storage returns other bytes than were written. Stop writing, restore the last good "
        "backup elsewhere, and test the disks and the memory.",
    )


def _cache(rows: Rows) -> Observation | None:
    row = _own(rows)
    read, hit = row["blks_read"], row["blks_hit"]
    if read < READ_BLOCKS or hit / (read + hit) >= HIT_RATIO:
        return None
    ratio = hit / (read + hit)
    return Observation(
        Severity.WARNING if ratio < LOW_HIT_RATIO else Severity.INFO,
        f"{ratio:.1%} of the pages were in shared_buffers; {read:,} were read.",
        "Find the statements that read most (pg_stat_statements, shared_blks_read), before you "
        "raise shared_buffers.",
    )


def _deadlocks(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["deadlocks"]]
    if not found:
        return None
    often = any(
        row["deadlocks"] >= DEADLOCKS and row["deadlocks"] / row["hours"] > DEADLOCKS_PER_HOUR
        for row in found
    )
    return Observation(
        Severity.WARNING if often else Severity.INFO,
        f"Deadlocks: {_each(found, 'deadlocks', 'in')}, within "
        f"{max(row['hours'] for row in found):.1f} h.",
        "The server's log names both statements. Lock rows in one order (ORDER BY ... FOR UPDATE).",
    )


def _ended(column: str, what: str, remedy: str) -> Callable[[Rows], Observation | None]:
    def rule(rows: Rows) -> Observation | None:
        found = [
            row
            for row in rows
            if row[column] >= FEW_SESSIONS and row[column] > row["sessions"] * SHARE_OF_SESSIONS
        ]
        if not found:
            return None
        named = [
            f"{row[column]:,} of {row['sessions']:,} in {row['database']} "
            f"({row[column] / max(1, row['sessions']):.0%})"
            for row in found
        ]
        return Observation(Severity.WARNING, f"Sessions that {what}: {listed(named)}.", remedy)

    return rule


def _temporary(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["temp_bytes"] and row["is_own"] is not None]
    hourly = {row["database"]: row["temp_bytes"] / max(row["hours"], 1) for row in found}
    if not any(rate > TEMP_PER_HOUR for rate in hourly.values()):
        return None
    named = [
        f"{size(row['temp_bytes'])} in {row['temp_files']:,} files in {row['database']}"
        for row in found
    ]
    return Observation(
        Severity.WARNING,
        f"Sorts and hashes did not fit into work_mem: {listed(named)}, "
        f"{size(max(hourly.values()))} per hour.",
        "Log them (log_temp_files = '10MB') and give those statements more work_mem, or an index.",
        ("ALTER SYSTEM SET log_temp_files = '10MB';", "SELECT pg_reload_conf();"),
    )


def _rolled_back(rows: Rows) -> Observation | None:
    row = _own(rows)
    back, total = row["xact_rollback"], row["xact_rollback"] + row["xact_commit"]
    if total < TRANSACTIONS or back <= total * ROLLED_BACK:
        return None
    return Observation(
        Severity.INFO,
        f"{back:,} of {total:,} transactions were rolled back ({back / total:.0%}).",
        "Read-only transactions that end with ROLLBACK are among them. If others are, the server's "
        "log has their errors.",
    )


def _age(column: str, what: str, minimum: str, age: str) -> Callable[[Rows], Observation | None]:
    oldest = (
        f"SELECT oid::regclass, {age}({minimum}) FROM pg_class WHERE relkind IN ('r', 'm', 't') "  # noqa: S608 - two names
        "ORDER BY 2 DESC LIMIT 10;"
    )

    def rule(rows: Rows) -> Observation | None:
        found = sorted((row for row in rows if row[column] > XID_WARNING), key=lambda r: -r[column])
        if not found:
            return None
        named = [f"{row['database']} {row[column]:,}" for row in found]
        left = 2**31 - found[0][column]
        return Observation(
            Severity.CRITICAL if found[0][column] > XID_CRITICAL else Severity.WARNING,
            f"Old {what} ids: {listed(named)}; {left:,} are left until writes are refused.",
            "Find what holds vacuum back (long transactions, slots, prepared transactions), then "
            f"vacuum the tables with the oldest {minimum}.",
            (oldest, "VACUUM (FREEZE, VERBOSE) ...;"),
        )

    return rule


def _fsyncs(rows: Rows) -> Observation | None:
    count = rows[0]["fsyncs"]
    if not count:
        return None
    return Observation(
        Severity.WARNING,
        f"Clients' processes did {number_of(count, 'fsync')} themselves.",
        "The checkpointer does not keep up: raise max_wal_size and checkpoint_timeout, or use "
        "faster disks.",
    )


def _slru(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if row["blks_read"] > SLRU_READS
        and row["blks_hit"] < (row["blks_hit"] + row["blks_read"]) * SLRU_HIT_RATIO
    ]
    if not found:
        return None
    named = [f"{row['cache']} read {row['blks_read']:,} pages" for row in found]
    return Observation(
        Severity.WARNING,
        f"Caches of transaction states are too small: {listed(named)}.",
        "Use fewer savepoints and fewer shared row locks, shorten transactions; from PostgreSQL 17 "
        "on, raise subtransaction_buffers or multixact_member_buffers.",
    )


def _forgotten(rows: Rows) -> Observation | None:
    row = rows[0]
    if not row["forgotten"] or row["forgotten"] / row["hours"] < 1:
        return None
    return Observation(
        Severity.INFO,
        f"pg_stat_statements forgot statements {row['forgotten']:,} times within "
        f"{row['hours']:.1f} h; it keeps {row['most']}.",
        "Raise pg_stat_statements.max, or have statements written with parameters instead of "
        "values and of lists of varying length.",
    )


def _no_statements(rows: Rows) -> Observation | None:
    if any(row["extension"] == "pg_stat_statements" for row in rows):
        return None
    # Only who may see the libraries is told which ones to load: a list without one would unload it.
    loaded = [
        name for row in rows[:1] for name in re.split(r"[\s,]+", row["preloaded"] or "") if name
    ]
    is_known = bool(rows) and rows[0]["preloaded"] is not None
    libraries = ", ".join(literal(name) for name in [*loaded, "pg_stat_statements"])
    preload = f"ALTER SYSTEM SET shared_preload_libraries = {libraries}; -- and restart"
    return Observation(
        Severity.INFO,
        "pg_stat_statements is not installed in this database.",
        "Without it nobody can say which statement costs the server most. It must be in "
        "shared_preload_libraries, which needs a restart.",
        (
            *((preload,) if is_known and "pg_stat_statements" not in loaded else ()),
            "CREATE EXTENSION pg_stat_statements;",
        ),
    )


def _outdated(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["available"] and row["installed"] != row["available"]]
    if not found:
        return None
    named = [f"{row['extension']} {row['installed']} to {row['available']}" for row in found]
    return Observation(
        Severity.INFO,
        f"{number_of(len(found), 'extension')} in another version than the server has: "
        f"{listed(named)}.",
        "Update them.",
        tuple(f'ALTER EXTENSION "{row["extension"]}" UPDATE;' for row in found),
    )


def _collation(rows: Rows) -> Observation | None:
    if not rows:
        return None
    named = [f"{row['database']} {row['built_with']}, now {row['actual']}" for row in rows]
    return Observation(
        Severity.CRITICAL,
        f"Indexes on text were built with another collation version: {listed(named)}.",
        "They may be out of order, and unique ones may have duplicates. Rebuild them, then refresh "
        "the version.",
        tuple(
            statement
            for row in rows
            for statement in (
                f"REINDEX DATABASE CONCURRENTLY {row['database']}; -- connected to it",
                f"ALTER DATABASE {row['database']} REFRESH COLLATION VERSION;",
            )
        ),
    )


EXTENSIONS = Query("extensions")
WRAPAROUND = Query("wraparound")


def _needs_checksums(rows: Rows) -> Observation | None:
    if not any(row["name"] == "data_checksums" for row in rows):
        raise NotKnown("the server has no data_checksums")
    if any(row["name"] == "data_checksums" and row["value"] == "on" for row in rows):
        return None
    return Observation(
        Severity.INFO,
        "data_checksums is off: pages that the storage has changed are not noticed.",
        "With the server stopped: pg_checksums --enable.",
    )


CHECKS = (
    Check(
        "checksum-failures",
        "Wrong checksums",
        "critical for any",
        DATABASES,
        _checksums,
    ),
    Check(
        "checksums-off",
        "Data checksums",
        "info where they are off",
        Query("settings"),
        _needs_checksums,
    ),
    Check(
        "cache-hit-ratio",
        "Pages found in memory",
        "info below 99 %, warning below 95 %, from 100,000 pages read on",
        DATABASES,
        _cache,
    ),
    Check(
        "deadlocks",
        "Deadlocks",
        "info for any, warning from five on if more than one per hour",
        DATABASES,
        _deadlocks,
    ),
    Check(
        "abandoned-sessions",
        "Sessions whose client vanished",
        "warning from 10 on, if more than 1 % of all",
        DATABASES,
        _ended(
            "sessions_abandoned",
            "lost their client",
            "Clients were killed or the network dropped them: look at restarts, memory limits, and "
            "idle timeouts of proxies (DATABASE_PROXY).",
        ),
    ),
    Check(
        "killed-sessions",
        "Sessions that were terminated",
        "warning from 10 on, if more than 1 % of all",
        DATABASES,
        _ended(
            "sessions_killed",
            "were terminated by an administrator or a failover",
            "Find out what calls pg_terminate_backend; to the service each is a lost connection.",
        ),
    ),
    Check(
        "fatal-sessions",
        "Sessions that ended by an error",
        "warning from 10 on, if more than 1 % of all",
        DATABASES,
        _ended(
            "sessions_fatal",
            "ended by a fatal error",
            "The server's log has each FATAL: timeouts of idle transactions and sessions are among "
            "them.",
        ),
    ),
    Check(
        "temporary-files",
        "Temporary files",
        "warning above 1 GiB per hour",
        DATABASES,
        _temporary,
    ),
    Check(
        "rollback-share",
        "Transactions that were rolled back",
        "info above 10 % of 1,000 or more",
        DATABASES,
        _rolled_back,
    ),
    Check(
        "transaction-wraparound",
        "Age of transaction ids",
        "warning above 800 million, critical above 1.5 billion, of 2.1 billion",
        WRAPAROUND,
        _age("transactions", "transaction", "relfrozenxid", "age"),
    ),
    Check(
        "multixact-wraparound",
        "Age of multixact ids",
        "warning above 800 million, critical above 1.5 billion, of 2.1 billion",
        WRAPAROUND,
        _age("multixacts", "multixact", "relminmxid", "mxid_age"),
    ),
    Check(
        "backend-fsyncs",
        "Clients that write to disk themselves",
        "warning for any fsync of a client's process",
        Query("backend_fsyncs", since=16),
        _fsyncs,
    ),
    Check(
        "slru-reads",
        "Caches of transaction states",
        "warning below 99 % found in memory, from 10,000 reads on",
        Query("slru"),
        _slru,
    ),
    Check(
        "statement-statistics",
        "pg_stat_statements",
        "info where it is not installed",
        EXTENSIONS,
        _no_statements,
    ),
    Check(
        "forgotten-statements",
        "What pg_stat_statements forgot",
        "info where it forgets once an hour or more often",
        Query("statement_statistics", extension="pg_stat_statements"),
        _forgotten,
    ),
    Check(
        "outdated-extension",
        "Versions of extensions",
        "info where the server has another version than is installed",
        EXTENSIONS,
        _outdated,
    ),
    Check(
        "collation-version",
        "Versions of collations",
        "critical where a database was built with another",
        Query("collations", since=15),
        _collation,
    ),
)
