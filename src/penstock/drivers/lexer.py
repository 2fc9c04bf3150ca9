"""The tokens of a statement, as PostgreSQL's own lexer cuts them."""

import re
from collections.abc import Iterator
from enum import Enum

__all__ = ["Kind", "Token", "tokens"]


class Kind(Enum):
    """What a token is."""

    WORD = "an identifier without quotes, or a keyword"
    NAME = "an identifier in double quotes"
    CODED_NAME = 'an identifier as U&"..."'
    TEXT = "a literal in single quotes or between dollar signs"
    VALUE = "a number or a parameter, of any driver's style"
    DOUBTFUL = "a parameter of psycopg whose name has quotes or comments in it"
    MARK = "a parenthesis, bracket, comma, dot or semicolon"
    CAST = "::"
    OPERATOR = "any other character"
    OPEN = "a text, name or comment that does not end"


Token = tuple[Kind, int, int]
"""What it is, and where it begins and ends in the statement."""

# Every character outside of ASCII belongs to identifiers, whatever Unicode calls it.
_TOKEN = re.compile(
    r"""
    (?P<SPACE>[ \t\n\r\f\v]++ | --[^\r\n]*+)
    | (?P<COMMENT>/\*)
    | (?P<ESCAPED>[eE]')
    | (?P<PLAIN>[nN]?')
    | (?P<CODED>(?:[uU]&|[bBxX])')
    | (?P<NAME>")
    | (?P<CODED_NAME>[uU]&")
    | (?P<WORD>[A-Za-z_\x80-\U0010FFFF][A-Za-z0-9_$\x80-\U0010FFFF]*+)
    | (?P<DOLLARS>\$(?:[A-Za-z_\x80-\U0010FFFF][A-Za-z0-9_\x80-\U0010FFFF]*+)?\$)
    | (?P<VALUE>
        0[xX][0-9a-fA-F_]++ | 0[oO][0-7_]++ | 0[bB][01_]++
        | (?:[0-9][0-9_]*+(?:\.(?!\.)[0-9_]*+)? | \.[0-9][0-9_]*+)(?:[eE][+-]?[0-9]++)?
        | \$[0-9]++ | %\(\w++\)[sbt]
      )
    | (?P<DOUBTFUL>%\([^()]*+\)[sbt])
    | (?P<CAST>::)
    | (?P<MARK>[(),.;\[\]])
    | (?P<OPERATOR>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_ESCAPE_OR_QUOTE = re.compile(r"\\|'")
# Between two parts of one text, of which the second is escaped as the first.
_NEXT_LINE = re.compile(
    r"(?:[ \t\f\v]++|--[^\r\n]*+)*[\r\n](?:[ \t\n\r\f\v]++|--[^\r\n]*+[\r\n])*'"
)
_SINGLE = {kind.name: kind for kind in Kind}


def tokens(statement: str, *, backslashes: bool = False) -> Iterator[Token]:
    """Yield the tokens of a statement, without whitespace and comments.

    It takes a time that is linear in the statement's length, whatever is in it.

    Args:
        statement: As it is sent, or as psycopg is given it.
        backslashes: Whether a backslash escapes in every text, as where
            ``standard_conforming_strings`` is off.
    """
    match, position, length = _TOKEN.match, 0, len(statement)
    while position < length:
        found = match(statement, position)
        if found is None or found.lastgroup is None:  # pragma: no cover - the last branch is any
            raise AssertionError(position)
        group, begin, position = found.lastgroup, position, found.end()
        if kind := _SINGLE.get(group):
            if group in _QUOTED_NAMES:
                position = _after_quotes(statement, position, '"')
            yield (kind if position else Kind.OPEN), begin, position or length
        elif group != "SPACE":
            position = _after_long(group, statement, begin, position, backslashes=backslashes)
            if group != "COMMENT" or not position:
                yield (Kind.TEXT if position else Kind.OPEN), begin, position or length
        position = position or length


_QUOTED_NAMES = frozenset({"NAME", "CODED_NAME"})


def _after_long(group: str, statement: str, begin: int, position: int, *, backslashes: bool) -> int:
    """Return where a text or comment ends, 0 where it does not."""
    if group == "COMMENT":
        return _after_comment(statement, position)
    if group == "DOLLARS":
        tag = statement[begin:position]
        end = statement.find(tag, position)
        return end + len(tag) if end >= 0 else 0
    if group == "ESCAPED" or (backslashes and group == "PLAIN"):
        return _after_escaped(statement, position)
    return _after_quotes(statement, position, "'")


def _after_quotes(statement: str, position: int, quote: str) -> int:
    while end := statement.find(quote, position) + 1:
        if not statement.startswith(quote, end):
            return end
        position = end + 1
    return 0


def _after_escaped(statement: str, position: int) -> int:
    while found := _ESCAPE_OR_QUOTE.search(statement, position):
        position = found.end()
        if found[0] == "\\" or statement.startswith("'", position):
            position += 1
        elif further := _NEXT_LINE.match(statement, position):
            position = further.end()
        else:
            return position
    return 0


def _after_comment(statement: str, position: int) -> int:
    depth = 1
    while depth and (mark := _COMMENT_MARK.search(statement, position)):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return 0 if depth else position
