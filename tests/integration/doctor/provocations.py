"""What is done to a real server so that a check finds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.findings import Severity

INFO, WARNING, CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL
Statements = tuple[str, ...]


@dataclass(frozen=True)
class Provocation:
    """A state that a check is to find.

    Args:
        check: Its id.
        severity: What it is to say.
        evidence: A part of what it is to say.
        sql: Run in an empty database, one after the other, on a connection that then ends.
            ``{database}`` is its name.
        sessions: Connections that stay, each with what it runs. A statement that begins with a
            ``>`` is not waited for; ``~`` cuts the connection, as a client does that was killed.
        until: Asked again and again until it is true: what happens in other processes.
        undo: Undoes what a dropped database leaves behind; ``?`` begins what may be gone by then.
        limits: Limits that take too long to reach, by module and name, and their values here.
        since: First major version on which it can be brought about.
    """

    check: str
    severity: Severity
    evidence: str
    sql: Statements = ()
    sessions: tuple[Statements, ...] = ()
    until: str = ""
    undo: Statements = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    since: int = 0

    def __str__(self) -> str:
        return f"{self.check}-{self.severity}"


FLUSH = "SELECT pg_stat_force_next_flush()"
TABLE = "CREATE TABLE thing (id int PRIMARY KEY, name text)"
FILL = "INSERT INTO thing SELECT g, 'x' || g FROM generate_series(1, 20000) AS g"

SESSIONS = (
    Provocation(
        "connection-limit", WARNING, "15 of 17 connections", sessions=(("SELECT 1",),) * 14
    ),
    Provocation(
        "connection-limit", CRITICAL, "17 of 17 connections", sessions=(("SELECT 1",),) * 16
    ),
    Provocation(
        "own-connection-limit",
        CRITICAL,
        "uses 1 of 1",
        sql=("ALTER DATABASE {database} CONNECTION LIMIT 1",),
    ),
    Provocation("unnamed-application", INFO, "1 connection", sessions=(("SELECT 1",),)),
    Provocation(
        "idle-in-transaction",
        WARNING,
        "1 session idle in transaction",
        sessions=(("BEGIN", "SELECT 1"),),
        limits={"sessions.IDLE_IN_TRANSACTION": 0.0},
    ),
    Provocation(
        "idle-in-transaction",
        CRITICAL,
        "1 session idle in transaction",
        sessions=(("BEGIN", "SELECT 1"),),
        limits={"sessions.IDLE_IN_TRANSACTION": 0.0, "sessions.LONG_IDLE_IN_TRANSACTION": 0.0},
    ),
    Provocation(
        "long-transaction",
        WARNING,
        "1 transaction open",
        sessions=(("BEGIN", "SELECT 1"),),
        limits={"sessions.LONG_TRANSACTION": 0.0},
    ),
    Provocation(
        "long-query",
        WARNING,
        "1 statement running",
        sessions=((">SELECT pg_sleep(60)",),),
        until="SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
        limits={"sessions.LONG_QUERY": 0.0},
    ),
    Provocation(
        "blocked-session",
        WARNING,
        "1 session blocked",
        sql=(TABLE,),
        sessions=(("BEGIN", "LOCK TABLE thing"), ("BEGIN", ">LOCK TABLE thing")),
        until="SELECT count(*) = 1 FROM pg_locks WHERE NOT granted",
        limits={"sessions.LONG_WAIT": 0.0},
    ),
    Provocation(
        "vacuum-horizon",
        WARNING,
        "transactions ago",
        sessions=(
            ("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"),
            ("SELECT txid_current()", "SELECT txid_current()", "SELECT txid_current()"),
        ),
        limits={"sessions.HORIZON_AGE": 2},
    ),
    Provocation(
        "superuser-application",
        WARNING,
        "1 of orders as postgres",
        sessions=(("SET application_name = 'orders'",),),
    ),
    Provocation(
        "prepared-transaction",
        WARNING,
        "1 prepared transaction not committed: left of postgres",
        sql=("BEGIN", "CREATE TABLE t ()", "PREPARE TRANSACTION 'left'"),
        undo=("?ROLLBACK PREPARED 'left'",),
        limits={"sessions.LONG_PREPARED": 0.0},
    ),
)
SUBTRANSACTIONS = Provocation(
    "subtransaction-overflow",
    WARNING,
    "1 transaction with more than 64",
    sql=(TABLE,),
    sessions=(
        (
            "BEGIN",
            (
                "DO $$ BEGIN FOR i IN 1..70 LOOP BEGIN INSERT INTO thing VALUES (i); "
                "EXCEPTION WHEN division_by_zero THEN END; END LOOP; END $$"
            ),
        ),
    ),
)

SLOT = "SELECT pg_create_physical_replication_slot('left', true)"
DROP_SLOT = "?SELECT pg_drop_replication_slot('left')"
KEEP_NO_LIMIT = ("ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")
REPLICATION = (
    Provocation("inactive-slot", WARNING, "left (", sql=(SLOT,), undo=(DROP_SLOT,)),
    Provocation(
        "unlimited-slot", WARNING, "is -1 with 1", sql=(SLOT,), undo=(DROP_SLOT, *KEEP_NO_LIMIT)
    ),
    Provocation(
        "lost-slot",
        CRITICAL,
        "left is ",
        sql=(
            "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'",
            "SELECT pg_reload_conf()",
            SLOT,
            "CREATE TABLE t (c int)",
            *("INSERT INTO t VALUES (1)", "SELECT pg_switch_wal()") * 8,
            *("CHECKPOINT",) * 2,
        ),
        until="SELECT wal_status = 'lost' FROM pg_replication_slots",
        undo=(DROP_SLOT, *KEEP_NO_LIMIT),
    ),
    Provocation(
        "synchronous-standby",
        CRITICAL,
        "synchronous_standby_names is gone",
        sql=("ALTER SYSTEM SET synchronous_standby_names = 'gone'", "SELECT pg_reload_conf()"),
        until="SELECT current_setting('synchronous_standby_names') = 'gone'",
        undo=("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"),
    ),
    Provocation(
        "archive-failures",
        CRITICAL,
        "Archiving fails",
        sql=(
            "SELECT pg_stat_reset_shared('archiver')",
            "ALTER SYSTEM SET archive_command = '/bin/false'",
            "SELECT pg_reload_conf()",
            "CREATE TABLE t ()",
            "SELECT pg_switch_wal()",
        ),
        until="SELECT failed_count > 0 FROM pg_stat_archiver",
        undo=(
            "ALTER SYSTEM RESET archive_command",
            "SELECT pg_reload_conf()",
            "SELECT pg_stat_reset_shared('archiver')",
        ),
    ),
)
CHECKPOINTS = Provocation(
    "requested-checkpoints",
    WARNING,
    "checkpoints were requested",
    sql=("SELECT pg_stat_reset_shared('checkpointer')", *("CHECKPOINT",) * 10),
    until="SELECT num_requested >= 10 FROM pg_stat_checkpointer",
    undo=("SELECT pg_stat_reset_shared('checkpointer')",),
)

STATISTICS = (
    Provocation(
        "cache-hit-ratio",
        INFO,
        "of the pages were in shared_buffers",
        limits={
            "statistics.READ_BLOCKS": 0,
            "statistics.HIT_RATIO": 1.1,
            "statistics.LOW_HIT_RATIO": 0,
        },
    ),
    Provocation(
        "cache-hit-ratio",
        WARNING,
        "of the pages were in shared_buffers",
        limits={
            "statistics.READ_BLOCKS": 0,
            "statistics.HIT_RATIO": 1.1,
            "statistics.LOW_HIT_RATIO": 1.1,
        },
    ),
    Provocation(
        "deadlocks",
        INFO,
        "Deadlocks: 1 in ",
        sql=("CREATE TABLE a ()", "CREATE TABLE b ()"),
        sessions=(
            (f">{FLUSH}; LOCK a; SELECT pg_sleep(0.5); LOCK b",),
            (f">{FLUSH}; LOCK b; SELECT pg_sleep(0.5); LOCK a",),
        ),
        until="SELECT deadlocks > 0 FROM pg_stat_database WHERE datname = current_database()",
    ),
    Provocation(
        "killed-sessions",
        WARNING,
        "were terminated by an administrator",
        sessions=(("SELECT 1",),),
        sql=(),
        until=(
            "SELECT sessions_killed > 0 FROM pg_stat_database, "
            "(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
            "application_name = '' AND datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()) AS ended "
            "WHERE datname = current_database()"
        ),
        limits={"statistics.FEW_SESSIONS": 1, "statistics.SHARE_OF_SESSIONS": 0.0},
    ),
    Provocation(
        "fatal-sessions",
        WARNING,
        "ended by a fatal error",
        sessions=(("SET idle_session_timeout = '10ms'",),),
        until="SELECT sessions_fatal > 0 FROM pg_stat_database WHERE datname = current_database()",
        limits={"statistics.FEW_SESSIONS": 1, "statistics.SHARE_OF_SESSIONS": 0.0},
    ),
    Provocation(
        "temporary-files",
        WARNING,
        "did not fit into work_mem",
        sql=(
            "SET work_mem = '64kB'",
            "SELECT count(*) FROM (SELECT g FROM generate_series(1, 100000) AS g ORDER BY -g) AS t",
        ),
        limits={"statistics.TEMP_PER_HOUR": 0},
    ),
    Provocation(
        "rollback-share",
        INFO,
        "were rolled back",
        sql=("BEGIN", "CREATE TABLE t ()", "ROLLBACK"),
        limits={"statistics.TRANSACTIONS": 1, "statistics.ROLLED_BACK": 0.0},
    ),
    Provocation(
        "abandoned-sessions",
        WARNING,
        "lost their client",
        sessions=(("SELECT 1", "~"),),
        until="SELECT sessions_abandoned > 0 FROM pg_stat_database "
        "WHERE datname = current_database()",
        limits={"statistics.FEW_SESSIONS": 1, "statistics.SHARE_OF_SESSIONS": 0.0},
    ),
    Provocation(
        "forgotten-statements",
        INFO,
        "it keeps 100",
        sql=(
            "CREATE EXTENSION pg_stat_statements",
            "SELECT pg_stat_statements_reset()",
            *(f"SELECT {', '.join(['1'] * count)}" for count in range(1, 151)),
        ),
    ),
    Provocation("statement-statistics", INFO, "pg_stat_statements is not installed"),
    Provocation(
        "outdated-extension",
        INFO,
        "pg_stat_statements 1.9 to 1.",
        sql=("CREATE EXTENSION pg_stat_statements VERSION '1.9'",),
    ),
)

COLLATION = Provocation(
    "collation-version",
    CRITICAL,
    "collated 0, now 1",
    sql=(
        (
            "CREATE DATABASE collated TEMPLATE template0 LOCALE_PROVIDER builtin "
            "BUILTIN_LOCALE 'C.UTF-8'"
        ),
        "UPDATE pg_database SET datcollversion = '0' WHERE datname = 'collated'",
    ),
    undo=("DROP DATABASE collated",),
    since=17,
)

SCHEMA = (
    Provocation(
        "dead-rows",
        INFO,
        "public.thing 20,000 of 40,000 rows",
        sql=(TABLE, FILL, "UPDATE thing SET name = 'y'"),
    ),
    Provocation(
        "dead-rows",
        WARNING,
        "public.thing 20,000 of 20,000 rows",
        sql=(TABLE, FILL, "DELETE FROM thing"),
    ),
    Provocation(
        "catalog-bloat",
        WARNING,
        "pg_catalog.pg_",
        sql=(
            (
                "DO $$ BEGIN FOR i IN 1..300 LOOP "
                "CREATE TEMPORARY TABLE t (a int, b int, c int, d int); DROP TABLE t; "
                "END LOOP; END $$"
            ),
        ),
        limits={"schema.MANY_ROWS": 500},
    ),
    Provocation("never-vacuumed", INFO, "public.thing", sql=(TABLE, FILL)),
    Provocation("never-analyzed", WARNING, "public.thing", sql=(TABLE, FILL)),
    Provocation(
        "stale-statistics",
        WARNING,
        "public.thing",
        sql=(TABLE, FILL, "ANALYZE thing", "UPDATE thing SET name = 'y'"),
    ),
    Provocation(
        "table-without-autovacuum",
        WARNING,
        "public.thing",
        sql=(TABLE, "ALTER TABLE thing SET (autovacuum_enabled = false)"),
    ),
    Provocation(
        "table-without-primary-key", INFO, "public.log", sql=("CREATE TABLE log (line text)",)
    ),
    Provocation("unlogged-table", INFO, "public.u", sql=("CREATE UNLOGGED TABLE u (a int)",)),
    Provocation(
        "sequential-scans",
        INFO,
        "public.thing",
        sql=(TABLE, FILL, *("SELECT count(name) FROM thing",) * 2),
        limits={"schema.SCANS": 2},
    ),
    Provocation(
        "invalid-index",
        WARNING,
        "public.broken",
        sql=(
            TABLE,
            "INSERT INTO thing VALUES (1, 'x'), (2, 'x')",
            "!CREATE UNIQUE INDEX CONCURRENTLY broken ON thing (name)",
            "DELETE FROM thing WHERE id = 2",
        ),
    ),
    Provocation(
        "invalid-index",
        WARNING,
        "public.broken_ccnew",
        sql=(
            TABLE,
            "INSERT INTO thing VALUES (1, 'x'), (2, 'x')",
            "!CREATE UNIQUE INDEX CONCURRENTLY broken ON thing (name)",
            "!REINDEX INDEX CONCURRENTLY broken",
            "DELETE FROM thing WHERE id = 2",
        ),
    ),
    Provocation(
        "unused-index",
        INFO,
        "public.thing_name (",
        sql=(TABLE, FILL, "CREATE INDEX thing_name ON thing (name)"),
        limits={"schema.UNUSED_PAGES": 10},
    ),
    Provocation(
        "duplicate-index",
        WARNING,
        "public.thing_again as public.thing_pkey",
        sql=(TABLE, "CREATE INDEX thing_again ON thing (id)"),
    ),
    Provocation(
        "redundant-index",
        INFO,
        "public.thing_name by public.thing_name_id",
        sql=(
            TABLE,
            "CREATE INDEX thing_name ON thing (name)",
            "CREATE INDEX thing_name_id ON thing (name, id)",
        ),
    ),
    Provocation(
        "foreign-key-without-index",
        INFO,
        "public.part (thing_id)",
        sql=(TABLE, "CREATE TABLE part (id int PRIMARY KEY, thing_id int REFERENCES thing)"),
    ),
    Provocation(
        "foreign-key-without-index",
        WARNING,
        "public.part (thing_id), 2,000 rows",
        sql=(
            TABLE,
            "CREATE TABLE part (id int PRIMARY KEY, thing_id int REFERENCES thing)",
            "INSERT INTO part SELECT g FROM generate_series(1, 2000) AS g",
            "ANALYZE part",
        ),
    ),
    Provocation(
        "foreign-key-without-index",
        INFO,
        "public.part (thing_id)",
        sql=(
            TABLE,
            (
                "CREATE TABLE part (thing_id int REFERENCES thing) PARTITION BY RANGE (thing_id); "
                "CREATE TABLE part_one PARTITION OF part FOR VALUES FROM (1) TO (9)"
            ),
        ),
    ),
    Provocation(
        "unvalidated-constraint",
        INFO,
        "short of public.thing",
        sql=(TABLE, "ALTER TABLE thing ADD CONSTRAINT short CHECK (name < 'z') NOT VALID"),
    ),
    Provocation(
        "disabled-trigger",
        WARNING,
        "foreign keys are among them",
        sql=(
            TABLE,
            "CREATE TABLE part (id int PRIMARY KEY, thing_id int REFERENCES thing)",
            "ALTER TABLE part DISABLE TRIGGER ALL",
        ),
    ),
    Provocation(
        "sequence-end",
        WARNING,
        "public.s at 90",
        sql=("CREATE SEQUENCE s MAXVALUE 100", "SELECT setval('s', 90)"),
    ),
    Provocation(
        "sequence-end",
        CRITICAL,
        "public.s at 32,000",
        sql=("CREATE SEQUENCE s AS smallint", "SELECT setval('s', 32000)"),
    ),
    Provocation(
        "sequence-end",
        WARNING,
        "public.s of public.thing.id at 90",
        sql=(
            "CREATE SEQUENCE s AS int MAXVALUE 100",
            "CREATE TABLE thing (id int DEFAULT nextval('s'))",
            "SELECT setval('s', 90)",
        ),
    ),
    Provocation(
        "sequence-end",
        CRITICAL,
        "public.thing_id_seq of public.thing.id at 2,100,000,000",
        sql=(
            "CREATE TABLE thing (id int GENERATED ALWAYS AS IDENTITY, a int) PARTITION BY LIST (a)",
            "CREATE TABLE part PARTITION OF thing FOR VALUES IN (1)",
            "SELECT setval('thing_id_seq', 2100000000)",
        ),
        since=17,
    ),
    Provocation(
        "sequence-end",
        CRITICAL,
        'public."Odd ""S" of public.code.name at 99',
        sql=(
            'CREATE SEQUENCE "Odd ""S" MAXVALUE 100',
            """CREATE TABLE code (name text DEFAULT nextval('"Odd ""S"'))""",
            """SELECT setval('"Odd ""S"', 99)""",
        ),
    ),
    Provocation(
        "sequence-end",
        CRITICAL,
        "public.s at -99",
        sql=(
            "CREATE SEQUENCE s INCREMENT -1 MINVALUE -100 MAXVALUE -1",
            "SELECT setval('s', -99)",
        ),
    ),
    Provocation(
        "sequence-end",
        CRITICAL,
        "public.thing_id_seq of public.thing.id at 2,100,000,000 (98%)",
        sql=("CREATE TABLE thing (id serial)", "SELECT setval('thing_id_seq', 2100000000)"),
    ),
    Provocation(
        "column-end",
        CRITICAL,
        "public.s of public.thing.id at 32,000 (98%)",
        sql=(
            "CREATE SEQUENCE s",
            "CREATE TABLE thing (id int2 DEFAULT nextval('s'))",
            "SELECT setval('s', 32000)",
        ),
    ),
    Provocation(
        "column-end",
        WARNING,
        "public.s of public.thing.id at 1,800,000,000 (84%)",
        sql=(
            "CREATE TABLE thing (id int4)",
            "CREATE SEQUENCE s AS bigint OWNED BY thing.id",
            "SELECT setval('s', 1800000000)",
        ),
    ),
)

SECURITY = (
    Provocation(
        "password-expiry",
        CRITICAL,
        "gone ended",
        sql=("CREATE ROLE gone LOGIN VALID UNTIL '2000-01-01'",),
        undo=("DROP ROLE gone",),
    ),
    Provocation(
        "md5-passwords",
        WARNING,
        "1 role with an MD5 password: old",
        sql=("SET password_encryption = 'md5'", "CREATE ROLE old PASSWORD 'x'"),
        undo=("DROP ROLE old",),
    ),
    Provocation("host-based-access", INFO, "local trust"),
    Provocation(
        "public-schema",
        WARNING,
        "Everybody may create",
        sql=("GRANT CREATE ON SCHEMA public TO PUBLIC",),
    ),
    Provocation(
        "security-definer",
        WARNING,
        "public.f(a integer)",
        sql=("CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",),
    ),
    Provocation(
        "security-definer",
        WARNING,
        'public."P"()',
        sql=("CREATE PROCEDURE \"P\"() LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",),
    ),
    Provocation(
        "policy-without-row-security",
        CRITICAL,
        "1 table with policies and row-level security off: public.thing",
        sql=(TABLE, "CREATE POLICY own ON thing USING (true)"),
    ),
)

PENDING = Provocation(
    "pending-restart",
    WARNING,
    "max_locks_per_transaction",
    sql=("ALTER SYSTEM SET max_locks_per_transaction = 128", "SELECT pg_reload_conf()"),
    until="SELECT pending_restart FROM pg_settings WHERE name = 'max_locks_per_transaction'",
    undo=("ALTER SYSTEM RESET max_locks_per_transaction", "SELECT pg_reload_conf()"),
)


@dataclass(frozen=True)
class WrongSetting:
    """A value that a check is to find.

    Args:
        check: Its id.
        severity: What it is to say.
        name: Of the setting.
        value: What the server is started with; empty for its default.
    """

    check: str
    severity: Severity
    name: str
    value: str = ""

    def __str__(self) -> str:
        return self.check


WRONG_SETTINGS = (
    WrongSetting("fsync-off", CRITICAL, "fsync", "off"),
    WrongSetting("full-page-writes-off", CRITICAL, "full_page_writes", "off"),
    WrongSetting("synchronous-commit-off", WARNING, "synchronous_commit", "off"),
    WrongSetting("autovacuum-off", CRITICAL, "autovacuum", "off"),
    WrongSetting("track-counts-off", CRITICAL, "track_counts", "off"),
    WrongSetting("track-activities-off", WARNING, "track_activities", "off"),
    WrongSetting("track-io-timing-off", INFO, "track_io_timing"),
    WrongSetting("statement-timeout", INFO, "statement_timeout"),
    WrongSetting("idle-in-transaction-timeout", INFO, "idle_in_transaction_session_timeout"),
    WrongSetting("lock-timeout", INFO, "lock_timeout"),
    WrongSetting("client-connection-check", INFO, "client_connection_check_interval"),
    WrongSetting("tcp-keepalives", INFO, "tcp_keepalives_idle", "3600"),
    WrongSetting("log-lock-waits-off", INFO, "log_lock_waits", "off"),
    WrongSetting("slow-statement-log", INFO, "log_min_duration_statement"),
    WrongSetting("random-page-cost", INFO, "random_page_cost"),
    WrongSetting("effective-io-concurrency", INFO, "effective_io_concurrency", "1"),
    WrongSetting("shared-buffers", INFO, "shared_buffers", "16MB"),
    WrongSetting("maintenance-work-mem", INFO, "maintenance_work_mem", "16MB"),
    WrongSetting("work-mem", WARNING, "work_mem", "100GB"),
    WrongSetting("memory-limit", WARNING, "work_mem", "100GB"),
    WrongSetting("max-connections", WARNING, "max_connections", "600"),
    WrongSetting("max-wal-size", INFO, "max_wal_size", "100MB"),
    WrongSetting("checkpoint-timeout", INFO, "checkpoint_timeout", "1min"),
    WrongSetting("checkpoint-completion", INFO, "checkpoint_completion_target", "0.5"),
    WrongSetting("statistics-target", INFO, "default_statistics_target", "10"),
    WrongSetting("freeze-max-age", WARNING, "autovacuum_freeze_max_age", "1500000000"),
    WrongSetting("password-encryption", WARNING, "password_encryption", "md5"),
    WrongSetting("tls-off", INFO, "ssl"),
    WrongSetting("damage-ignored", CRITICAL, "zero_damaged_pages", "on"),
    WrongSetting("planner-switches", WARNING, "enable_seqscan", "off"),
    WrongSetting("effective-cache-size", WARNING, "effective_cache_size", "8MB"),
    WrongSetting("reserved-connections", WARNING, "superuser_reserved_connections", "0"),
)

PROVOCATIONS = (
    *SESSIONS,
    SUBTRANSACTIONS,
    *REPLICATION,
    CHECKPOINTS,
    *STATISTICS,
    COLLATION,
    *SCHEMA,
    *SECURITY,
    PENDING,
)

NOT_CURED = {
    "long-query": "a person looks at the statement first",
    "blocked-session": "a person looks at the holder first",
    "superuser-application": "the service gets another role and a password",
    "requested-checkpoints": "counts go on from when the statistics began",
    "temporary-files": "counts go on from when the statistics began",
    "password-expiry": "a person chooses the new end",
    "md5-passwords": "a person types the new password",
    "host-based-access": "a person edits pg_hba.conf",
}
"""Checks whose SQL is the beginning of a cure, and why."""

ON_A_CLUSTER = {
    "replay-paused",
    "replay-lag",
    "replication-lag",
    "wal-receiver",
    "replication-conflicts",
    "subscription-errors",
}
"""Checks whose states take more than one server, in ``test_replicas.py``."""

WITH_TLS = {"tls-certificate"}
"""Checks whose states take TLS, in ``test_tls.py``."""
