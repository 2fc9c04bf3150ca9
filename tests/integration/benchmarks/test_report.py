"""What a run leaves behind for the reader."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from benchmarks import __main__ as command
from benchmarks.charts import bars
from benchmarks.machine import machine
from benchmarks.report import page, write_report
from benchmarks.result import Result, Target

RESULT = Result(
    "reading <fast>",
    {"clients": 32, "seconds": 3.5},
    {
        "requests_per_second": {"tutorial": 1401, "express": 8765},
        "requests_per_second_range": {"tutorial": [1399, 1406], "express": [8701, 8799]},
        "p99_ms": {"tutorial": 51.25, "express": None},
    },
    {
        "express_times_tutorial": Target(6.256, at_least=6.0, spread=(6.187, 6.289)),
        "p99_share": Target(None, at_most=0.25),
    },
    beside={"with <the same> for all": {"requests_per_second": {"tutorial": 1502}}},
    charts=("requests_per_second", "p99_ms"),
)


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield str(value)


def tree_of(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n"))


def test_the_page_is_well_formed_and_holds_every_figure() -> None:
    text = " ".join(tree_of(page([RESULT], {"cores": 2})).itertext())

    every = RESULT.as_json()
    shown = [*leaves([every["conditions"], every["figures"], every["beside"]])]
    shown += [words for target in RESULT.targets.values() for words in target.in_words()]
    assert [words for words in shown if words not in text] == []


def test_the_page_asks_nobody_for_anything() -> None:
    html = page([RESULT], machine())

    for outside in ("http:", "https:", "//", "src=", "href=", "url(", "@import"):
        assert outside not in html


def test_a_missed_target_stands_out() -> None:
    rows = tree_of(page([RESULT], {})).findall(".//tr[@class='missed']")

    assert [row.findtext("td") for row in rows] == ["p99_share"]


def test_a_chart_has_a_bar_for_each_figure_and_none_for_what_was_not_measured() -> None:
    charts = tree_of(page([RESULT], {})).findall(".//svg")

    assert [len(chart.findall("rect")) for chart in charts] == [2, 1, 1]


def test_bars_are_as_long_as_their_values() -> None:
    chart = bars("speed", {"tutorial": 1.0, "express": 4.0}, {"express": (3.0, 5.0)})

    short, long = (float(bar.get("width", 0)) for bar in chart.findall("rect"))
    assert long == pytest.approx(4 * short, rel=0.01)


def test_a_bar_may_have_no_length() -> None:
    (bar,) = bars("faults", {"express": 0}).findall("rect")

    assert bar.get("width") == "0.0"


def test_what_is_known_of_the_machine_is_not_whose_it_is() -> None:
    known = " ".join(map(str, machine().values()))

    assert {"cores", "python", "postgresql", "sqlalchemy", "asyncpg"} <= machine().keys()
    assert "/" not in known
    assert Path.home().name not in known


def test_both_files_are_written_over_those_of_an_earlier_run(tmp_path: Path) -> None:
    for _ in range(2):
        data, html = write_report({"reading": RESULT}, {"cores": 2}, tmp_path / "results")

    assert json.loads(data.read_text()) == {
        "machine": {"cores": 2},
        "results": {"reading": RESULT.as_json()},
    }
    assert html.read_text() == page([RESULT], {"cores": 2})


def test_the_command_writes_them_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BENCHMARKS", {"reading": lambda _: RESULT})
    monkeypatch.setattr("sys.argv", ["benchmarks", "--results", str(tmp_path)])

    assert command.main() == 1
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "results.json"}
