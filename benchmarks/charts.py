"""Horizontal bars as SVG, drawn into the page itself."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement

OURS = frozenset(
    {"express", "express_orm", "penstock", "reader", "reader_orm", "sessions", "tune_gc_on"}
)
"""Whose bars have the colour of Penstock."""
STYLE = """
svg { max-width: 46rem; height: auto; font: 13px system-ui, sans-serif; }
svg text { fill: currentColor; }
.bar { fill: #9aa4b2; }
.ours { fill: #0f766e; }
.range { stroke: currentColor; stroke-width: 1.5; }
"""
WIDTH, LEFT, RIGHT, ROW = 736, 160, 130, 26


def bars(
    title: str, values: Mapping[str, float], ranges: Mapping[str, Sequence[float]] | None = None
) -> Element:
    """Draw a bar for each value, on one scale from zero.

    Args:
        title: What is drawn.
        values: By name, none below zero.
        ranges: Least and greatest, for the names that have them: a line over the bar.
    """
    ranges = ranges or {}
    height = ROW * (len(values) + 1)
    svg = Element("svg", {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": title})
    _text(svg, 0, 16, title, **{"font-weight": "bold"})
    largest = max([*values.values(), *(each[1] for each in ranges.values())], default=0) or 1
    scale = (WIDTH - LEFT - RIGHT) / largest
    for row, (name, value) in enumerate(values.items(), 1):
        top = row * ROW
        _text(svg, LEFT - 8, top + 16, name, **{"text-anchor": "end"})
        _shape(
            svg,
            "rect",
            {"x": LEFT, "y": top + 3, "width": value * scale, "height": ROW - 8},
            "bar ours" if name in OURS else "bar",
        )
        least, greatest = ranges.get(name, (value, value))
        middle = top + ROW / 2 - 1
        line = {"x1": LEFT + least * scale, "x2": LEFT + greatest * scale}
        _shape(svg, "line", {**line, "y1": middle, "y2": middle}, "range")
        _text(svg, LEFT + max(value, greatest) * scale + 6, top + 16, str(value))
    return svg


def _text(svg: Element, x: float, y: float, words: str, **attributes: str) -> None:
    SubElement(svg, "text", {"x": _number(x), "y": _number(y), **attributes}).text = words


def _shape(svg: Element, tag: str, sizes: Mapping[str, float], kind: str) -> None:
    attributes = {name: _number(size) for name, size in sizes.items()}
    SubElement(svg, tag, {**attributes, "class": kind})


def _number(value: Any) -> str:
    return f"{value:.1f}"
