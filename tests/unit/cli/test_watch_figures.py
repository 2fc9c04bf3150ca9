"""Numbers and small pictures, and the room for them."""

import pytest

from penstock.watch.document import History, Part
from penstock.watch.figures import age, bar, count, duration, size, sparkline
from penstock.watch.screen import share


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.00 ms"),
        (0.000012, "0.01 ms"),
        (0.00123, "1.23 ms"),
        (0.009996, "10.0 ms"),
        (0.0567, "56.7 ms"),
        (0.9994, "999 ms"),
        (0.99951, "1.00 s"),
        (12.34, "12.3 s"),
        (99.4, "99.4 s"),
        (99.6, "2 min"),
        (5940, "99 min"),
        (7200, "2 h"),
        (86400 * 3, "72 h"),
        (86400 * 30, "30 d"),
    ],
)
def test_a_time_has_three_digits_and_a_unit(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_is_in_whole_units() -> None:
    assert [age(None), age(0.4), age(99.4), age(120)] == ["-", "0 s", "99 s", "2 min"]


def test_counts_and_sizes_are_readable() -> None:
    assert [count(None), count(1234567.0)] == ["-", "1,234,567"]
    assert [size(512), size(2048), size(3.2e9), size(5e15)] == [
        "512 B",
        "2.05 kB",
        "3.20 GB",
        "5,000 TB",
    ]


@pytest.mark.parametrize(
    ("part", "drawn"),
    [
        (0.0, "....."),
        (0.001, "#...."),
        (0.5, "##..."),
        (0.999, "####."),
        (1.0, "#####"),
        (2, "#####"),
    ],
)
def test_a_bar_is_empty_only_for_nothing_and_full_only_for_all(part: float, drawn: str) -> None:
    assert bar(part, 5, ascii_only=True) == drawn
    assert bar(part, 5) == drawn.replace("#", "█").replace(".", "░")


def test_a_sparkline_has_a_character_for_each_number() -> None:
    assert sparkline([None, 0, 0.1, 5, 10, 20], 10) == " ▁▂▅██"
    assert sparkline([None, 0, 10], 10, ascii_only=True) == " _@"
    assert sparkline([0, 3], 0) == "▁▁"


COLUMNS = ("checked_out", "waiting", "checkouts", "rejected")


def history(at: list[float], numbers: list[float]) -> History:
    """What is known after a document with the same numbers in each column."""
    return History().with_columns(Part({"at": at, **dict.fromkeys(COLUMNS, numbers)}))


def test_what_documents_bring_is_put_together_by_the_second() -> None:
    columns = Part({"at": [101.9, 102.9, None], "checked_out": [3, None, 4]})
    known = history([100.2, 101.2], [1, 2]).with_columns(columns)

    assert [moment.checked_out for moment in known.last(10)] == [1, 3, 0]
    assert [moment.checked_out for moment in known.last(2)] == [3, 0]
    assert [moment.waiting for moment in known.last(10)] == [1, 0, 0]


def test_fifteen_minutes_are_remembered() -> None:
    known = history(list(range(2000)), list(range(2000)))

    assert len(known.last(5000)) == 900
    assert known.newest == 1999


def test_peaks_are_those_of_even_stretches_of_time() -> None:
    known = history([90, 94, 95, 104], [1, 9, 2, 3])

    assert known.peaks("waiting", 4, 5) == [None, 9, 2, 3]
    assert History().peaks("waiting", 2, 5) == [None, None]


@pytest.mark.parametrize(
    ("wants", "room", "given"),
    [
        ([9, 30, 20], 0, [0, 0, 0]),
        ([9, 30, 20], 1, [0, 0, 0]),
        ([9, 30, 20], 4, [3, 0, 0]),
        ([9, 30, 20], 6, [3, 1, 0]),
        ([9, 30, 20], 11, [4, 2, 2]),
        ([0, 30, 2], 20, [0, 16, 2]),
        ([1, 1, 1], 50, [1, 1, 1]),
    ],
)
def test_the_important_get_their_least_and_then_all_get_one_more(
    wants: list[int], room: int, given: list[int]
) -> None:
    assert share(wants, [3, 1, 1], room, 1) == given
