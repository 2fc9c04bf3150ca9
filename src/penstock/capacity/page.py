"""A plan as one HTML file, with its charts drawn in it: it loads nothing and runs nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from pathlib import Path

from penstock.base_error import PenstockError
from penstock.capacity.report import (
    SIMULATED_HEADINGS,
    bounded_by,
    expected_rows,
    seconds,
    server_rows,
    settings_rows,
    simulated_rows,
    title,
    what_if_rows,
)
from penstock.planner import Plan, Simulated, shown_rate, shown_share

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = Path(__file__).with_name("page.css")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 480, 280, 72, 48, 28
_POINTS = 48
_TICKS = 4


@dataclass(frozen=True, slots=True)
class _Series:
    name: str
    points: Sequence[tuple[float, float]]


def write_page(path: Path, plan: Plan, simulated: Simulated | None = None) -> None:
    """Write a plan into an HTML file.

    Args:
        path: The file.
        plan: What was planned.
        simulated: Its simulation; None where there is none.

    Raises:
        PenstockError: It cannot be written.
    """
    try:
        path.write_text(render_page(plan, simulated), encoding="utf-8")
    except OSError as error:
        raise PenstockError(f"--html {path}: it cannot be written: {error.strerror}") from None


def render_page(plan: Plan, simulated: Simulated | None = None) -> str:
    """Return a plan as a page that needs no network and follows the reader's theme."""
    tables = (
        ("Set", settings_rows(plan)),
        ("On the server", server_rows(plan)),
        ("Expect", expected_rows(plan.predicted)),
        ("Inputs", {name: str(value) for name, value in plan.inputs.given().items()}),
    )
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>Capacity plan: {escape(title(plan))}</title>",
            f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head><body>",
            f"<h1>Capacity plan</h1><p>{escape(title(plan))}</p>",
            f"<p>{escape(bound)}</p>" if (bound := bounded_by(plan)) else "",
            _findings(plan),
            f'<div class="tables">{"".join(_pairs(*each) for each in tables)}</div>',
            "" if simulated is None else _simulated(plan, simulated),
            _by_rate(plan),
            _by_connections(plan),
            _what_if(plan),
            "</body></html>\n",
        )
    )


def _findings(plan: Plan) -> str:
    if not plan.findings:
        return '<p class="ok">No check finds anything.</p>'
    items = "".join(
        f'<li class="{escape(each.severity)}"><b>{escape(each.severity)}: {escape(each.id)}</b> '
        f"{escape(each.evidence)} {escape(each.remedy)}</li>"
        for each in plan.findings
    )
    return f"<h2>Findings</h2><ul>{items}</ul>"


def _pairs(heading: str, rows: Mapping[str, str]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<section><h2>{escape(heading)}</h2><table>{body}</table></section>"


def _what_if(plan: Plan) -> str:
    headings, rows = what_if_rows(plan)
    return (
        "<h2>What if</h2><p>99th percentile of wait and hold time, and the share of the "
        "connections in use, by rate and by connections of each pool.</p>"
        f"{_table(headings, rows)}"
    )


def _simulated(plan: Plan, simulated: Simulated) -> str:
    rows = [(False, row) for row in simulated_rows(plan, simulated)]
    return f"<h2>By formula beside simulated</h2>{_table(SIMULATED_HEADINGS, rows)}"


def _table(headings: Iterable[str], rows: Iterable[tuple[bool, Iterable[str]]]) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in headings)
    body = "".join(
        f'<tr class="{"planned" if is_planned else "other"}">'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for is_planned, cells in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _by_rate(plan: Plan) -> str:
    largest = max(plan.rate * 1.1, plan.rate / max(plan.predicted.queue.utilisation, 1e-9) * 0.98)
    found = [plan.predict(rate=largest * step / _POINTS) for step in range(1, _POINTS + 1)]
    return _chart(
        "By rate",
        f"requests per second, with {plan.connections} connections in each pool",
        seconds,
        [
            _Series("p99 of wait and hold", [(each.rate, each.response_p99) for each in found]),
            _Series("mean wait", [(each.rate, each.queue.mean_wait) for each in found]),
        ],
        mark=plan.rate,
    )


def _by_connections(plan: Plan) -> str:
    step = max(1, plan.connections * 3 // _POINTS)
    found = [plan.predict(connections=n) for n in range(1, plan.connections * 3 + 1, step)]
    return _chart(
        "By connections",
        "connections of each pool, at the planned rate",
        shown_share,
        [
            _Series("in use", [(each.connections, each.queue.utilisation) for each in found]),
            _Series(
                "requests that wait",
                [(each.connections, each.queue.waiting_probability) for each in found],
            ),
        ],
        mark=plan.connections,
        top=1.0,
    )


def _chart(
    heading: str,
    axis: str,
    label: Callable[[float], str],
    series: Sequence[_Series],
    *,
    mark: float,
    top: float | None = None,
) -> str:
    known = [point for each in series for point in each.points if isfinite(point[1])]
    right = max((x for x, _ in known), default=1.0)
    # What is near the pole is left out, so that the rest can be read.
    at_mark = [y for each in series for x, y in each.points if x <= mark and isfinite(y)]
    highest = top or min(max((y for _, y in known), default=1.0), 4 * max(at_mark, default=1.0))

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + x / right * (_WIDTH - _LEFT - _MARGIN)
        return across, _HEIGHT - _BOTTOM - y / highest * (_HEIGHT - _BOTTOM - _MARGIN)

    lines = "".join(
        f'<polyline class="s{number}" points="{_path(place(x, y) for x, y in shown)}"/>'
        for number, each in enumerate(series)
        for shown in [[(x, y) for x, y in each.points if y <= highest]]
    )
    across, _ = place(mark, 0)
    return (
        f"<h2>{escape(heading)}</h2>{_legend(series)}"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(heading)}: '
        f'{escape(", ".join(each.name for each in series))}">'
        f"{_grid(place, right, highest, label)}"
        f'<line class="mark" x1="{across:.1f}" x2="{across:.1f}" y1="{_MARGIN}" '
        f'y2="{_HEIGHT - _BOTTOM}"/>{lines}'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(axis)}</text></svg>'
    )


def _legend(series: Sequence[_Series]) -> str:
    items = "".join(
        f'<li class="s{number}">{escape(each.name)}</li>' for number, each in enumerate(series)
    )
    return f'<ul class="legend">{items}<li class="mark">planned</li></ul>'


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _grid(
    place: Callable[[float, float], tuple[float, float]],
    right: float,
    highest: float,
    label: Callable[[float], str],
) -> str:
    parts = []
    for tick in range(_TICKS + 1):
        x, y = right * tick / _TICKS, highest * tick / _TICKS
        across, up = place(x, y)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _MARGIN}" y1="{up:.1f}" y2="{up:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{escape(label(y))}</text>'
            f'<text x="{across:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{escape(shown_rate(x) if x else '0')}</text>"
        )
    return "".join(parts)
