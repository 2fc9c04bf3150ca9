"""Words that the field says otherwise are in no name of the code and on no page."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("words.txt")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted((ROOT / "src").rglob("*.py"))
IN_NAMES_ALONE = "name: "
STILL = "still: "
NEW_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Word(NamedTuple):
    """A word that is not used, and the one that is."""

    pattern: str
    better: str
    only_in_names: bool

    def is_in_name(self, name: str) -> bool:
        """Return whether a name has it as one of its words."""
        words = NEW_WORD.sub("_", name).lower()
        return bool(re.search(rf"(?<![a-z0-9])(?:{self.pattern})(?![a-z0-9])", words))

    def is_in_line(self, line: str) -> bool:
        """Return whether a line of prose has it; as two words where it is parted by ``_``."""
        pattern = self.pattern.replace("_", "[ _-]")
        return not self.only_in_names and bool(
            re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", line.lower())
        )


LINES = [
    line for line in LIST.read_text(encoding="utf-8").splitlines() if line[:1] not in {"", "#"}
]


def _words() -> Iterator[Word]:
    for line in LINES:
        if not line.startswith(STILL):
            pattern, _, better = line.partition(" = ")
            is_name = line.startswith(IN_NAMES_ALONE)
            yield Word(pattern.removeprefix(IN_NAMES_ALONE), better, is_name)


WORDS = list(_words())
ALLOWED = {line.removeprefix(STILL) for line in LINES if line.startswith(STILL)}


def names_of(text: str) -> Iterator[str]:
    """Give each name of a module's text."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.string


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_no_name_has_a_word_that_the_field_says_otherwise(module: Path) -> None:
    found = {
        f"{name}: say {word.better}"
        for name in names_of(module.read_text(encoding="utf-8"))
        for word in WORDS
        if name not in ALLOWED and word.is_in_name(name)
    }

    assert not found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_has_a_word_that_the_field_says_otherwise(page: Path) -> None:
    found = [
        f"{number}: {line}: say {word.better}"
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        for word in WORDS
        if word.is_in_line(line)
    ]

    assert not found


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("is_lent", True),
        ("LentSlot", True),
        ("HTTPLoan", True),
        ("silent", False),
        ("lentil", False),
        ("hung_up", True),
        ("_HungUp", True),
        ("recommend", False),
        ("undone", True),
    ],
)
def test_a_name_is_read_by_its_words(name: str, seen: bool) -> None:
    assert any(word.is_in_name(name) for word in WORDS) is seen


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("The connection is borrowed.", True),
        ("Lending is over.", True),
        ("who is turned away waits", True),
        ("What was undone is gone.", False),
        ("recommended", False),
    ],
)
def test_a_line_is_read_by_its_words(line: str, seen: bool) -> None:
    assert any(word.is_in_line(line) for word in WORDS) is seen
