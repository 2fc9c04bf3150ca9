import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from penstock.errors import SettingsError
from penstock.load import (
    Generator,
    LoadReport,
    comparison_table,
    figures_table,
    remarks,
    write_page,
)
from penstock.load.result import Outcome, Recording

NASTY = "GET /<script>alert('&\"')</script>[bold]"


def report(factor: float = 1.0, generator: Generator | None = None) -> LoadReport:
    recording = Recording([NASTY, "POST /"])
    for number in range(1, 1001):
        latency, ended = factor * number / 1e3, number / 100
        refused = number % 100 == 0
        recording.add(
            NASTY,
            Outcome(
                error="503" if refused else None,
                latency=latency,
                status=503 if refused else 200,
                ended=ended,
            ),
        )
    recording.add("POST /", Outcome(error="TimeoutError", latency=None, ended=10.5))
    result = recording.result(seconds=10.5, generator=generator)
    return LoadReport(
        f"http://host/{NASTY}", "2026-01-01T00:00:00+00:00", {"targets": NASTY}, result
    )


def written(made: LoadReport, directory: Path) -> Path:
    made.write(directory / "report.json")
    return directory / "report.json"


def test_the_json_has_the_figures(tmp_path: Path) -> None:
    stored = json.loads(written(report(generator=Generator(late=3)), tmp_path).read_text())

    total = stored["total"]
    assert (total["requests"], total["successes"]) == (1001, 990)
    assert (total["errors"], total["statuses"]) == (
        {"503": 10, "TimeoutError": 1},
        {"200": 990, "503": 10},
    )
    assert [total[f"p{each}_ms"] for each in ("50", "90", "99", "99.9")] == [
        pytest.approx(each, rel=1e-3) for each in (500, 900, 990, 999)
    ]
    assert stored["kinds"]["POST /"]["p99_ms"] is None
    assert stored["generator"]["late"] == 3
    assert [second["at"] for second in stored["timeline"]] == list(range(11))
    assert sum(second["errors"] for second in stored["timeline"]) == 11


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = report(generator=Generator(0.5, 1, 2, 3.0, 4))

    assert LoadReport.read(written(made, tmp_path)).as_json() == made.as_json()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"url": 1}', "\xff"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text, encoding="latin-1")

    with pytest.raises(SettingsError, match=f"--compare {file}: is no report"):
        LoadReport.read(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        LoadReport.read(tmp_path / "nowhere.json")


class Elements(HTMLParser):
    """The elements of a page, and the cells of its tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_has_everything_escaped_and_asks_for_nothing() -> None:
    page = write_page(report(), report(0.5))
    elements = Elements(page)

    assert not {"script", "link", "img", "a", "iframe"} & set(elements.tags)
    assert not [name for name, _ in elements.attributes if name in {"src", "href", "onload"}]
    assert elements.texts.count(NASTY) == 1
    assert not re.search(r"url\(|@import", page)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in elements.attributes


def test_the_page_has_its_charts_and_the_comparison() -> None:
    alone, both = (Elements(write_page(report(), before)) for before in (None, report(0.5)))

    labels = [value for name, value in alone.attributes if name == "aria-label"]
    assert [str(label).partition(",")[0] for label in labels] == [
        "Latency by percentile",
        "Latency over time",
        "Requests that ended",
        "Errors",
    ]
    assert (alone.tags.count("polyline"), both.tags.count("polyline")) == (6, 7)
    assert both.texts.count("+100.0 %") == 7
    assert f"p99 of {NASTY}" in both.texts
    assert "+100.0 %" not in alone.texts


def test_the_lines_of_the_charts_stay_within_them() -> None:
    elements = Elements(write_page(report()))
    lines = [value or "" for name, value in elements.attributes if name == "points"]
    points = [point.split(",") for line in lines for point in line.split()]

    assert len(points) > 100
    assert all(64 <= float(x) <= 784 and 30 <= float(y) <= 232 for x, y in points)


def test_a_run_in_which_nothing_was_answered_has_a_page_too() -> None:
    nothing = replace(report(), result=Recording(["any"]).result(seconds=0.0))

    assert Elements(write_page(nothing, nothing)).tags.count("svg") == 4


def test_the_terminal_shows_figures_and_change_without_markup() -> None:
    console = Console(width=120, markup=False)
    with console.capture() as capture:
        console.print(figures_table(report().result, "Title"))
        console.print(comparison_table(report(0.5).result, report().result, "Change"))
    text = capture.get()

    assert "[bold]" in text
    assert "98.90%" in text
    assert "+100.0 %" in text


def test_remarks_are_made_of_what_the_table_does_not_show() -> None:
    usual = list(remarks(report().result))
    troubled = list(remarks(report(generator=Generator(0.95, 1, 2, 3.0, 4)).result))

    assert (len(usual), len(troubled)) == (3, 7)
    assert troubled[:3] == usual
