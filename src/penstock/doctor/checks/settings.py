"""Checks of the server's settings."""

from collections.abc import Callable

from penstock.doctor.check import (
    Check,
    NotKnown,
    Observation,
    Query,
    Row,
    Rows,
    listed,
    number_of,
    size,
)
from penstock.findings import Severity

SETTINGS = Query("settings")
INFO, WARNING, CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL

_UNITS = {"B": 1, "kB": 1024, "8kB": 8192, "16MB": 16 * 1024**2, "MB": 1024**2, "GB": 1024**3}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
MIB = 1024**2


def row_of(rows: Rows, name: str) -> Row:
    """Return the row of a setting.

    Raises:
        NotKnown: There is none.
    """
    for row in rows:
        if row["name"] == name:
            return row
    raise NotKnown(f"this role sees no setting {name} on this server")


def number(row: Row, column: str = "value") -> float:
    """Return a setting's number, in bytes or seconds where it has such a unit."""
    unit = row["unit"]
    return float(row[column]) * _UNITS.get(unit, _SECONDS.get(unit, 1.0))


def shown(row: Row) -> str:
    """Return a setting's value as a person reads it."""
    unit = row["unit"]
    if unit in _UNITS and float(row["value"]) >= 0:
        return size(number(row))
    return f"{row['value']} {unit}".strip()


def applied(name: str, value: str, *, restarts: bool, set_for: str = "") -> tuple[str, ...]:
    """Return the statements that change a setting, where it is set: it may be for a role alone."""
    if set_for:
        return (f"ALTER {set_for} SET {name} = '{value}';",)
    change = f"ALTER SYSTEM SET {name} = '{value}';"
    return (f"{change} -- and restart",) if restarts else (change, "SELECT pg_reload_conf();")


def _check(  # noqa: PLR0917 - each call is the row of a table
    id_: str,
    name: str,
    is_wrong: Callable[[Row], bool],
    severity: Severity,
    reports: str,
    remedy: str,
    better: str = "",
    *,
    column: str = "value",
    restarts: bool = False,
) -> Check:
    """Return a check of one setting.

    Args:
        id_: Of the check.
        name: Of the setting.
        is_wrong: Whether its row tells a problem.
        severity: Of the problem.
        reports: When it is reported, behind the severity.
        remedy: What to do, and why.
        better: A value to set it to; empty where that depends.
        column: ``current`` where only that tells the value, as of what the system decides.
        restarts: Whether only a restart applies it.
    """

    def rule(rows: Rows) -> Observation | None:
        row = row_of(rows, name)
        if not is_wrong({**row, "value": row[column]}):
            return None
        evidence = f"{name} is {shown({**row, 'value': row[column]})}."
        sql = applied(name, better, restarts=restarts, set_for=row["set_for"]) if better else ()
        return Observation(severity, evidence, remedy, sql)

    return Check(id_, name, f"{severity.value} {reports}", SETTINGS, rule)


def _is(value: str) -> Callable[[Row], bool]:
    return lambda row: row["value"] == value


def _below(least: float) -> Callable[[Row], bool]:
    return lambda row: number(row) < least


def _above(most: float) -> Callable[[Row], bool]:
    return lambda row: number(row) > most


def _pending(rows: Rows) -> Observation | None:
    found = [row["name"] for row in rows if row["pending_restart"]]
    if not found:
        return None
    return Observation(
        WARNING,
        f"{number_of(len(found), 'setting')} changed in the file that only a restart will apply: "
        f"{listed(found)}.",
        "Restart when it suits, not when something else restarts the server.",
    )


def _names(rows: Rows) -> str:
    return listed([row["name"] for row in rows])


def _switched(rows: Rows, value: str) -> tuple[str, ...]:
    # Set, not reset: what a file says would be left.
    return tuple(
        statement
        for row in rows
        for statement in applied(row["name"], value, restarts=False, set_for=row["set_for"])
    )


_DAMAGE = ("zero_damaged_pages", "ignore_checksum_failure", "ignore_system_indexes")


def _damage(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["name"] in _DAMAGE and row["value"] == "on"]
    if not found:
        return None
    return Observation(
        CRITICAL,
        f"{_names(found)} is on for every session.",
        "Damage is hidden and made permanent. These are for saving what can be saved, in one "
        "session.",
        _switched(found, "off"),
    )


def _planner(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if row["name"].startswith("enable_")
        and not row["name"].startswith("enable_partitionwise")
        and row["value"] == "off"
    ]
    if not found:
        return None
    return Observation(
        WARNING,
        f"The planner may not use everything: {_names(found)} off for every session.",
        "Set such switches for the one statement that needs it.",
        _switched(found, "on"),
    )


def _keepalive(row: Row) -> bool:
    return number(row) > 600


CHECKS = (
    _check(
        "fsync-off",
        "fsync",
        _is("off"),
        CRITICAL,
        "where it is off",
        "A crash of the machine destroys the database.",
        "on",
    ),
    _check(
        "full-page-writes-off",
        "full_page_writes",
        _is("off"),
        CRITICAL,
        "where it is off",
        "A page that was half written when the machine crashed stays broken.",
        "on",
    ),
    _check(
        "synchronous-commit-off",
        "synchronous_commit",
        _is("off"),
        WARNING,
        "where it is off",
        "A crash loses the commits of the last moments, though clients were told that they were "
        "done. Set it for those transactions that can be lost.",
        "on",
    ),
    _check(
        "autovacuum-off",
        "autovacuum",
        _is("off"),
        CRITICAL,
        "where it is off",
        "Tables grow, statistics age, and in the end the server accepts no writes.",
        "on",
    ),
    _check(
        "track-counts-off",
        "track_counts",
        _is("off"),
        CRITICAL,
        "where it is off",
        "Autovacuum does not know where there is something to do.",
        "on",
    ),
    _check(
        "track-activities-off",
        "track_activities",
        _is("off"),
        WARNING,
        "where it is off",
        "pg_stat_activity does not say what sessions do.",
        "on",
    ),
    _check(
        "track-io-timing-off",
        "track_io_timing",
        _is("off"),
        INFO,
        "where it is off",
        "EXPLAIN and pg_stat_statements do not say how long reading took. pg_test_timing says what "
        "it costs: next to nothing on most machines.",
        "on",
    ),
    _check(
        "statement-timeout",
        "statement_timeout",
        _is("0"),
        INFO,
        "where it is 0",
        "A statement may run for ever. Services have command_timeout; others have nothing.",
        "60s",
    ),
    _check(
        "idle-in-transaction-timeout",
        "idle_in_transaction_session_timeout",
        _is("0"),
        INFO,
        "where it is 0",
        "A client that was forgotten keeps its locks for ever.",
        "60s",
    ),
    _check(
        "lock-timeout",
        "lock_timeout",
        _is("0"),
        INFO,
        "where it is 0",
        "A migration that waits for a lock blocks all that come after it. Set it there at least.",
        "10s",
    ),
    _check(
        "client-connection-check",
        "client_connection_check_interval",
        _is("0"),
        INFO,
        "where it is 0",
        "The statement of a killed client runs to its end. Penstock sets it for its connections.",
        "1s",
    ),
    _check(
        "tcp-keepalives",
        "tcp_keepalives_idle",
        _keepalive,
        INFO,
        "above 600 s, also where the system decides",
        "A firewall forgets connections sooner, and the server keeps them.",
        "300",
        column="current",
    ),
    _check(
        "log-lock-waits-off",
        "log_lock_waits",
        _is("off"),
        INFO,
        "where it is off",
        "The log does not say who waited for whom longer than deadlock_timeout.",
        "on",
    ),
    _check(
        "slow-statement-log",
        "log_min_duration_statement",
        _is("-1"),
        INFO,
        "where it is -1",
        "The log has no slow statement.",
        "1s",
    ),
    _check(
        "random-page-cost",
        "random_page_cost",
        lambda row: number(row) >= 4.0,
        INFO,
        "from 4 on",
        "That is for rotating disks: on SSDs and network storage the planner avoids indexes that "
        "would help.",
        "1.1",
    ),
    _check(
        "effective-io-concurrency",
        "effective_io_concurrency",
        _below(2),
        INFO,
        "below 2",
        "Bitmap scans read page after page; SSDs read hundreds at once.",
        "200",
    ),
    _check(
        "shared-buffers",
        "shared_buffers",
        _below(128 * MIB),
        INFO,
        "below 128 MiB",
        "A quarter of the memory is usual.",
        "256MB",
        restarts=True,
    ),
    _check(
        "maintenance-work-mem",
        "maintenance_work_mem",
        _below(64 * MIB),
        INFO,
        "below 64 MiB",
        "Vacuum and CREATE INDEX go over their data more often.",
        "64MB",
    ),
    _check(
        "work-mem",
        "work_mem",
        lambda row: number(row) >= 1024 * MIB,
        WARNING,
        "from 1 GiB on",
        "Each sort and hash of each session may take as much. Set it for the statement that needs "
        "it.",
        "16MB",
    ),
    _check(
        "max-connections",
        "max_connections",
        _above(500),
        WARNING,
        "above 500",
        "A server with four cores does its most with about ten busy connections. Put PgBouncer in "
        "front.",
        "200",
        restarts=True,
    ),
    _check(
        "max-wal-size",
        "max_wal_size",
        _below(1024 * MIB),
        INFO,
        "below 1 GiB",
        "Checkpoints come more often, and each writes whole pages to the log again.",
        "4GB",
    ),
    _check(
        "checkpoint-timeout",
        "checkpoint_timeout",
        _below(300),
        INFO,
        "below 5 min",
        "Checkpoints come more often, and each writes whole pages to the log again.",
        "5min",
    ),
    _check(
        "checkpoint-completion",
        "checkpoint_completion_target",
        _below(0.9),
        INFO,
        "below 0.9",
        "A checkpoint writes in a burst what it could spread.",
        "0.9",
    ),
    _check(
        "statistics-target",
        "default_statistics_target",
        lambda row: not 100 <= number(row) <= 1000,
        INFO,
        "below 100 and above 1,000",
        "Plans get worse below; above, planning and ANALYZE get slow. Set it for single columns.",
        "100",
    ),
    _check(
        "freeze-max-age",
        "autovacuum_freeze_max_age",
        _above(1_000_000_000),
        WARNING,
        "above one billion",
        "What is left until the server accepts no writes is then too little to vacuum in.",
        "200000000",
        restarts=True,
    ),
    _check(
        "password-encryption",
        "password_encryption",
        _is("md5"),
        WARNING,
        "where it is md5",
        "New passwords become MD5 hashes, which are deprecated and enough to log in.",
        "scram-sha-256",
    ),
    _check(
        "tls-off",
        "ssl",
        _is("off"),
        INFO,
        "where it is off",
        "Passwords and rows can be read on the network, if there is one in between.",
    ),
    Check(
        "pending-restart",
        "Settings that wait for a restart",
        "warning for any",
        SETTINGS,
        _pending,
    ),
    Check(
        "damage-ignored",
        "Switches that hide damage",
        f"critical where one of {', '.join(_DAMAGE)} is on",
        SETTINGS,
        _damage,
    ),
    Check(
        "planner-switches",
        "Switches of the planner",
        "warning where an enable_... is off for all sessions",
        SETTINGS,
        _planner,
    ),
)
