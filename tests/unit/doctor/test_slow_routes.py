"""Which table and columns of a plan lack an index."""

from typing import Any

import pytest

from penstock.doctor.slow_routes import SlowUse, matched, scans


def scan(filter_: str) -> dict[str, Any]:
    return {
        "Node Type": "Seq Scan",
        "Schema": "public",
        "Relation Name": "thing",
        "Alias": "t",
        "Filter": filter_,
    }


@pytest.mark.parametrize(
    ("filter_", "columns"),
    [
        ("(t.name = $1)", ["name"]),
        ("((t.name)::text = ($1)::text)", ["name"]),
        ("((t.name)::text = $1)", ["name"]),
        ("((t.name = $1) AND (t.age > $2))", ["name", "age"]),
        ("((t.name = $1) OR (t.name = $2))", ["name"]),
        ('(t."Name" = $1)', ['"Name"']),
        ("(t.name ~~ $1)", []),
        ("(t.name = t.other)", []),
        ("(lower(t.name) = $1)", []),
        ("(t.name IS NULL)", []),
    ],
)
def test_compared_columns_are_found(filter_: str, columns: list[str]) -> None:
    found = [columns for _, columns in scans({"Node Type": "Limit", "Plans": [scan(filter_)]})]

    assert found == ([columns] if columns else [])


def test_a_scan_without_a_filter_needs_no_index() -> None:
    assert not list(scans({"Node Type": "Seq Scan", "Relation Name": "thing"}))


def test_statements_are_matched_by_their_shape_the_longest_first() -> None:
    rows = [
        {"query": "SELECT a\nFROM t WHERE b = $1::VARCHAR", "calls": 5},
        {"query": "SELECT c FROM t LIMIT $1", "calls": 7},
    ]
    uses = [
        SlowUse("GET /c", "SELECT c FROM t LIMIT ?", 1, 1.0),
        SlowUse("GET /a", "SELECT a FROM t WHERE b = ?::VARCHAR", 2, 9.0),
        SlowUse("GET /other", "SELECT d FROM t", 1, 99.0),
    ]

    found = [(use.route, row["calls"]) for use, row in matched(uses, rows)]

    assert found == [("GET /a", 5), ("GET /c", 7)]
