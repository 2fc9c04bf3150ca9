"""What may be said of a statement: its text without values, what it does, and to which table."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from penstock.drivers.shapes import shape
from penstock.exporters.opentelemetry import conventions as names

__all__ = ["LONGEST_TEXT", "Described", "describer"]

LONGEST_TEXT = 2000
"""Characters of a statement that are kept."""
LOOKED_AT = 10_000
"""Characters in which its table is looked for."""
REMEMBERED = 500
"""Statements that are described once, as many as SQLAlchemy keeps compiled."""

_QUOTED_NAME = r'"(?:[^"]|"")*"|`[^`]*`'
_WORD = re.compile(rf"[()]|(?:{_QUOTED_NAME}|[\w$])(?:\.?(?:{_QUOTED_NAME}|[\w$]))*")

_BEFORE_THE_TABLE = {
    "SELECT": "FROM",
    "INSERT": "INTO",
    "UPDATE": "UPDATE",
    "DELETE": "FROM",
    "MERGE": "INTO",
    "COPY": "COPY",
}
"""By what a statement does, the word that its table follows."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a span says of its statement.

    Args:
        operation: Such as ``SELECT``; empty where there is no word.
        table: That it reads or writes first; empty where none was found.
        text: On one line, with ``?`` in the place of each value.
    """

    operation: str
    table: str
    text: str

    def name(self, batch: int) -> str:
        """Return the span's name, such as ``SELECT users``; empty where nothing is known.

        Args:
            batch: How many statements there are in one; 0 for the one.
        """
        words = ("BATCH" if batch > 1 else "", self.operation, self.table)
        return " ".join(word for word in words if word)

    def attributes(self, batch: int) -> dict[str, str | int]:
        """Return the span's attributes, as above."""
        known: dict[str, str | int] = {names.QUERY_TEXT: self.text}
        if name := self.name(batch):
            known[names.QUERY_SUMMARY] = name
        if self.operation:
            known[names.OPERATION] = f"BATCH {self.operation}" if batch > 1 else self.operation
        if self.table:
            known[names.COLLECTION] = self.table
        if batch > 1:
            known[names.BATCH_SIZE] = batch
        return known


def describer(system: str) -> Callable[[str], Described]:
    """Return what describes the statements of one database, and remembers the recent ones.

    Args:
        system: Such as ``postgresql``: where a literal ends is not the same for all.
    """
    is_mysql = system in {"mysql", "mariadb"}

    @lru_cache(maxsize=REMEMBERED)
    def described(sql: str) -> Described:
        text = shape(sql, is_mysql=is_mysql, longest=LOOKED_AT)
        operation, table = _summary(text)
        return Described(operation, table, text[:LONGEST_TEXT])

    return described


def _summary(text: str) -> tuple[str, str]:
    """Return what a statement does, and the first table that it does it to."""
    words = _outer_words(text)
    operation = next(words, "").strip("(")
    if operation.upper() == "WITH":
        operation = next((word for word in words if word.upper() in _BEFORE_THE_TABLE), operation)
    marker = _BEFORE_THE_TABLE.get(operation.upper())
    return operation, "" if marker is None else _word_after(marker, operation, words)


def _word_after(marker: str, before: str, words: Iterator[str]) -> str:
    for word in words:
        if before.upper() == marker and word.upper() != "ONLY":
            return word.strip("(")  # a subquery is no table
        if before.upper() == "DISTINCT" and word.upper() == "FROM":
            before = ""  # of a comparison: IS DISTINCT FROM
        elif word.upper() != "ONLY":
            before = word
    return ""


def _outer_words(text: str) -> Iterator[str]:
    """Return the words outside of parentheses, and each parenthesis that opens there."""
    depth = 0
    for match in _WORD.finditer(text):
        word = match[0]
        if word == ")":
            depth -= 1
            continue
        if depth == 0:
            yield word
        if word == "(":
            depth += 1
