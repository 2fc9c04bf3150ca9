"""Checks of PgBouncer, by what its console shows."""

import re
from collections.abc import Callable

from penstock.doctor.check import Check, NotKnown, Observation, Query, Rows, listed
from penstock.doctor.known_faults import PGBOUNCER
from penstock.findings import Severity

VERSION = Query("SHOW VERSION", of_pgbouncer=True)
CONFIG = Query("SHOW CONFIG", of_pgbouncer=True)
POOLS = Query("SHOW POOLS", of_pgbouncer=True)
DATABASES = Query("SHOW DATABASES", of_pgbouncer=True)
FOLLOWS_STATEMENTS = (1, 21, 0)
LONG_WAIT, VERY_LONG_WAIT = 1.0, 10.0


def _faults(rows: Rows) -> Observation | None:
    text = str(rows[0]["version"])
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if numbers is None:
        raise NotKnown(f"PgBouncer calls its version {text}")
    version = tuple(map(int, numbers.groups()))
    found = [fault for fault in PGBOUNCER if fault.has(version)]
    if not found:
        return None
    worst = max(found, key=lambda fault: list(Severity).index(fault.severity))
    more = f" It has {len(found)} such faults." if len(found) > 1 else ""
    fixed = ".".join(map(str, max(fault.fixed_in for fault in found)))
    return Observation(
        worst.severity,
        f"{text} has a known fault: {worst.fault} ({worst.source}).{more}",
        f"Update to {fixed} or later.",
    )


def _waiting(rows: Rows) -> Observation | None:
    found = [
        (row, float(row["maxwait"]) + float(row.get("maxwait_us", 0)) / 1e6)
        for row in rows
        if int(row["cl_waiting"]) > 0
    ]
    found = [(row, wait) for row, wait in found if wait > LONG_WAIT]
    if not found:
        return None
    longest = max(wait for _, wait in found)
    named = [
        f"{row['cl_waiting']} of {row['user']} on {row['database']} for {wait:.1f} s, "
        f"{row['sv_active']} server connections busy"
        for row, wait in found
    ]
    return Observation(
        Severity.CRITICAL if longest > VERY_LONG_WAIT else Severity.WARNING,
        f"Clients wait for a server connection: {listed(named)}.",
        "Find what holds them (long transactions); raise default_pool_size while the server has "
        "CPU to spare.",
        ("SHOW SERVERS;",),
    )


def _paused(rows: Rows) -> Observation | None:
    found = [
        str(row["name"])
        for row in rows
        if str(row.get("paused", "0")) == "1" or str(row.get("disabled", "0")) == "1"
    ]
    if not found:
        return None
    return Observation(
        Severity.WARNING,
        f"Databases that are paused or disabled: {listed(found)}.",
        "Clients wait, or are refused, until they are resumed.",
        tuple(f"RESUME {name};" for name in found),
    )


def _stopped(rows: Rows) -> Observation | None:
    found = [
        str(row["key"])
        for row in rows
        if row["key"] in ("paused", "suspended") and row["value"] == "yes"
    ]
    if not found:
        return None
    return Observation(
        Severity.CRITICAL,
        f"All of PgBouncer is {listed(found)}: no client is served.",
        "It stays so until somebody resumes it.",
        ("RESUME;",),
    )


def _nearly_full(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if int(row["pool_size"]) > 0
        and int(row.get("max_connections") or 0) > 0
        and int(row["current_connections"]) >= int(row["max_connections"])
    ]
    if not found:
        return None
    named = [
        f"{row['name']} {row['current_connections']} of {row['max_connections']}" for row in found
    ]
    return Observation(
        Severity.WARNING,
        f"Databases with all of their max_db_connections open: {listed(named)}.",
        "Raise max_db_connections, or lower default_pool_size of the users that share it.",
    )


def _config(  # noqa: PLR0917 - each call is the row of a table
    id_: str,
    key: str,
    is_wrong: Callable[[str], bool],
    severity: Severity,
    reports: str,
    remedy: str,
    better: str = "",
) -> Check:
    def rule(rows: Rows) -> Observation | None:
        value = next((str(row["value"] or "") for row in rows if row["key"] == key), None)
        if value is None:
            raise NotKnown(f"this PgBouncer has no {key}")
        if not is_wrong(value):
            return None
        return Observation(
            severity,
            f"{key} is {value or 'empty'}.",
            remedy,
            (f"SET {key} = '{better}';",) if better else (),
        )

    return Check(id_, f"PgBouncer's {key}", f"{severity.value} {reports}", CONFIG, rule)


def _number(value: str) -> float:
    return float(value or 0)


CHECKS = (
    Check(
        "pgbouncer-version",
        "Versions of PgBouncer with known faults",
        "warning or critical, as grave as the fault",
        VERSION,
        _faults,
    ),
    Check(
        "pgbouncer-waiting",
        "Clients that wait in PgBouncer",
        "warning above 1 s, critical above 10 s",
        POOLS,
        _waiting,
    ),
    Check(
        "pgbouncer-paused",
        "Paused databases of PgBouncer",
        "warning for any that is paused or disabled",
        DATABASES,
        _paused,
    ),
    Check(
        "pgbouncer-stopped",
        "A PgBouncer that is paused or suspended",
        "critical while all of it is",
        Query("SHOW STATE", of_pgbouncer=True),
        _stopped,
    ),
    Check(
        "pgbouncer-database-limit",
        "Limits of PgBouncer's databases",
        "warning where all of max_db_connections are open",
        DATABASES,
        _nearly_full,
    ),
    _config(
        "pgbouncer-pool-mode",
        "pool_mode",
        lambda value: value == "statement",
        Severity.WARNING,
        "where it is statement",
        "Transactions of several statements are refused. Use transaction.",
        "transaction",
    ),
    _config(
        "pgbouncer-session-mode",
        "pool_mode",
        lambda value: value == "session",
        Severity.INFO,
        "where it is session",
        "Each client keeps a server connection for as long as it is connected: pools that keep "
        "theirs open share nothing. Use transaction.",
        "transaction",
    ),
    _config(
        "pgbouncer-prepared-statements",
        "max_prepared_statements",
        lambda value: _number(value) == 0,
        Severity.WARNING,
        "where it is 0; before 1.21 PgBouncer has none",
        "Drivers that prepare by name fail or read other rows. Penstock prepares nothing by name "
        "with DATABASE_PROXY=pgbouncer; with 200, its caches could be used.",
        "200",
    ),
    _config(
        "pgbouncer-reset-query",
        "server_reset_query_always",
        lambda value: value == "1",
        Severity.INFO,
        "where it is 1",
        "Each transaction costs one more round trip to the server, and prepared statements go.",
        "0",
    ),
    _config(
        "pgbouncer-no-reset-query",
        "server_reset_query",
        lambda value: not value,
        Severity.WARNING,
        "where it is empty",
        "In session mode the next client gets what the last has set, locked and prepared.",
        "DISCARD ALL",
    ),
    _config(
        "pgbouncer-query-wait-timeout",
        "query_wait_timeout",
        lambda value: not 0 < _number(value) <= 60,
        Severity.INFO,
        "where it is 0 or above 60 s",
        "A client waits that long for a server connection. Let it be about pool_timeout.",
        "30",
    ),
    _config(
        "pgbouncer-pool-size",
        "default_pool_size",
        lambda value: _number(value) > 100,
        Severity.WARNING,
        "above 100",
        "So many busy connections make the server slower, not faster.",
        "20",
    ),
    _config(
        "pgbouncer-login-retry",
        "server_login_retry",
        lambda value: _number(value) > 5,
        Severity.INFO,
        "above 5 s",
        "After a failed login to the server, clients wait as long before it is tried again.",
        "1",
    ),
    _config(
        "pgbouncer-idle-transaction-timeout",
        "idle_transaction_timeout",
        lambda value: _number(value) == 0,
        Severity.INFO,
        "where it is 0",
        "A client that forgot its transaction keeps a server connection for ever.",
        "60",
    ),
    _config(
        "pgbouncer-authentication",
        "auth_type",
        lambda value: value in ("any", "trust", "plain", "md5"),
        Severity.WARNING,
        "where it is any, trust, plain or md5",
        "Use scram-sha-256.",
    ),
)
