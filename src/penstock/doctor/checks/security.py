"""Checks of the server's version, of roles, passwords and rights."""

from datetime import UTC, date, datetime

from penstock.doctor.certificate import valid_until
from penstock.doctor.check import (
    Check,
    NotKnown,
    Observation,
    Query,
    Rows,
    identifier,
    listed,
    number_of,
)
from penstock.doctor.known_faults import END_OF_LIFE, POSTGRESQL
from penstock.findings import Severity

VERSION = Query("version")
SOON = 14.0
CERTIFICATE_DAYS = 30.0
HALF_A_YEAR = 180
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _faults(rows: Rows) -> Observation | None:
    number = rows[0]["number"]
    version = (number // 10000, number % 10000)
    found = [fault for fault in POSTGRESQL if fault.has(version)]
    if not found:
        return None
    newest = found[0]
    worst = max(found, key=lambda fault: list(Severity).index(fault.severity))
    more = f" It has {len(found)} such faults." if len(found) > 1 else ""
    return Observation(
        worst.severity,
        f"PostgreSQL {rows[0]['text']} has a known fault: {worst.fault} ({worst.source}).{more}",
        f"Update to {'.'.join(map(str, newest.fixed_in))} or later: a restart, without a dump.",
    )


def _end_of_life(rows: Rows) -> Observation | None:
    major, today = rows[0]["number"] // 10000, rows[0]["today"]
    end = END_OF_LIFE.get(major, date.min if major < min(END_OF_LIFE) else date.max)
    days = (end - today).days
    if days > HALF_A_YEAR:
        return None
    over = days < 0
    return Observation(
        Severity.CRITICAL if over else Severity.WARNING,
        f"PostgreSQL {major} {'has had' if over else 'gets'} its last fixes"
        f"{f' on {end}' if end > date.min else ' long ago'}.",
        "Move to a newer major version (pg_upgrade, or logical replication).",
    )


def _expiry(rows: Rows) -> Observation | None:
    near = [row for row in rows if row["days"] < SOON]
    if not near:
        return None
    named = [
        f"{row['role']} ended {-row['days']:.1f} days ago"
        if row["days"] < 0
        else f"{row['role']} ends in {row['days']:.1f} days"
        for row in near
    ]
    return Observation(
        Severity.CRITICAL if any(row["days"] < 0 for row in near) else Severity.WARNING,
        f"Passwords that end: {listed(named)}.",
        "Open connections stay, new ones are refused. Give the role a new password and end.",
        tuple(f"ALTER ROLE {identifier(row['role'])} VALID UNTIL '...';" for row in near),
    )


def _certificate(rows: Rows) -> Observation | None:
    if not rows:
        return None
    try:
        end = valid_until(rows[0]["pem"])
    except ValueError as error:
        raise NotKnown(str(error)) from error
    days = (end - datetime.fromtimestamp(rows[0]["now"], UTC)).total_seconds() / 86400
    if days > CERTIFICATE_DAYS:
        return None
    return Observation(
        Severity.CRITICAL if days < SOON else Severity.WARNING,
        f"The server's TLS certificate {'ended' if days < 0 else 'ends'} on {end:%Y-%m-%d}.",
        "Clients that check it (DATABASE_TLS=verify-full) do not connect after it. Put a new one "
        "in its place and reload; open connections stay.",
        ("SELECT pg_reload_conf();",),
    )


def _md5(rows: Rows) -> Observation | None:
    if not rows:
        return None
    return Observation(
        Severity.WARNING,
        f"{number_of(len(rows), 'role')} with an MD5 password: "
        f"{listed([row['role'] for row in rows])}.",
        "Who has the hash can log in, and PostgreSQL 18 has deprecated them. Set each password "
        "anew with password_encryption = 'scram-sha-256'.",
        tuple(f"\\password {identifier(row['role'])}" for row in rows),
    )


def _hba(rows: Rows) -> Observation | None:
    if not rows:
        return None
    errors = [row for row in rows if row["error"]]
    trusting = [row for row in rows if row["method"] == "trust" and row["type"] != "local"]
    weak = [row for row in rows if row["method"] in ("password", "md5")]
    named = [
        f"line {row['line']}: "
        f"{row['error'] or ' '.join(filter(None, (row['type'], row['address'], row['method'])))}"
        for row in [*errors, *trusting, *weak] or rows
    ]
    severity = Severity.WARNING if errors or weak or trusting else Severity.INFO
    if any(row["address"] not in LOOPBACK for row in trusting):
        severity = Severity.CRITICAL
    return Observation(
        severity,
        f"pg_hba.conf has rules that ask clients for little or nothing: {listed(named)}.",
        "Use scram-sha-256 with hostssl; trust asks for no password at all.",
        ("SELECT * FROM pg_hba_file_rules;",),
    )


def _public(rows: Rows) -> Observation | None:
    if not rows:
        return None
    return Observation(
        Severity.WARNING,
        "Everybody may create objects in the schema public.",
        "A role can put a function or table there that another role's statement then uses.",
        ("REVOKE CREATE ON SCHEMA public FROM PUBLIC;",),
    )


def _definers(rows: Rows) -> Observation | None:
    if not rows:
        return None
    return Observation(
        Severity.WARNING,
        f"{number_of(len(rows), 'SECURITY DEFINER function')} without a search_path of their own: "
        f"{listed([row['function'] for row in rows])}.",
        "A caller can have them use tables and functions of its own, with the owner's rights.",
        tuple(
            f"ALTER ROUTINE {row['function']} SET search_path = pg_catalog, pg_temp;"
            for row in rows
        ),
    )


def _policies(rows: Rows) -> Observation | None:
    if not rows:
        return None
    return Observation(
        Severity.CRITICAL,
        f"{number_of(len(rows), 'table')} with policies and row-level security off: "
        f"{listed([row['relation'] for row in rows])}.",
        "The policies do nothing.",
        tuple(f"ALTER TABLE {row['relation']} ENABLE ROW LEVEL SECURITY;" for row in rows),
    )


CHECKS = (
    Check(
        "server-version",
        "Minor versions with known faults",
        "warning or critical, as grave as the fault; only faults of releases since November 2024 "
        "are known",
        VERSION,
        _faults,
    ),
    Check(
        "end-of-life",
        "Major versions that are not maintained",
        "warning half a year before the end, critical after it",
        VERSION,
        _end_of_life,
    ),
    Check(
        "password-expiry",
        "Passwords that end",
        "warning 14 days before VALID UNTIL, critical after it",
        Query("roles"),
        _expiry,
    ),
    Check(
        "tls-certificate",
        "The server's certificate",
        "warning 30 days before its end, critical 14 days before; only a superuser can know",
        Query("certificate"),
        _certificate,
    ),
    Check("md5-passwords", "MD5 passwords", "warning for each role", Query("passwords"), _md5),
    Check(
        "host-based-access",
        "pg_hba.conf",
        "critical for trust over a network, warning for trust on loopback, password, md5 and lines "
        "with errors, info for trust on a local socket",
        Query("hba_rules"),
        _hba,
    ),
    Check(
        "public-schema",
        "Rights on the schema public",
        "warning where PUBLIC may CREATE in it",
        Query("public_schema"),
        _public,
    ),
    Check(
        "security-definer",
        "SECURITY DEFINER functions",
        "warning for each without a search_path",
        Query("security_definers"),
        _definers,
    ),
    Check(
        "policy-without-row-security",
        "Row-level security",
        "critical for tables whose policies are not in force",
        Query("policies"),
        _policies,
    ),
)
