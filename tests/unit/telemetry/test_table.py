"""Rows of numbers under names, some of which are longer than there is room."""

import pytest

from penstock.telemetry.layout import Table

OTHERS = ("(others)",)


@pytest.fixture
def table() -> Table:
    """Three rows of one number, the last for others, under names of four bytes."""
    return Table(
        numbers=memoryview(bytearray(3 * 8)).cast("d"),
        texts=memoryview(bytearray(2 * 4)),
        begin=0,
        width=1,
        names_begin=0,
        name_bytes=(4,),
        rows=3,
    )


def count(table: Table, *names: str) -> dict[tuple[str, ...], float]:
    for name in names:
        table.numbers[table[name,]] += 1
    rows = list(table.read(OTHERS))
    assert len({name for name, _ in rows}) == len(rows)
    return {name: values[0] for name, values in rows}


def test_a_name_has_its_row_and_those_without_room_share_the_last(table: Table) -> None:
    assert count(table, "a", "b", "a", "c", "d") == {("a",): 2, ("b",): 1, OTHERS: 2}


def test_names_that_are_the_same_as_far_as_they_are_kept_share_a_row(table: Table) -> None:
    assert count(table, "same1", "same2", "same1", "b") == {("same",): 3, ("b",): 1}
