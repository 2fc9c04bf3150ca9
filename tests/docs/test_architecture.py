"""The architecture's page names rooms and classes that are there."""

import ast
import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "penstock"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- rooms: tests/docs/test_architecture.py writes and checks them -->\n"
END = "<!-- end of rooms -->\n"


def floors() -> list[list[str]]:
    """The rooms of each floor, the highest first, as the import contract has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [layer.split(" | ") for layer in layers]


def purpose(room: str) -> str:
    """The first line of a room's docstring."""
    path = SOURCE / room / "__init__.py"
    if not path.exists():
        path = SOURCE / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, room
    return docstring.splitlines()[0].replace("``", "`")


def table() -> str:
    rows = [
        f"| {floor} | `{room}` | {purpose(room)} |"
        for floor, rooms in zip(range(len(floors()), 0, -1), floors(), strict=True)
        for room in rooms
    ]
    return "\n".join(["", "| floor | room | what it is |", "|---|---|---|", *rows, "", ""])


def test_the_table_of_rooms_is_the_contract() -> None:
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    written, end, after = rest.partition(END)
    assert begin
    assert end
    if os.environ.get("WRITE_ROOMS"):
        PAGE.write_text(before + begin + table() + end + after, encoding="utf-8")
    else:
        assert written == table(), "run this test with WRITE_ROOMS=1"


def classes() -> set[str]:
    return {
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def test_each_class_in_a_diagram_is_there() -> None:
    diagrams = re.findall(r"```mermaid\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    named = {
        name
        for diagram in diagrams
        for name in re.findall(r"^ *participant (\w+)$", diagram, re.MULTILINE)
    }

    assert len(diagrams) == 5
    assert len(named) >= 20
    assert not named - classes()


@pytest.mark.parametrize("diagram", range(5))
def test_each_arrow_leads_between_those_that_were_named(diagram: int) -> None:
    page = PAGE.read_text(encoding="utf-8")
    text = re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL)[diagram]
    named = set(re.findall(r"^ *participant (\w+)", text, re.MULTILINE))
    arrows = re.findall(r"^ *(\w+)--?>>(\w+): ", text, re.MULTILINE)

    assert {name for arrow in arrows for name in arrow} == named
