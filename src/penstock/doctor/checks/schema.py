"""Checks of tables, indexes and constraints."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

from penstock.doctor.check import (
    Check,
    Observation,
    Query,
    Row,
    Rows,
    listed,
    number_of,
    size,
)
from penstock.findings import Severity

TABLES = Query("tables")
INDEXES = Query("indexes")

PAGE = 8192
MANY_ROWS = 10_000
DEAD_SHARE, VERY_DEAD_SHARE = 0.2, 0.5
MODIFIED_SHARE = 0.5
ANALYZED_ROWS = 1000
UNUSED_PAGES = 1024
SCANS = 100
LARGE_CHILD = 1000
_LEFT_OVER = re.compile(r'_cc(new|old)\d*"?$')
"""Ends the names of what REINDEX CONCURRENTLY leaves when it fails."""


def _names(rows: Iterable[Row], column: str = "relation") -> str:
    return listed([row[column] for row in rows])


def _each(rows: Iterable[Row], *statements: str) -> tuple[str, ...]:
    return tuple(statement.format(**row) for row in rows for statement in statements)


def _tables(
    is_wrong: Callable[[Row], bool],
    severity: Severity,
    seen: str,
    remedy: str,
    *statements: str,
    unless: Callable[[Row], bool] = lambda _: False,
) -> Callable[[Rows], Observation | None]:
    def rule(rows: Rows) -> Observation | None:
        found = [row for row in rows if is_wrong(row)]
        if not found:
            return None
        return Observation(
            severity,
            f"{number_of(len(found), 'table')} {seen}: {_names(found)}.",
            remedy,
            _each((row for row in found if not unless(row)), *statements),
        )

    return rule


def _dead(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if row["dead"] > MANY_ROWS and row["dead"] > (row["live"] + row["dead"]) * DEAD_SHARE
    ]
    if not found:
        return None
    found.sort(key=lambda row: -row["dead"])
    named = [
        f"{row['relation']} {row['dead']:,} of {row['live'] + row['dead']:,} rows" for row in found
    ]
    worst = any(row["dead"] > (row["live"] + row["dead"]) * VERY_DEAD_SHARE for row in found)
    return Observation(
        Severity.WARNING if worst else Severity.INFO,
        f"{number_of(len(found), 'table')} with many dead rows: {listed(named)}.",
        "Let autovacuum come sooner for them, and look at what holds it back (vacuum-horizon).",
        _each(
            found,
            "ALTER TABLE {relation} SET (autovacuum_vacuum_scale_factor = 0.02);",
            "VACUUM {relation};",
        ),
    )


def _catalogs(rows: Rows) -> Observation | None:
    found = [row for row in rows if row["dead"] > MANY_ROWS and row["dead"] > row["live"]]
    if not found:
        return None
    named = [f"{row['relation']} {row['dead']:,}" for row in found]
    return Observation(
        Severity.WARNING,
        f"Dead rows in system catalogs: {listed(named)}.",
        "Something makes and drops tables all the time: temporary ones, most likely. Reuse them.",
        _each(found, "VACUUM {relation};"),
    )


def _invalid(rows: Rows) -> Observation | None:
    found = [row for row in rows if not row["is_valid"] and not row["is_built"]]
    if not found:
        return None
    return Observation(
        Severity.WARNING,
        f"{number_of(len(found), 'invalid index', 'invalid indexes')}: {_names(found, 'index')}.",
        "CREATE INDEX CONCURRENTLY failed: each write maintains them still, no query uses them.",
        tuple(
            f"{'DROP' if _LEFT_OVER.search(row['index']) else 'REINDEX'} INDEX CONCURRENTLY "
            f"{row['index']};"
            for row in found
        ),
    )


def _unused(rows: Rows) -> Observation | None:
    found = [
        row
        for row in rows
        if not row["scans"]
        and row["pages"] >= UNUSED_PAGES
        and row["is_valid"]
        and not (row["is_unique"] or row["is_needed"] or row["is_partition"])
    ]
    if not found:
        return None
    named = [f"{row['index']} ({size(row['pages'] * PAGE)})" for row in found]
    return Observation(
        Severity.INFO,
        f"{number_of(len(found), 'index', 'indexes')} never used since the statistics began, "
        f"{size(sum(row['pages'] for row in found) * PAGE)}: {listed(named)}.",
        "If no replica uses them and nothing that runs monthly does, drop them.",
        _each(found, "DROP INDEX CONCURRENTLY {index};"),
    )


def _duplicate(rows: Rows) -> Observation | None:
    alike: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["is_valid"] and not row["is_partition"]:
            alike[row["relation"], row["method"], row["columns"], row["details"]].append(row)
    drop: list[Row] = []
    named: list[str] = []
    for same in alike.values():
        # What a constraint needs is kept, then what is unique.
        same.sort(key=lambda row: (not row["is_needed"], not row["is_unique"]))
        surplus = [row for row in same[1:] if not row["is_needed"]]
        named += [f"{row['index']} as {same[0]['index']}" for row in surplus]
        drop += surplus
    if not drop:
        return None
    return Observation(
        Severity.WARNING,
        f"{number_of(len(drop), 'duplicate index', 'duplicate indexes')}, "
        f"{size(sum(row['pages'] for row in drop) * PAGE)}: {listed(named)}.",
        "Each write maintains both. Drop one.",
        _each(drop, "DROP INDEX CONCURRENTLY {index};"),
    )


def _is_prefix(row: Row, other: Row) -> bool:
    """Return whether all that a plain index does another one does as well, with more columns."""
    own, longer = row["columns"].split(), other["columns"].split()
    if len(own) >= len(longer) or longer[: len(own)] != own:
        return False
    parts = zip(row["details"].split("|"), other["details"].split("|"), strict=False)
    return all(theirs.split()[: len(own)] == ours.split() for ours, theirs in parts)


def _redundant(rows: Rows) -> Observation | None:
    plain = [
        row
        for row in rows
        if row["is_plain"]
        and row["is_valid"]
        and row["method"] == "btree"
        and not row["is_partition"]
    ]
    by_table: dict[str, list[Row]] = defaultdict(list)
    for row in plain:
        by_table[row["relation"]].append(row)
    found = [
        (row, other)
        for row in plain
        if not (row["is_unique"] or row["is_needed"])
        for other in by_table[row["relation"]]
        if _is_prefix(row, other)
    ]
    covering = {row["index"]: other["index"] for row, other in found}
    if not covering:
        return None
    named = [f"{index} by {other}" for index, other in covering.items()]
    return Observation(
        Severity.INFO,
        f"{number_of(len(covering), 'index', 'indexes')} covered by a longer one: {listed(named)}.",
        "If the longer one is not much larger, drop the shorter.",
        tuple(f"DROP INDEX CONCURRENTLY {index};" for index in covering),
    )


def _foreign_keys(rows: Rows) -> Observation | None:
    if not rows:
        return None
    named = [f"{row['relation']} ({row['columns']}), {row['rows']:,} rows" for row in rows]
    return Observation(
        Severity.WARNING if any(row["rows"] > LARGE_CHILD for row in rows) else Severity.INFO,
        f"{number_of(len(rows), 'foreign key')} without an index: {listed(named)}.",
        "A delete in the referenced table reads the whole table, under a lock, and so does each "
        "join from there.",
        (
            *_each(
                (row for row in rows if not row["is_partitioned"]),
                "CREATE INDEX CONCURRENTLY ON {relation} ({columns});",
            ),
            # PostgreSQL builds no index of a partitioned table concurrently.
            *_each(
                (row for row in rows if row["is_partitioned"]),
                "CREATE INDEX ON {relation} ({columns});",
            ),
        ),
    )


def _unvalidated(rows: Rows) -> Observation | None:
    if not rows:
        return None
    return Observation(
        Severity.INFO,
        f"{number_of(len(rows), 'constraint')} NOT VALID: "
        f"{listed([row['name'] + ' of ' + row['relation'] for row in rows])}.",
        "Rows from before may break them. Validating takes no lock that blocks writes.",
        _each(rows, "ALTER TABLE {relation} VALIDATE CONSTRAINT {name};"),
    )


def _triggers(rows: Rows) -> Observation | None:
    if not rows:
        return None
    unchecked = any(row["is_of_constraint"] for row in rows)
    return Observation(
        Severity.WARNING if unchecked else Severity.INFO,
        f"{number_of(len(rows), 'disabled trigger')}: "
        f"{listed([row['name'] + ' of ' + row['relation'] for row in rows])}"
        f"{'; foreign keys are among them, and not checked' if unchecked else ''}.",
        "They are left over from an import, most likely.",
        _each(rows, "ALTER TABLE {relation} ENABLE TRIGGER {name};"),
    )


CHECKS = (
    Check(
        "dead-rows",
        "Dead rows",
        "info above 20 % of a table from 10,000 on, warning above half",
        TABLES,
        _dead,
    ),
    Check(
        "catalog-bloat",
        "Dead rows in system catalogs",
        "warning from 10,000 on, if they are more than the live ones",
        Query("catalogs"),
        _catalogs,
    ),
    Check(
        "never-vacuumed",
        "Tables that were never vacuumed",
        "info for those of more than 10,000 rows",
        TABLES,
        _tables(
            lambda row: (
                row["live"] > MANY_ROWS and not row["is_vacuumed"] and not row["is_partitioned"]
            ),
            Severity.INFO,
            "never vacuumed",
            "Index-only scans need it, and old transaction ids are frozen by it.",
            "VACUUM (ANALYZE) {relation};",
        ),
    ),
    Check(
        "never-analyzed",
        "Tables that were never analyzed",
        "warning for those of more than 1,000 rows",
        TABLES,
        _tables(
            lambda row: (
                row["live"] > ANALYZED_ROWS and not row["is_analyzed"] and not row["is_partitioned"]
            ),
            Severity.WARNING,
            "never analyzed",
            "The planner guesses. It is so after an import or pg_upgrade, until autovacuum comes.",
            "ANALYZE {relation};",
        ),
    ),
    Check(
        "stale-statistics",
        "Old statistics of the planner",
        "warning where more than half of 10,000 or more rows changed since ANALYZE",
        TABLES,
        _tables(
            lambda row: (
                row["is_analyzed"]
                and row["modified"] > MANY_ROWS
                and row["modified"] > row["live"] * MODIFIED_SHARE
            ),
            Severity.WARNING,
            "with half of the rows changed since ANALYZE",
            "Let autovacuum analyze them sooner.",
            "ALTER TABLE {relation} SET (autovacuum_analyze_scale_factor = 0.02);",
            "ANALYZE {relation};",
        ),
    ),
    Check(
        "table-without-autovacuum",
        "Tables without autovacuum",
        "warning for autovacuum_enabled = false",
        TABLES,
        _tables(
            lambda row: bool(row["is_without_autovacuum"]),
            Severity.WARNING,
            "with autovacuum_enabled = false",
            "Dead rows stay, and the planner's statistics grow old.",
            "ALTER TABLE {relation} RESET (autovacuum_enabled);",
        ),
    ),
    Check(
        "table-without-primary-key",
        "Tables without a primary key",
        "info for each",
        TABLES,
        _tables(
            lambda row: not row["has_primary_key"] and not row["is_partition"],
            Severity.INFO,
            "without a primary key",
            "A row cannot be named: logical replication refuses its updates, and so does the ORM.",
            "ALTER TABLE {relation} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;",
            unless=lambda row: row["has_id"] or row["is_partitioned"],
        ),
    ),
    Check(
        "unlogged-table",
        "Unlogged tables",
        "info for each",
        TABLES,
        _tables(
            lambda row: bool(row["is_unlogged"]),
            Severity.INFO,
            "unlogged",
            "They are emptied by a crash, and no replica has them.",
            "ALTER TABLE {relation} SET LOGGED;",
        ),
    ),
    Check(
        "sequential-scans",
        "Large tables that are read as a whole",
        "info from 100 scans on, each of 10,000 rows or more on average, if they are more than "
        "those by an index",
        TABLES,
        _tables(
            lambda row: (
                row["sequential_scans"] >= SCANS
                and row["rows_scanned"] >= row["sequential_scans"] * MANY_ROWS
                and row["sequential_scans"] > row["index_scans"]
            ),
            Severity.INFO,
            "read as a whole more often than by an index",
            "Find the statements in pg_stat_statements and look at their plans.",
        ),
    ),
    Check(
        "invalid-index",
        "Invalid indexes",
        "warning, but for one that is being built",
        INDEXES,
        _invalid,
    ),
    Check(
        "unused-index",
        "Unused indexes",
        "info from 8 MiB on, but for those of constraints",
        INDEXES,
        _unused,
    ),
    Check("duplicate-index", "Duplicate indexes", "warning for each", INDEXES, _duplicate),
    Check(
        "redundant-index",
        "Indexes that a longer one covers",
        "info for each that begins a longer one",
        INDEXES,
        _redundant,
    ),
    Check(
        "foreign-key-without-index",
        "Foreign keys without an index",
        "warning where the table has more than 1,000 rows, else info",
        Query("foreign_keys"),
        _foreign_keys,
    ),
    Check(
        "unvalidated-constraint",
        "Constraints that are not validated",
        "info for each",
        Query("unvalidated"),
        _unvalidated,
    ),
    Check(
        "disabled-trigger",
        "Disabled triggers",
        "info, warning where they check a foreign key",
        Query("disabled_triggers"),
        _triggers,
    ),
)
