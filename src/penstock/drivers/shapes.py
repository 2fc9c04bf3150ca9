"""Statements without their values, so that those which differ in nothing else are one."""

import re
from functools import lru_cache

from penstock.drivers.lexer import Kind, Quotes, tokens

__all__ = ["LONGEST", "shape", "without_literals"]

LONGEST = 200
"""Characters of a statement that are kept."""

_LOOKED_AT = 10_000
"""Characters of a statement that are looked at: a list of ten thousand values ends here."""
_REMEMBERED = 2_000
"""Characters up to which a statement and its shape are kept for the next time."""

_VALUES = frozenset({Kind.TEXT, Kind.VALUE, Kind.DOUBTFUL, Kind.OPEN_TEXT})

_LITERALS = _VALUES - {Kind.VALUE}
_DIGITS = frozenset(".0123456789")

_GROUP = r"\((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*(?:\)|\Z))*(?:\)|\Z))*(?:\)|\Z))*(?:\)|\Z)"
_LIST = re.compile(
    rf"\b(?P<word>IN|VALUES) ?(?P<first>{_GROUP})(?: ?, ?{_GROUP})*"
    r"|\b(?P<array>ARRAY) ?\[(?P<items>[^\]]*)(?:\]|\Z)",
    re.IGNORECASE,
)
_QUERY = re.compile(r"\b(?:SELECT|WITH|TABLE)\b", re.IGNORECASE)


def shape(statement: str, *, is_mysql: bool = False, longest: int = LONGEST) -> str:
    """Return a statement on one line and without values, cut.

    Texts, numbers and parameters become ``?``, and lists of them ``(...)``, however long. Comments
    are left out, for they may hold values as well.

    Args:
        statement: As it is sent.
        is_mysql: Whether it is written for MySQL or MariaDB, which quote otherwise.
        longest: Characters that are kept.
    """
    if len(statement) > _REMEMBERED:
        return _shape(statement[:_LOOKED_AT], is_mysql, longest)
    return _remembered(statement, is_mysql, longest)


def without_literals(statement: str, *, is_mysql: bool = False) -> str:
    """Return a statement with ``?`` for each text and number in it, and with its parameters.

    What is longer than 10,000 characters is cut there, unless nothing has to be left out of them.

    Args:
        statement: As it is sent.
        is_mysql: As for :func:`shape`.
    """
    begun = statement[:_LOOKED_AT]
    parts, copied = [], 0
    for kind, begin, stop in tokens(begun, Quotes.MYSQL if is_mysql else Quotes.STANDARD):
        if kind in _LITERALS or (kind is Kind.VALUE and begun[begin] in _DIGITS):
            parts += [begun[copied:begin], "?"]
            copied = stop
        elif kind is Kind.OPEN_COMMENT:
            parts.append(begun[copied:begin])
            copied = stop
    return "".join([*parts, begun[copied:]]) if parts else statement


def _shape(statement: str, is_mysql: bool, longest: int) -> str:
    quotes = Quotes.MYSQL if is_mysql else Quotes.STANDARD
    bare = " ".join(_without_values(statement, quotes).split())
    return _LIST.sub(_shortened, bare)[:longest].rstrip("; ")


_remembered = lru_cache(maxsize=500)(_shape)


def _without_values(statement: str, quotes: Quotes) -> str:
    parts, end = [""], 0
    for kind, begin, stop in tokens(statement, quotes):
        text = "?" if kind in _VALUES else statement[begin:stop]
        if begin > end:
            parts.append(" ")
        elif parts[-1] == "%" and text in {"s", "%"}:
            # What psycopg takes for a parameter, and its way to write a percent sign.
            text = "?" if text == "s" else "%%"
            parts.pop()
        parts.append("" if kind is Kind.OPEN_COMMENT else text)
        end = stop
    return "".join(parts)


def _shortened(found: re.Match[str]) -> str:
    if found["array"]:
        return f"{found['array']}[...]" if "?" in found["items"] else found[0]
    if "?" not in found["first"] or _QUERY.search(found["first"]):
        return found[0]
    return f"{found['word']} (...)"
