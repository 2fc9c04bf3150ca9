"""Every number is declared once, and everything else follows from the declaration."""

from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest

from penstock.telemetry.layout import LAYOUT
from penstock.telemetry.reading import ROUTE_FIELDS, STATEMENT_FIELDS
from penstock.telemetry.schema import (
    COUNTERS,
    HISTOGRAMS,
    OPTIONAL,
    SAMPLE,
    Counters,
    Field,
    Kind,
    Sample,
    aggregate,
    declare,
    declared,
    typed,
)

TABLES = [COUNTERS, SAMPLE, HISTOGRAMS, ROUTE_FIELDS, STATEMENT_FIELDS]


@pytest.mark.parametrize(
    "declaration",
    [
        field(default=0),
        declare(0, Field(Kind.COUNTER, "Tests that ran.", unit="")),
        declare(0, Field(Kind.COUNTER, "", unit="{test}")),
        declare(0, Field(Kind.COUNTER, "no sentence", unit="{test}")),
    ],
    ids=["undeclared", "no unit", "no description", "no sentence"],
)
def test_a_number_without_a_unit_or_a_description_is_refused(declaration: Any) -> None:
    table = make_dataclass("Numbers", [("ran", int, declaration)])

    with pytest.raises(TypeError, match=r"Numbers\.ran: must be declared"):
        declared(table)


def test_a_declaration_is_all_that_a_new_counter_takes() -> None:
    @dataclass
    class Numbers:
        ran: int = declare(0, Field(Kind.COUNTER, "Tests that ran.", "{test}", "tests_ran"))

    table = declared(Numbers)

    assert [(each.name, each.is_whole, each.metric) for each in table.values()] == [
        ("ran", True, "tests_ran")
    ]
    assert aggregate([Numbers(1), Numbers(2)], table) == {"ran": 3}
    assert typed(table, [4.0]) == {"ran": 4}


def test_every_counter_is_in_the_sample_too_and_has_its_place_in_the_file() -> None:
    assert set(COUNTERS) < set(SAMPLE)
    places = [LAYOUT.counter(name) for name in COUNTERS]
    assert places == list(range(LAYOUT.counters, LAYOUT.histograms))


def test_no_two_numbers_share_a_metric_but_for_states() -> None:
    each = {**SAMPLE, **COUNTERS, **HISTOGRAMS}.values()
    metrics = [(one.metric, one.state) for one in each if one.metric]

    assert len(metrics) == len(set(metrics))


@pytest.mark.parametrize("table", TABLES)
def test_every_number_has_a_unit_and_a_description(table: dict[str, Field]) -> None:
    assert all(each.unit and each.description.endswith(".") for each in table.values())


OF_ALL = {"at", "replicas", "replicas_out", *OPTIONAL}
"""What every worker says of the same server or cluster."""


def test_counters_and_gauges_add_up_and_peaks_do_not() -> None:
    for name, each in {**COUNTERS, **SAMPLE}.items():
        adds_up = each.aggregation([1, 2]) == 3
        assert adds_up == (each.kind is not Kind.PEAK and name not in OF_ALL), name


def test_what_only_some_workers_know_is_what_they_know() -> None:
    known, unknown = Sample(1.0, server_connections=7.0), Sample(1.0)

    assert Sample.of_all([unknown, known]).server_connections == 7.0
    assert Counters(leaks=1) + Counters(leaks=2) == Counters(leaks=3)


def test_every_counter_and_time_has_a_label_that_no_other_has() -> None:
    labels = [each.label for each in (*COUNTERS.values(), *HISTOGRAMS.values())]

    assert all(labels)
    assert len(set(labels)) == len(labels)
    assert not {*COUNTERS} & {*HISTOGRAMS}  # the live document has them in one object
