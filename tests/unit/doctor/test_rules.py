"""Rules at their limits, on rows as a server returns them, also of states that no test can make."""

from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from typing import Any

import pytest
from tests.unit.doctor.rows import HEALTHY

from penstock.doctor import CHECKS
from penstock.doctor.check import NotKnown
from penstock.doctor.known_faults import END_OF_LIFE, PGBOUNCER, POSTGRESQL

Case = tuple[str, Mapping[str, Any], str | None, str]
"""A check, what differs in its row, the severity or None, and a part of the evidence."""

GIB = 1024**3
CASES: tuple[Case, ...] = (
    ("connection-limit", {"connections": 77}, None, ""),
    ("connection-limit", {"connections": 78}, "warning", "78 of 97 connections"),
    ("connection-limit", {"connections": 93}, "critical", "93 of orders (app, idle)"),
    ("own-connection-limit", {"connections": 7}, None, ""),
    ("own-connection-limit", {"connections": 8}, "warning", "role app uses 8 of 10"),
    ("own-connection-limit", {"connections": 10}, "critical", "role app uses 10 of 10"),
    ("idle-connections", {"unchanged": 9}, None, ""),
    ("idle-connections", {"unchanged": 10}, "info", "10 of orders"),
    ("idle-connections", {"unchanged": 51}, "warning", "51 connections (51% of max"),
    ("idle-in-transaction", {"state": "idle in transaction", "state_seconds": 5.0}, None, ""),
    (
        "idle-in-transaction",
        {"state": "idle in transaction", "state_seconds": 5.1},
        "warning",
        "pid 4711 of orders (app) for 5.1 s",
    ),
    (
        "idle-in-transaction",
        {"state": "idle in transaction (aborted)", "state_seconds": 60.1},
        "critical",
        "for 60.1 s",
    ),
    ("idle-in-transaction", {"state_seconds": 600.0}, None, ""),
    ("long-transaction", {"transaction_seconds": 300.0}, None, ""),
    ("long-transaction", {"transaction_seconds": 301.0}, "warning", "for 5 min"),
    ("long-transaction", {"transaction_seconds": 3601.0}, "critical", "for 60 min"),
    ("long-transaction", {"transaction_seconds": 9e9, "kind": "walsender"}, None, ""),
    ("long-query", {"state": "active", "query_seconds": 60.0}, None, ""),
    ("long-query", {"state": "active", "query_seconds": 61.0}, "warning", "for 61.0 s"),
    ("long-query", {"query_seconds": 6000.0}, None, ""),
    ("blocked-session", {"seconds": 1.0}, None, ""),
    ("blocked-session", {"seconds": 1.1}, "warning", "pid 4711 of orders by pid 4712"),
    ("blocked-session", {"seconds": 31.0}, "critical", "for 31.0 s"),
    ("vacuum-horizon", {"horizon_age": 10_000_000}, None, ""),
    ("vacuum-horizon", {"horizon_age": 10_000_001}, "warning", "10,000,001 transactions ago"),
    ("superuser-application", {"is_superuser": True, "application": "psql"}, None, ""),
    ("superuser-application", {"is_superuser": True}, "warning", "1 of orders as app"),
    ("unencrypted-connections", {"is_encrypted": False}, "warning", "1 of orders"),
    ("unencrypted-connections", {"is_encrypted": False, "is_remote": False}, None, ""),
    ("unencrypted-connections", {"is_encrypted": None}, None, ""),
    ("prepared-transaction", {"seconds": 300.0}, None, ""),
    ("prepared-transaction", {"seconds": 301.0}, "warning", "it's of app"),
    ("prepared-transaction", {"seconds": 3601.0}, "critical", "it's of app"),
    ("long-autovacuum", {"seconds": 10800.0}, None, ""),
    ("long-autovacuum", {"seconds": 10801.0}, "warning", "thing for 3.0 h"),
    ("long-autovacuum", {"seconds": None}, None, ""),
    (
        "long-autovacuum",
        {"seconds": 20000.0, "prevents_wraparound": True},
        "warning",
        "to prevent wraparound",
    ),
    ("autovacuum-workers", {}, None, ""),
    ("autovacuum-workers", {"workers": 1}, "info", "All 1 autovacuum workers"),
    ("inactive-slot", {"is_active": False}, "warning", "standby (0 B)"),
    ("inactive-slot", {"is_active": False, "kept_bytes": 11 * GIB}, "critical", "11.0 GiB"),
    ("inactive-slot", {"is_active": False, "wal_status": "lost"}, None, ""),
    ("lost-slot", {"wal_status": "lost"}, "critical", "standby is lost"),
    ("lost-slot", {"wal_status": "extended"}, None, ""),
    ("unlimited-slot", {"is_unlimited": True}, "warning", "1 replication slot"),
    ("replication-lag", {"lag_bytes": 16 * 1024**2}, None, ""),
    ("replication-lag", {"lag_bytes": 16 * 1024**2 + 1}, "warning", "standby by 16.0 MiB"),
    ("replication-lag", {"lag_bytes": 0, "lag_seconds": 99.0}, None, ""),
    ("replication-lag", {"lag_bytes": 1, "lag_seconds": 10.1}, "warning", "10.1 s"),
    ("synchronous-standby", {"named": "a"}, "critical", "is a"),
    ("synchronous-standby", {"named": "a", "present": 1}, None, ""),
    ("synchronous-standby", {"named": "a", "synchronous_commit": "off"}, None, ""),
    ("replay-paused", {"is_paused": True}, "warning", "Replay is paused"),
    ("replay-lag", {"waiting_bytes": 17 * 1024**2}, "warning", "17.0 MiB"),
    ("wal-receiver", {"receivers": 0}, "critical", "no WAL receiver"),
    ("wal-receiver", {"receivers": 0, "is_streaming": False}, None, ""),
    ("replication-conflicts", {}, "warning", "3 by snapshot in app"),
    ("subscription-errors", {}, "warning", "sub: 4 while applying"),
    ("archive-failures", {"failed_count": 3}, "info", "failed 3 times, and works now"),
    ("archive-failures", {"failed_count": 3, "is_failing": True}, "critical", "3 attempts"),
    ("wal-buffers", {"wal_buffers_full": 10_001}, "info", "10,001 of 1,000,000"),
    ("wal-buffers", {"wal_buffers_full": 10_000}, None, ""),
    ("checksum-failures", {"checksum_failures": 1}, "critical", "1 in app"),
    ("cache-hit-ratio", {"blks_hit": 9_900_000, "blks_read": 100_000}, None, ""),
    ("cache-hit-ratio", {"blks_hit": 9_000_000, "blks_read": 100_000}, "info", "98.9%"),
    ("cache-hit-ratio", {"blks_hit": 1_000_000, "blks_read": 100_000}, "warning", "90.9%"),
    ("cache-hit-ratio", {"blks_hit": 1, "blks_read": 99_999}, None, ""),
    ("deadlocks", {"deadlocks": 10}, "info", "10 in app"),
    ("deadlocks", {"deadlocks": 11}, "warning", "11 in app"),
    ("deadlocks", {"deadlocks": 4, "hours": 1.0}, "info", "4 in app"),
    ("abandoned-sessions", {"sessions_abandoned": 10}, None, ""),
    ("abandoned-sessions", {"sessions_abandoned": 11}, "warning", "11 of 1,000 in app (1%)"),
    ("killed-sessions", {"sessions_killed": 9, "sessions": 10}, None, ""),
    ("killed-sessions", {"sessions_killed": 10, "sessions": 10}, "warning", "10 of 10"),
    ("fatal-sessions", {"sessions_fatal": 20}, "warning", "20 of 1,000 in app (2%)"),
    ("temporary-files", {"temp_bytes": 10 * GIB, "temp_files": 3}, None, ""),
    ("temporary-files", {"temp_bytes": 11 * GIB, "temp_files": 3}, "warning", "11.0 GiB in 3"),
    ("rollback-share", {"xact_rollback": 600}, "info", "600 of 5,600"),
    ("rollback-share", {"xact_rollback": 500}, None, ""),
    ("transaction-wraparound", {"transactions": 800_000_000}, None, ""),
    ("transaction-wraparound", {"transactions": 800_000_001}, "warning", "app 800,000,001"),
    ("transaction-wraparound", {"transactions": 1_500_000_001}, "critical", "647,483,647 are"),
    ("multixact-wraparound", {"multixacts": 900_000_000}, "warning", "multixact ids"),
    ("multixact-wraparound", {"transactions": 2_000_000_000}, None, ""),
    ("backend-fsyncs", {"fsyncs": 1}, "warning", "1 fsync"),
    ("slru-reads", {"blks_read": 10_001}, "warning", "subtransaction read 10,001"),
    ("slru-reads", {"blks_read": 10_001, "blks_hit": 10_000_000}, None, ""),
    ("collation-version", {}, "critical", "app 2.31, now 2.36"),
    ("forgotten-statements", {"forgotten": 1}, "info", "1 times within 1.0 h; it keeps 5000"),
    ("forgotten-statements", {"forgotten": 1, "hours": 1.1}, None, ""),
    ("checksums-off", {"name": "data_checksums", "value": "off"}, "info", "data_checksums"),
    ("checksums-off", {"name": "data_checksums", "value": "on"}, None, ""),
    ("shared-buffers", {"value": "16383"}, "info", "shared_buffers is 128.0 MiB"),
    ("shared-buffers", {}, None, ""),
    ("max-connections", {"name": "max_connections", "value": "500", "unit": ""}, None, ""),
    ("max-connections", {"name": "max_connections", "value": "501", "unit": ""}, "warning", "501"),
    ("checkpoint-timeout", {"name": "checkpoint_timeout", "value": "300", "unit": "s"}, None, ""),
    (
        "tcp-keepalives",
        {"name": "tcp_keepalives_idle", "value": "0", "current": "7200", "unit": "s"},
        "info",
        "tcp_keepalives_idle is 7200 s",
    ),
    ("pending-restart", {"pending_restart": True}, "warning", "shared_buffers"),
    ("shared-buffers-share", {"shared_buffers": int(1.6 * GIB)}, None, ""),
    ("shared-buffers-share", {"shared_buffers": int(1.7 * GIB)}, "warning", "42% of the machine"),
    ("memory-limit", {"connections": 768}, None, ""),
    ("memory-limit", {"connections": 769}, "warning", "769 connections"),
    ("password-expiry", {"days": 14.0}, None, ""),
    ("password-expiry", {"days": 13.9}, "warning", "app ends in 13.9 days"),
    ("password-expiry", {"days": -0.1}, "critical", "app ended 0.1 days ago"),
    ("host-based-access", {}, "info", "line 90: local trust"),
    (
        "host-based-access",
        {"type": "host", "address": "10.0.0.0"},
        "critical",
        "line 90: host 10.0.0.0 trust",
    ),
    ("host-based-access", {"type": "host", "address": "127.0.0.1"}, "warning", "127.0.0.1"),
    ("host-based-access", {"type": "host", "method": "md5"}, "warning", "host md5"),
    ("host-based-access", {"error": "invalid"}, "warning", "line 90: invalid"),
    ("server-version", {}, None, ""),
    ("server-version", {"number": 180007, "text": "18.7"}, None, ""),
    ("server-version", {"number": 170012, "text": "17.12"}, None, ""),
    ("server-version", {"number": 180006, "text": "18.6"}, "critical", "PostgreSQL 18.6 has"),
    ("server-version", {"number": 180004, "text": "18.4"}, "critical", "It has 2 such faults"),
    ("server-version", {"number": 190000, "text": "19.0"}, None, ""),
    ("end-of-life", {}, None, ""),
    ("end-of-life", {"today": date(2030, 6, 1)}, "warning", "PostgreSQL 18 gets its last"),
    ("end-of-life", {"today": date(2030, 11, 15)}, "critical", "on 2030-11-14"),
    ("end-of-life", {"number": 90600}, "critical", "long ago"),
    ("end-of-life", {"number": 990000}, None, ""),
    ("sequence-end", {"last_value": 80, "max_value": 100}, None, ""),
    ("sequence-end", {"last_value": 81, "max_value": 100}, "warning", "public.s at 81 (81%)"),
    ("sequence-end", {"last_value": 96, "max_value": 100}, "critical", "public.s at 96"),
    ("sequence-end", {"last_value": 96, "max_value": 100, "is_cyclic": True}, None, ""),
    ("sequence-end", {"last_value": None}, None, ""),
    ("column-end", {"last_value": 2**31 - 2, "column_max": 2**31 - 1}, "critical", "(100%)"),
    (
        "column-end",
        {"last_value": 2**31 - 2, "column_max": 2**31 - 1, "max_value": 2**31 - 1},
        None,
        "",
    ),
)


@pytest.mark.parametrize(
    ("check", "change", "severity", "evidence"), CASES, ids=lambda value: str(value)[:40]
)
def test_a_rule_at_its_limit(
    check: str, change: Mapping[str, Any], severity: str | None, evidence: str
) -> None:
    row = HEALTHY[CHECKS[check].query.name]
    assert set(change) <= set(row)

    seen = CHECKS[check].rule([{**row, **change}])

    assert (seen and seen.severity.value) == severity
    if seen is not None:
        assert evidence in seen.evidence
        assert seen.remedy


def test_the_server_accepts_what_its_large_pages_need() -> None:
    rows = [
        {**HEALTHY["settings"], "name": "shared_buffers", "value": str(2**20)},
        {**HEALTHY["settings"], "name": "huge_pages_status", "current": "off", "unit": ""},
    ]

    seen = CHECKS["huge-pages"].rule(rows)

    assert seen is not None
    assert "8.0 GiB without huge pages" in seen.evidence
    assert CHECKS["huge-pages"].rule([rows[0], {**rows[1], "current": "on"}]) is None


def test_a_setting_that_is_not_shown_is_not_known() -> None:
    with pytest.raises(NotKnown, match="sees no setting fsync"):
        CHECKS["fsync-off"].rule([])


def test_a_sequence_that_cannot_be_read_is_not_known() -> None:
    hidden = {**HEALTHY["sequences"], "last_value": None, "is_readable": False}

    with pytest.raises(NotKnown, match="1 sequence cannot be read"):
        CHECKS["sequence-end"].rule([hidden])


@pytest.mark.parametrize("fault", [*POSTGRESQL, *PGBOUNCER], ids=lambda fault: str(fault.fixed_in))
def test_each_known_fault_has_a_source_and_ends(fault: Any) -> None:
    assert fault.source.startswith("https://")
    assert fault.has((*fault.fixed_in[:-1], fault.fixed_in[-1] - 1))
    assert not fault.has(fault.fixed_in)


def test_the_end_of_each_major_is_a_year_after_the_one_before() -> None:
    ends = [END_OF_LIFE[major] for major in sorted(END_OF_LIFE)]

    for before, after in pairwise(ends):
        assert 350 <= (after - before).days <= 380
