"""Checks of sequences, and of the columns that their values go into."""

from collections.abc import Callable

from penstock.doctor.check import Check, NotKnown, Observation, Query, Row, Rows, listed, number_of
from penstock.findings import Severity

SEQUENCES = Query("sequences")

NEAR_END, AT_END = 0.8, 0.95
LAST_BIGINT = 2**63 - 1


def _share(row: Row, end: int) -> float:
    """Return how much of its values a sequence has given, from 0 to 1."""
    last, least = int(row["last_value"]), int(row["min_value"])
    return last / (least or -1) if row["increment_by"] < 0 else last / end


def _longer_sequence(row: Row) -> tuple[str, ...]:
    if row["increment_by"] < 0:
        end = "NO MINVALUE" if int(row["min_value"]) > -LAST_BIGINT else ""
    elif row["column_max"] and row["max_value"] < row["column_max"]:
        end = f"MAXVALUE {row['column_max']}"
    else:
        end = "NO MAXVALUE" if int(row["max_value"]) < LAST_BIGINT else ""
    return (f"ALTER SEQUENCE {row['sequence']} AS bigint {end};",) if end else ()


def _larger_column(row: Row) -> tuple[str, ...]:
    if not row["column_max"] or row["max_value"] < row["column_max"]:
        return ()
    return (f"ALTER TABLE {row['relation']} ALTER COLUMN {row['column']} TYPE bigint;",)


def _sequences(
    rows: Rows,
    end_of: Callable[[Row], int | None],
    what: str,
    *cures: Callable[[Row], tuple[str, ...]],
) -> Observation | None:
    known = [
        (row, _share(row, end))
        for row in rows
        if row["last_value"] is not None and not row["is_cyclic"] and (end := end_of(row))
    ]
    near = sorted(
        ((row, share) for row, share in known if share > NEAR_END), key=lambda pair: -pair[1]
    )
    if not near:
        hidden = sum(not row["is_readable"] for row in rows)
        if hidden:
            raise NotKnown(f"{number_of(hidden, 'sequence')} cannot be read by this role")
        return None
    named = [
        f"{row['sequence']}"
        f"{' of ' + row['relation'] + '.' + row['column'] if row['relation'] else ''} "
        f"at {row['last_value']:,} ({share:.0%})"
        for row, share in near
    ]
    return Observation(
        Severity.CRITICAL if near[0][1] > AT_END else Severity.WARNING,
        f"{number_of(len(near), 'sequence')} near the end of {what}: {listed(named)}.",
        "Inserts fail when it is reached. Changing the column rewrites the table under a lock: for "
        "a large one, add a bigint column, fill it in steps, and swap.",
        tuple(dict.fromkeys(sql for cure in cures for row, _ in near for sql in cure(row))),
    )


def _sequence_end(rows: Rows) -> Observation | None:
    return _sequences(
        rows, lambda row: int(row["max_value"]), "their values", _longer_sequence, _larger_column
    )


def _column_end(rows: Rows) -> Observation | None:
    def end(row: Row) -> int | None:
        column = row["column_max"]
        return int(column) if column and column < row["max_value"] else None

    return _sequences(rows, end, "what their column can hold", _larger_column)


CHECKS = (
    Check(
        "sequence-end",
        "Sequences near their end",
        "warning above 80 %, critical above 95 %",
        SEQUENCES,
        _sequence_end,
    ),
    Check(
        "column-end",
        "Integer columns behind larger sequences",
        "warning above 80 % of what an int2 or int4 column can hold, critical above 95 %",
        SEQUENCES,
        _column_end,
    ),
)
