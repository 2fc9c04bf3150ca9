"""Nothing of what a server says is believed."""

import pytest
from tests.unit.cli.live_service import database, document

from penstock.watch import Document, DocumentError
from penstock.watch.document import Part, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /things/{id}", "GET /things/{id}"),
        ("SELECT 1\n\tFROM  x", "SELECT 1 FROM x"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("a\x1b]0;never ended", "a"),
        ("a\x1bcb\x1b", "ab"),
        ("bell\x07 null\x00 del\x7f back\x08", "bell null del back"),
        ("\u202eright to left\u2066", "right to left"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("line\u2028paragraph\u2029", "line paragraph"),
        ("half \ud800", "half"),
        ("[bold red]not markup[/] :smile:", "[bold red]not markup[/] :smile:"),
        ("größe 大", "größe 大"),
        ("x" * 5000, "x" * 1000),
    ],
)
def test_text_is_one_line_that_a_terminal_only_shows(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_every_control_character_is_left_out() -> None:
    codes = [*range(32), *range(127, 160)]
    hostile = "".join(f"{chr(code)}x" for code in codes)

    assert all(chr(code) not in plain(hostile) for code in codes)


@pytest.mark.parametrize(
    "value", ["3", True, None, [3], {}, 1e300, -1e300, 10**400, float("inf"), float("nan")]
)
def test_a_number_that_is_none_is_not_known(value: object) -> None:
    part = Part({"number": value})

    assert part.number("number") is None
    assert part.count("number") == 0
    assert part.column("number") == ([3.0] if value == [3] else [])


def test_a_field_of_another_type_counts_as_empty() -> None:
    part = Part({"text": 1, "part": [], "parts": "x", "mixed": [{"a": 1}, 2]})

    assert part.text("text") == ""
    assert part.part("part") == Part()
    assert part.parts("parts") == []
    assert [each.number("a") for each in part.parts("mixed")] == [1.0, None]


@pytest.mark.parametrize("text", ["", "<html>", "{", "[" * 100_000, "9" * 10_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="does not answer with JSON"):
        Document.parse(text)


@pytest.mark.parametrize("text", ["{}", "[]", "1", '{"databases": 1}', '{"status": "ok"}'])
def test_json_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="not Penstock's live document"):
        Document.parse(text)


def test_numbers_that_json_does_not_have_are_null() -> None:
    parsed = Document.parse('{"databases": [], "a": NaN, "b": -Infinity, "c": 1e999}')

    assert parsed.line() == '{"databases": [], "a": null, "b": null, "c": null}\n'


@pytest.mark.parametrize(
    ("column", "newest"),
    [
        ([], 0),
        ([7.9, 8.9], 8),
        ([9.5, 1], 9),
        ([None, 5, "x"], 5),
        ([-3], 0),
        ([float("nan")], 0),
        ("x", 0),
        (None, 0),
    ],
)
def test_the_newest_second_of_each_database_is_known(column: object, newest: int) -> None:
    parts = [{"name": "a", "history": {"at": column}}, {"name": "b", "history": {"at": [3]}}]

    assert Document({"databases": parts}).newest == {"a": newest, "b": 3}


def test_one_database_can_be_picked() -> None:
    both = Document(document(database("default"), database("reports")))

    assert [each.text("name") for each in both.only("reports").databases] == ["reports"]


def test_a_database_that_is_not_there_is_refused_with_those_that_are() -> None:
    both = Document(document(database("default"), database("re\x1b[1mports")))

    with pytest.raises(DocumentError, match=r"no database 'other'; those .* are: default, reports"):
        both.only("other")
    with pytest.raises(DocumentError, match="it shows none"):
        Document({"databases": []}).only("other")
