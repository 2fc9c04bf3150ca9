"""Statements without their values, so that those which differ in nothing else are one."""

import re
from functools import lru_cache

__all__ = ["LONGEST", "shape"]

LONGEST = 200
"""Characters of a statement that are kept."""

_LOOKED_AT = 10_000
"""Characters of a statement that are looked at: a list of ten thousand values ends here."""
_REMEMBERED = 2_000
"""Characters up to which a statement and its shape are kept for the next time."""

# What reads on to the end where the statement was cut, for there is nothing else it could be.
_BACKSLASHED = r"(?:[^{0}\\]|{0}{0}|\\.?)*(?:{0}|\Z)"
_PLAIN = r"(?:[^{0}]|{0}{0})*(?:{0}|\Z)"
_QUOTED = "'" + _PLAIN.format("'")
_IN_DOUBLE_QUOTES = '"' + _PLAIN.format('"')
_NEXT_LINE = r"[^\S\r\n]*(?:--[^\r\n]*)?[\r\n](?:\s|--[^\r\n]*[\r\n])*"
"""What stands between two parts of one text, of which the second is escaped as the first."""
_PARAMETER = r"(?P<parameter>%\(.*?\)s|%s|[$?]\d+)"
_WORD = r"(?P<word>[^\W\d][\w$]*|`[^`]*`?|::|%%)"
_NUMBER = r"(?P<value_of_a_number>\.?\d[\w.]*(?:(?<=[eE])[-+]\d+)?)"

# In the order in which they are tried, at each place that nothing before has taken.
_STANDARD = re.compile(
    rf"""
    (?P<comment>--[^\r\n]*) | (?P<block>/\*)
    | (?P<value>[eE]'{_BACKSLASHED.format("'")}(?:{_NEXT_LINE}'{_BACKSLASHED.format("'")})*
      | (?:[uU]&|[bBnNxX])?{_QUOTED}
      | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z))
    | (?P<name>{_IN_DOUBLE_QUOTES})
    | {_PARAMETER} | {_WORD} | {_NUMBER}
    """,
    re.VERBOSE | re.DOTALL,
)
# A backslash escapes, double quotes are another kind of quotes, and # begins a comment.
_MYSQL = re.compile(
    rf"""
    (?P<comment>--(?=\s|\Z)[^\r\n]*|\#[^\r\n]*) | (?P<block>/\*)
    | (?P<value>[bBnNxX]?'{_BACKSLASHED.format("'")} | "{_BACKSLASHED.format('"')})
    | {_PARAMETER} | {_WORD} | {_NUMBER}
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")

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


def _shape(statement: str, is_mysql: bool, longest: int) -> str:
    bare = " ".join(_without_values(statement, _MYSQL if is_mysql else _STANDARD).split())
    return _LIST.sub(_shortened, bare)[:longest].rstrip("; ")


_remembered = lru_cache(maxsize=500)(_shape)


def _without_values(statement: str, tokens: re.Pattern[str]) -> str:
    parts, end = [], 0
    while found := tokens.search(statement, end):
        parts.append(statement[end : found.start()])
        end = found.end()
        match found.lastgroup:
            case "block":
                end = _end_of_block(statement, end)
                parts.append(" ")
            case "comment":
                parts.append(" ")
            case "word" | "name":
                parts.append(found[0])
            case _:
                parts.append("?")
    parts.append(statement[end:])
    return "".join(parts)


def _end_of_block(statement: str, end: int) -> int:
    # They may stand in one another, as in PostgreSQL.
    depth = 1
    while depth and (mark := _COMMENT_MARK.search(statement, end)):
        depth += 1 if mark[0] == "/*" else -1
        end = mark.end()
    return len(statement) if depth else end


def _shortened(found: re.Match[str]) -> str:
    if found["array"]:
        return f"{found['array']}[...]" if "?" in found["items"] else found[0]
    if "?" not in found["first"] or _QUERY.search(found["first"]):
        return found[0]
    return f"{found['word']} (...)"
