"""Checks of connections, transactions and locks."""

from collections import Counter

from penstock.doctor.check import (
    Check,
    Observation,
    Query,
    Row,
    Rows,
    identifier,
    listed,
    literal,
    number_of,
    span,
)
from penstock.findings import Severity

CONNECTIONS = Query("connections")
CONNECTION_STATES = Query("connections", shows_own_sessions_only=True)
LIMITS = Query("connection_limits")
SESSIONS = Query("sessions", shows_own_sessions_only=True)
BLOCKED = Query("blocked", shows_own_sessions_only=True)

NEARLY_FULL, FULL = 0.8, 0.95
IDLE_IN_TRANSACTION, LONG_IDLE_IN_TRANSACTION = 5.0, 60.0
LONG_TRANSACTION, VERY_LONG_TRANSACTION = 300.0, 3600.0
LONG_QUERY = 60.0
LONG_WAIT, VERY_LONG_WAIT = 1.0, 30.0
HORIZON_AGE = 10_000_000
LONG_PREPARED, VERY_LONG_PREPARED = 300.0, 3600.0
LONG_VACUUM = 3 * 3600.0
_IN_TRANSACTION = ("idle in transaction", "idle in transaction (aborted)")
_BY_HAND = ("psql", "pg_dump", "pg_dumpall", "pgAdmin", "DBeaver", "DataGrip", "penstock doctor")


def _limit(rows: Rows) -> Observation | None:
    total = sum(row["connections"] for row in rows)
    first = rows[0]
    accepted = first["accepted"] - first["superuser_reserved"] - first["reserved"]
    if total <= accepted * NEARLY_FULL:
        return None
    largest = [
        f"{row['connections']} of {row['application']} ({row['role']}, {row['state']})"
        for row in rows
    ]
    return Observation(
        Severity.CRITICAL if total > accepted * FULL else Severity.WARNING,
        f"{total} of {accepted} connections are in use (max_connections {first['accepted']} less "
        f"reserved ones): {listed(largest)}.",
        "Make the pools of the largest application smaller, end idle connections "
        "(--end-idle 10m --application NAME), or put PgBouncer in front.",
    )


def _own_limits(rows: Rows) -> Observation | None:
    near = [row for row in rows if row["connections"] >= max(1, row["accepted"] * NEARLY_FULL)]
    if not near:
        return None
    full = any(row["connections"] >= row["accepted"] * FULL for row in near)
    used = [
        f"{row['kind']} {row['name']} uses {row['connections']} of {row['accepted']}"
        for row in near
    ]
    return Observation(
        Severity.CRITICAL if full else Severity.WARNING,
        f"A connection limit is nearly used up: {listed(used)}.",
        "Raise the limit to what the pools of all workers may open, or make the pools smaller.",
        tuple(
            f"ALTER {row['kind'].upper()} {identifier(row['name'])} "
            f"CONNECTION LIMIT {max(row['accepted'], row['connections']) * 2};"
            for row in near
            if row["accepted"]
        ),
    )


def _idle(rows: Rows) -> Observation | None:
    idle = [row for row in rows if row["state"] == "idle" and row["unchanged"]]
    total = sum(row["unchanged"] for row in idle)
    if total < 10:
        return None
    share = total / rows[0]["accepted"]
    by = Counter[str]()
    for row in idle:
        by[row["application"]] += row["unchanged"]
    most = [f"{count} of {name}" for name, count in by.most_common()]
    return Observation(
        Severity.WARNING if share > 0.5 else Severity.INFO,
        f"{total} connections ({share:.0%} of max_connections) have been idle for more than 10 "
        f"min: {listed(most)}.",
        "Lower pool_size to what is used at the same time. "
        "--end-idle 10m --application NAME ends them now.",
    )


def _unnamed(rows: Rows) -> Observation | None:
    count = sum(row["connections"] for row in rows if row["is_unnamed"])
    if not count:
        return None
    return Observation(
        Severity.INFO,
        f"{number_of(count, 'connection')} have no application_name.",
        "Give each service one (DATABASE_APPLICATION_NAME), so that its connections can be found.",
    )


def _reserved(rows: Rows) -> Observation | None:
    if rows[0]["superuser_reserved"] >= 1:
        return None
    return Observation(
        Severity.WARNING,
        "superuser_reserved_connections is 0: when all connections are in use, nobody can look.",
        "Reserve three, and restart.",
        ("ALTER SYSTEM SET superuser_reserved_connections = 3; -- and restart",),
    )


def _sessions(row: Row) -> str:
    return f"pid {row['pid']} of {row['application']} ({row['role']})"


def _terminate(rows: Rows) -> tuple[str, ...]:
    return tuple(f"SELECT pg_terminate_backend({row['pid']});" for row in rows[:20])


def _look_and(function: str, pid: int) -> str:
    look = f"SELECT state, query FROM pg_stat_activity WHERE pid = {int(pid)};"  # noqa: S608 - a number
    return f"{look} -- SELECT {function}({pid});"


def _idle_in_transaction(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if row["state"] in _IN_TRANSACTION and row["state_seconds"] > IDLE_IN_TRANSACTION
    ]
    if not found:
        return None
    found.sort(key=lambda row: -row["state_seconds"])
    longest = found[0]["state_seconds"]
    named = [f"{_sessions(row)} for {span(row['state_seconds'])}" for row in found]
    return Observation(
        Severity.CRITICAL if longest > LONG_IDLE_IN_TRANSACTION else Severity.WARNING,
        f"{number_of(len(found), 'session')} idle in transaction for more than "
        f"{IDLE_IN_TRANSACTION:.0f} s: {listed(named)}.",
        "They keep locks and hold vacuum back. Find out what the code does between its statements; "
        "bound it with idle_in_transaction_session_timeout.",
        _terminate(found),
    )


def _long_transaction(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if row["kind"] == "client backend" and row["transaction_seconds"] > LONG_TRANSACTION
    ]
    if not found:
        return None
    named = [f"{_sessions(row)} for {span(row['transaction_seconds'])}" for row in found]
    longest = max(row["transaction_seconds"] for row in found)
    return Observation(
        Severity.CRITICAL if longest > VERY_LONG_TRANSACTION else Severity.WARNING,
        f"{number_of(len(found), 'transaction')} open for more than 5 min: {listed(named)}.",
        "Vacuum removes no row that died since they began. Commit in smaller steps.",
        _terminate(found),
    )


def _long_query(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if row["kind"] == "client backend"
        and row["state"] == "active"
        and row["query_seconds"] > LONG_QUERY
    ]
    if not found:
        return None
    found.sort(key=lambda row: -row["query_seconds"])
    named = [f"{_sessions(row)} for {span(row['query_seconds'])}" for row in found]
    return Observation(
        Severity.WARNING,
        f"{number_of(len(found), 'statement')} running for more than 60 s: {listed(named)}.",
        "Look at the statement and its plan; bound the service's with command_timeout.",
        tuple(_look_and("pg_cancel_backend", row["pid"]) for row in found[:20]),
    )


def _blocked(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["seconds"] > LONG_WAIT]
    if not found:
        return None
    blockers = sorted({pid for row in found for pid in row["blockers"] if pid})
    # Who blocks and waits for nobody is where the queue begins.
    roots = [pid for pid in blockers if pid not in {row["pid"] for row in rows}] or blockers
    longest = max(row["seconds"] for row in found)
    named = [
        f"pid {row['pid']} of {row['application']} by pid {', '.join(map(str, row['blockers']))}"
        for row in found
    ]
    return Observation(
        Severity.CRITICAL if longest > VERY_LONG_WAIT else Severity.WARNING,
        f"{number_of(len(found), 'session')} blocked by a lock, the longest for {span(longest)}: "
        f"{listed(named)}.",
        "Commit or end what holds the lock, and look at what it is doing.",
        tuple(_look_and("pg_terminate_backend", pid) for pid in roots[:20]),
    )


def _horizon(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["horizon_age"] > HORIZON_AGE]
    if not found:
        return None
    found.sort(key=lambda row: -row["horizon_age"])
    named = [f"{_sessions(row)}, {row['horizon_age']:,} transactions ago" for row in found]
    return Observation(
        Severity.WARNING,
        f"Vacuum may not remove what died since: {listed(named)}.",
        "End these transactions; replicas hold vacuum back by hot_standby_feedback.",
        _terminate(found),
    )


def _superusers(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if row["is_superuser"]
        and row["kind"] == "client backend"
        and not row["application"].startswith(_BY_HAND)
    ]
    if not found:
        return None
    by = Counter(f"{row['application']} as {row['role']}" for row in found)
    return Observation(
        Severity.WARNING,
        f"{number_of(len(found), 'connection')} of a superuser: "
        f"{listed([f'{count} of {name}' for name, count in by.most_common()])}.",
        "Give the service a role that owns its schema and nothing else: a superuser passes by "
        "row-level security and every grant.",
        ("CREATE ROLE app LOGIN PASSWORD '...' NOSUPERUSER;",),
    )


def _unencrypted(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["is_remote"] and row["is_encrypted"] is False]
    if not found:
        return None
    by = Counter(row["application"] for row in found)
    return Observation(
        Severity.WARNING,
        f"{number_of(len(found), 'connection')} from another machine without TLS: "
        f"{listed([f'{count} of {name}' for name, count in by.most_common()])}.",
        "Set DATABASE_TLS=verify-full in the service, and hostssl in pg_hba.conf.",
    )


def _subtransactions(rows: Rows) -> Observation | None:
    if not rows:
        return None
    named = [
        f"pid {row['pid']} of {row['application']} with {row['subtransactions']}" for row in rows
    ]
    return Observation(
        Severity.WARNING,
        f"{number_of(len(rows), 'transaction')} with more than 64 open subtransactions: "
        f"{listed(named)}.",
        "Every snapshot now looks them up on disk pages. Use fewer savepoints in one transaction "
        "(begin_nested() in a loop).",
    )


def _prepared(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["seconds"] > LONG_PREPARED]
    if not found:
        return None
    named = [f"{row['name']} of {row['role']} for {span(row['seconds'])}" for row in found]
    return Observation(
        Severity.CRITICAL if found[0]["seconds"] > VERY_LONG_PREPARED else Severity.WARNING,
        f"{number_of(len(found), 'prepared transaction')} not committed: {listed(named)}.",
        "They keep their locks, also across a restart. Commit or roll them back.",
        tuple(f"ROLLBACK PREPARED {literal(row['name'])};" for row in found[:20]),
    )


def _vacuum_running(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["seconds"] and row["seconds"] > LONG_VACUUM]
    if not found:
        return None
    named = [
        f"{row['relation'] or 'pid ' + str(row['pid'])} for {span(row['seconds'])}"
        f"{' to prevent wraparound' if row['prevents_wraparound'] else ''}"
        for row in found
    ]
    return Observation(
        Severity.WARNING,
        f"{number_of(len(found), 'autovacuum')} running for more than 3 h: {listed(named)}.",
        "Let it finish; give it more to do at once with autovacuum_vacuum_cost_limit, and more "
        "memory with maintenance_work_mem.",
        ("ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 2000;", "SELECT pg_reload_conf();"),
    )


def _vacuum_busy(rows: Rows) -> Observation | None:
    if not rows or len(rows) < rows[0]["workers"]:
        return None
    return Observation(
        Severity.INFO,
        f"All {rows[0]['workers']} autovacuum workers are busy.",
        "If that is so at most times, let each do more at once.",
        ("ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 2000;", "SELECT pg_reload_conf();"),
    )


CHECKS = (
    Check(
        "connection-limit",
        "Connections and max_connections",
        "warning above 80 % of the connections that are not reserved, critical above 95 %; by "
        "application, role and state",
        CONNECTIONS,
        _limit,
    ),
    Check(
        "own-connection-limit",
        "Limits of databases and roles",
        "warning from 80 % of a CONNECTION LIMIT on, critical from 95 %",
        LIMITS,
        _own_limits,
    ),
    Check(
        "idle-connections",
        "Idle connections",
        "info from 10 connections that are idle for more than 10 min, warning above half of "
        "max_connections",
        CONNECTION_STATES,
        _idle,
    ),
    Check(
        "unnamed-application",
        "Connections without a name",
        "info for each connection without application_name",
        CONNECTIONS,
        _unnamed,
    ),
    Check(
        "reserved-connections",
        "Connections for administrators",
        "warning where superuser_reserved_connections is 0",
        CONNECTIONS,
        _reserved,
    ),
    Check(
        "idle-in-transaction",
        "Idle in transaction",
        "warning above 5 s, critical above 60 s",
        SESSIONS,
        _idle_in_transaction,
    ),
    Check(
        "long-transaction",
        "Long transactions",
        "warning above 5 min, critical above 1 h",
        SESSIONS,
        _long_transaction,
    ),
    Check("long-query", "Long statements", "warning above 60 s", SESSIONS, _long_query),
    Check(
        "blocked-session",
        "Sessions that wait for locks",
        "warning above 1 s, critical above 30 s; names those that hold the lock",
        BLOCKED,
        _blocked,
    ),
    Check(
        "vacuum-horizon",
        "What holds vacuum back",
        "warning for a session whose snapshot is more than 10 million transactions old",
        SESSIONS,
        _horizon,
    ),
    Check(
        "superuser-application",
        "Services that connect as a superuser",
        "warning for connections of a superuser, but for psql, pg_dump and the like",
        SESSIONS,
        _superusers,
    ),
    Check(
        "unencrypted-connections",
        "Connections without TLS",
        "warning for those from other machines",
        SESSIONS,
        _unencrypted,
    ),
    Check(
        "subtransaction-overflow",
        "Subtransactions",
        "warning for a transaction with more than 64 open subtransactions",
        Query("subtransactions", since=16, shows_own_sessions_only=True),
        _subtransactions,
    ),
    Check(
        "prepared-transaction",
        "Prepared transactions",
        "warning above 5 min, critical above 1 h",
        Query("prepared_transactions"),
        _prepared,
    ),
    Check(
        "long-autovacuum",
        "Long-running autovacuum",
        "warning above 3 h",
        Query("autovacuum", shows_own_sessions_only=True),
        _vacuum_running,
    ),
    Check(
        "autovacuum-workers",
        "Busy autovacuum workers",
        "info while all of them are busy",
        Query("autovacuum", shows_own_sessions_only=True),
        _vacuum_busy,
    ),
)
