"""A run's results as files: everything as JSON, and a page that needs nothing beside itself."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, indent, tostring

from benchmarks import charts
from benchmarks.result import Figures, Result, in_words, table_of

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.85rem; }
caption { text-align: left; font-weight: bold; }
td, th { border: 1px solid #9aa4b2; padding: 0.2rem 0.5rem; text-align: left; }
.missed { background: #b91c1c; color: #fff; }
"""


def write_report(
    results: Mapping[str, Result], machine: Mapping[str, Any], directory: Path
) -> tuple[Path, Path]:
    """Write ``results.json`` and ``report.html``, over those of an earlier run.

    Args:
        results: By the benchmark's name.
        machine: What they were measured on.
        directory: Where to; made if missing.

    Returns:
        Both paths.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data, html = directory / "results.json", directory / "report.html"
    every = {name: result.as_json() for name, result in results.items()}
    data.write_text(json.dumps({"machine": dict(machine), "results": every}, indent=2) + "\n")
    html.write_text(page(results.values(), machine), encoding="utf-8")
    return data, html


def page(results: Iterable[Result], machine: Mapping[str, Any]) -> str:
    """Return an HTML page, which is well-formed XML too, with every figure and its charts."""
    root = _element(
        "html",
        _element(
            "head",
            Element("meta", {"charset": "utf-8"}),
            _element("title", "Penstock's benchmarks"),
            _element("style", STYLE + charts.STYLE),
        ),
        _element(
            "body",
            _element("h1", "Penstock's benchmarks"),
            _element("p", in_words(machine)),
            *(part for result in results for part in _section(result)),
        ),
    )
    root.set("lang", "en")
    indent(root)
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode") + "\n"


def _section(result: Result) -> Iterator[Element]:
    yield _element("h2", result.benchmark)
    yield _element("p", in_words(result.conditions))
    if result.targets:
        yield _targets(result)
    for title, figures in result.groups():
        for what in result.charts:
            if what in figures:
                yield _chart(f"{title}: {what}", figures, what)
        yield _table(title, table_of(figures))


def _targets(result: Result) -> Element:
    rows = [[name, *target.in_words()] for name, target in result.targets.items()]
    table = _table("targets", [["target", "measured", "wanted", "met"], *rows])
    for row, target in zip(table.findall("tr")[1:], result.targets.values(), strict=True):
        if not target.met:
            row.set("class", "missed")
    return table


def _chart(title: str, figures: Figures, what: str) -> Element:
    values = {name: value for name, value in figures[what].items() if value is not None}
    return charts.bars(title, values, figures.get(f"{what}_range"))


def _table(title: str, rows: Sequence[Sequence[str]]) -> Element:
    heading, *others = rows
    return _element(
        "table",
        _element("caption", title),
        _element("tr", *(_element("th", cell) for cell in heading)),
        *(_element("tr", *(_element("td", cell) for cell in row)) for row in others),
    )


def _element(tag: str, *content: "str | Element") -> Element:
    element = Element(tag)
    for part in content:
        if isinstance(part, str):
            element.text = part
        else:
            element.append(part)
    return element
