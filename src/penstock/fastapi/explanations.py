"""What the documentation says of each finding, for the live page."""

import re
from functools import cache
from pathlib import Path

_PAGE = Path(__file__).with_name("findings.md")
"""A link to ``docs/findings.md`` in the repository, and the page itself in what is installed."""
_HEADING = re.compile(r"^## `([a-z0-9-]+)`$", re.MULTILINE)
_ITEM = re.compile(r"^- \*\*(?P<term>[^*]+):\*\* (?P<text>(?:.|\n(?!- |\n|#))+)", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


@cache
def explanations() -> dict[str, list[tuple[str, str]]]:
    """Return the terms and texts of every finding that is documented, by its id."""
    return parse(_PAGE.read_text(encoding="utf-8"))


def parse(page: str) -> dict[str, list[tuple[str, str]]]:
    """Return the terms and texts of each finding, as plain text.

    Args:
        page: Markdown, in which each finding is a section with its id in code as the heading, and
            each term a list item that begins in bold.
    """
    _, *parts = _HEADING.split(page)
    return {
        identifier: [(item["term"], _plain(item["text"])) for item in _ITEM.finditer(section)]
        for identifier, section in zip(parts[::2], parts[1::2], strict=True)
    }


def _plain(markdown: str) -> str:
    text = " ".join(_LINK.sub(r"\1", markdown).replace("`", "").replace("**", "").split())
    return text[:1].upper() + text[1:]
