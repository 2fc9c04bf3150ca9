"""The words of a statement of PostgreSQL, as the server understands them."""

import re
from collections.abc import Collection, Iterator

from penstock.drivers.sql_text import Kind, tokens


def statements(sql: str, ends: Collection[str] = (";",)) -> Iterator[list[str]]:
    """Yield the words of each statement, without whitespace and comments.

    Keywords and names are in lower case; a name in quotes is as it is, behind a ``"``, a literal
    behind a ``'``. Parentheses, parameters and operators are words as well.

    Args:
        sql: As it is sent.
        ends: The words that end a statement, which are left out.
    """
    statement: list[str] = []
    for word in _words(sql):
        if word in ends:
            yield statement
            statement = []
        else:
            statement.append(word)
    yield statement


def _words(sql: str) -> Iterator[str]:
    coded, is_escape = "", False
    for kind, begin, end in tokens(sql):
        token = sql[begin:end]
        if coded and not is_escape and token.lower() == "uescape":
            is_escape = True
            continue
        if coded:
            yield _decoded(coded, token[1:2] if is_escape else "\\")
            coded = ""
            if is_escape:
                is_escape = False
                continue
        if kind is Kind.CODED_NAME:
            coded = token
        elif kind is Kind.NAME:
            yield '"' + token[1:-1].replace('""', '"')
        elif kind is Kind.TEXT:
            yield "'" + _value(token)
        else:
            yield token.lower()
    if coded:
        yield _decoded(coded, "\\")


def _decoded(name: str, escape: str) -> str:
    code = re.compile(rf"{re.escape(escape)}(?:\+([0-9a-fA-F]{{6}})|([0-9a-fA-F]{{4}}))")
    text = name[3:-1].replace('""', '"')
    return '"' + code.sub(lambda found: _character(found[1] or found[2]), text)


def _character(code: str) -> str:
    number = int(code, 16)
    return chr(number) if number <= 0x10FFFF else ""


def _value(literal: str) -> str:
    if literal[0] == "$":
        tag = literal.index("$", 1) + 1
        return literal[tag:-tag]
    return literal[literal.index("'") + 1 : -1].replace("''", "'")
