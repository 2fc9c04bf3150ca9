"""The report of a load run as a page with charts, in one file that needs no network."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import floor, log10
from xml.etree.ElementTree import Element, SubElement, tostring

from penstock.load.histogram import Histogram
from penstock.load.report import LoadReport, compared, remarks
from penstock.load.result import PERCENTILES, Figures, Second

Points = Sequence[tuple[float, float]]
Ticks = Sequence[tuple[float, str]]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #8884; text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: currentColor; }
.grid { stroke: #8884; }
polyline { fill: none; stroke-width: 1.8; }
"""
_COLOURS = ("#0f766e", "#d97706", "#dc2626", "#64748b")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 800, 260, 64, 16, 30, 28
_PARTS = 4
_MOST_POINTS = 1000


def write_page(report: LoadReport, before: LoadReport | None = None) -> str:
    """Return the page.

    Args:
        report: The run.
        before: An earlier one, to show beside it.
    """
    html = Element("html", {"lang": "en"})
    head, body = SubElement(html, "head"), SubElement(html, "body")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "title").text = f"Load of {report.url}"
    SubElement(head, "style").text = _STYLE
    SubElement(body, "h1").text = f"Load of {report.url}"
    asked = ", ".join(f"{name}: {value}" for name, value in report.settings.items())
    _paragraphs(body, [f"{report.started}, {report.result.seconds:.1f} s", asked])
    _figures(body, report)
    _paragraphs(body, remarks(report.result))
    if before is not None:
        SubElement(body, "h2").text = f"Compared with the run of {before.started}"
        _table(body, ("", "before", "now", "change"), compared(before.result, report.result))
    body.extend(_charts(report, before))
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _paragraphs(parent: Element, sentences: Iterable[str]) -> None:
    for sentence in sentences:
        SubElement(parent, "p").text = sentence


def _figures(parent: Element, report: LoadReport) -> None:
    percentiles = [f"p{percent:g}" for percent in PERCENTILES]
    heading = ("request", "count", "success", "per s", "mean", *percentiles, "max, in ms")
    kinds = {**report.result.kinds, "all": report.result.total}
    _table(parent, heading, (_row(name, figures) for name, figures in kinds.items()))


def _row(name: str, figures: Figures) -> list[str]:
    latencies = figures.latencies
    milliseconds = [
        latencies.mean_ms,
        *(latencies.percentile(percent) for percent in PERCENTILES),
        latencies.max_ms,
    ]
    return [
        name,
        f"{figures.requests:,}",
        f"{figures.success_rate:.2%}",
        f"{figures.requests_per_second:,.1f}",
        *("" if each is None else f"{each:,.2f}" for each in milliseconds),
    ]


def _table(parent: Element, heading: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    table = SubElement(parent, "table")
    for tag, row in (("th", heading), *(("td", row) for row in rows)):
        line = SubElement(table, "tr")
        for cell in row:
            SubElement(line, tag).text = cell


def _charts(report: LoadReport, before: LoadReport | None) -> list[Element]:
    latencies = {"now": _by_percentile(report.result.total.latencies)}
    if before is not None:
        latencies["before"] = _by_percentile(before.result.total.latencies)
    timeline = report.result.timeline
    over_time = {
        "median": [(each.at, each.p50_ms or 0) for each in timeline if each.p50_ms is not None],
        "p99": [(each.at, each.p99_ms or 0) for each in timeline if each.p99_ms is not None],
        "longest": [(each.at, each.max_ms or 0) for each in timeline if each.max_ms is not None],
    }
    ended = _by_second(timeline, int(report.result.seconds))
    last = max((each.at for each in timeline), default=0)
    seconds = [(last * part / _PARTS, f"{last * part / _PARTS:g} s") for part in range(_PARTS + 1)]
    nines = [(0.0, "0 %"), *((float(n), f"{100 - 10 ** (2 - n):g} %") for n in range(1, 6))]
    return [
        _chart("Latency by percentile, in ms", latencies, nines),
        _chart("Latency over time, in ms", over_time, seconds),
        _chart("Requests that ended, per second", {"requests": ended["requests"]}, seconds),
        _chart("Errors, per second", {"errors": ended["errors"]}, seconds),
    ]


def _by_percentile(latencies: Histogram) -> Points:
    """Return the latency that each share did not exceed, by the number of nines of the share."""
    buckets, total = latencies.buckets(), len(latencies)
    seen = accumulate(count for _, count in buckets)
    return [
        (-log10(1 - before / total), latency)
        for (latency, count), until in zip(buckets, seen, strict=True)
        for before in (until - count,)
    ]


def _by_second(timeline: Sequence[Second], whole: int) -> Mapping[str, Points]:
    """Return the numbers of each whole second, zeros for those in which nothing ended."""
    by_second = {each.at: each for each in timeline}
    ended = [(at, by_second.get(at)) for at in range(whole)]
    return {
        "requests": [(at, each.requests if each else 0) for at, each in ended],
        "errors": [(at, each.errors if each else 0) for at, each in ended],
    }


def _chart(title: str, series: Mapping[str, Points], ticks: Ticks) -> Element:
    """Draw lines over one scale from zero."""
    svg = Element("svg", {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": title})
    _text(svg, 0, 14, title, **{"font-weight": "bold"})
    points = [point for line in series.values() for point in line]
    top = _round_up(max((y for _, y in points), default=0) or 1)
    end = max((x for x, _ in points), default=0) or 1
    x_scale = (_WIDTH - _LEFT - _RIGHT) / end
    y_scale = (_HEIGHT - _TOP - _BOTTOM) / top
    bottom = _HEIGHT - _BOTTOM
    for part in range(_PARTS + 1):
        y = bottom - top * part / _PARTS * y_scale
        line = {"x1": f"{_LEFT}", "x2": f"{_WIDTH - _RIGHT}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
        SubElement(svg, "line", {**line, "class": "grid"})
        _text(svg, _LEFT - 6, y + 4, f"{top * part / _PARTS:,.4g}", **{"text-anchor": "end"})
    for x, words in ticks:
        if x <= end:
            _text(svg, _LEFT + x * x_scale, _HEIGHT - 8, words, **{"text-anchor": "middle"})
    for number, (name, values) in enumerate(series.items()):
        colour = _COLOURS[number]
        step = len(values) // _MOST_POINTS + 1
        drawn = [*values[::step], *values[-1:]]
        places = " ".join(f"{_LEFT + x * x_scale:.1f},{bottom - y * y_scale:.1f}" for x, y in drawn)
        SubElement(svg, "polyline", {"points": places, "stroke": colour})
        _text(svg, _WIDTH - 90 * (len(series) - number), 14, name, style=f"fill: {colour}")
    return svg


def _round_up(value: float) -> float:
    """Return a number above whose quarters are short."""
    magnitude = 10.0 ** floor(log10(value))
    return min(each * magnitude for each in (1, 2, 4, 6, 8, 10) if each * magnitude >= value)


def _text(svg: Element, x: float, y: float, words: str, **attributes: str) -> None:
    SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", **attributes}).text = words
