"""The tokens of a statement, cut as the server's own lexer cuts them, in linear time."""

import re
from collections.abc import Iterator
from enum import Enum

__all__ = ["Kind", "Quotes", "Token", "tokens"]


class Kind(Enum):
    """What a token is."""

    WORD = "an identifier without quotes, or a keyword"
    NAME = "an identifier in quotes"
    CODED_NAME = 'an identifier as U&"..."'
    TEXT = "a literal in quotes or between dollar signs"
    VALUE = "a number or a parameter of any driver"
    DOUBTFUL = "a parameter of psycopg, or an expression that looks like one"
    MARK = "a parenthesis, bracket, comma, dot or semicolon"
    CAST = "::"
    OPERATOR = "any other character"
    OPEN_NAME = "an identifier whose quotes do not end"
    OPEN_TEXT = "a literal that does not end"
    OPEN_COMMENT = "a comment that does not end"


class Quotes(Enum):
    """How texts are quoted, where servers differ."""

    STANDARD = "PostgreSQL"
    BACKSLASHES = "PostgreSQL where standard_conforming_strings is off"
    MYSQL = "MySQL and MariaDB"


Token = tuple[Kind, int, int]
"""What it is, and where it begins and ends in the statement."""


# Every character outside of ASCII belongs to identifiers, whatever Unicode calls it.
_LETTER = r"[A-Za-z_\x80-\U0010FFFF]"


def _pattern(space: str, quoted: str, comma: str = ",") -> re.Pattern[str]:
    # One branch always matches, so that no space and no comment is ever given back.
    return re.compile(
        rf"""
        (?:[ \t\n\r\f\v]++|{space})*
        (?: (?P<END>\Z) | (?P<COMMENT>/\*) | {quoted}
        | (?P<WORD>{_LETTER}[A-Za-z0-9_$\x80-\U0010FFFF]*+)
        | (?P<VALUE>
            0[xX][0-9a-fA-F_]++ | 0[oO][0-7_]++ | 0[bB][01_]++
            | (?:[0-9][0-9_]*+(?:\.(?!\.)[0-9_]*+)? | \.[0-9][0-9_]*+)(?:[eE][+-]?[0-9]++)?
            | [$?][0-9]++ | %\(\w++\)[sbt]
          )
        | (?P<DOUBTFUL>%\([^()]*+\)[sbt])
        | (?P<CAST>::)
        | (?P<MARK>[().;\[\]]|{comma})
        | (?P<OPERATOR>.)
        )
        """,
        re.VERBOSE | re.DOTALL,
    )


_SPACE = r"[ \t\n\r\f\v]*+"
_PLAIN = rf"""{_SPACE}(?:
        \$[0-9]++ | -?[0-9]++(?:\.[0-9]++)? | '[^'\\]*+'(?:'[^'\\]*+')* | %\(\w++\)s | %s
        | (?:NULL|null|TRUE|true|FALSE|false|DEFAULT)(?![A-Za-z0-9_$\x80-\U0010FFFF])
    )
    (?:::[A-Za-z_][A-Za-z0-9_]*+(?:[ ]PRECISION|[ ]VARYING|[ ]WITH(?:OUT)?[ ]TIME[ ]ZONE)?
    (?:\[\])?)?{_SPACE}"""
# As many as a comma takes at once: what a regex has repeated costs memory until it ends.
_PLAIN_ROWS = rf",(?:(?:{_PLAIN}|{_SPACE}\({_PLAIN}(?:,{_PLAIN})*\){_SPACE}),){{0,100}}"

_POSTGRESQL = rf"""
    (?P<ESCAPED>[eE]') | (?P<QUOTED>[nN]?') | (?P<RAW>(?:[uU]&|[bBxX])')
    | (?P<NAME>") | (?P<CODED_NAME>[uU]&")
    | (?P<DOLLARS>\$(?:{_LETTER}[A-Za-z0-9_\x80-\U0010FFFF]*+)?\$)
"""
# A backslash escapes, double quotes are another kind of quotes, and # begins a comment.
_MYSQL = r"""(?P<ESCAPED>[bBnNxX]?') | (?P<DOUBLE>") | (?P<NAME>`)"""
_PATTERNS = {
    (quotes, skips): _pattern(r"--[^\r\n]*+", _POSTGRESQL, _PLAIN_ROWS if skips else ",")
    for quotes in (Quotes.STANDARD, Quotes.BACKSLASHES)
    for skips in (False, True)
}
_PATTERNS[Quotes.MYSQL, False] = _pattern(r"(?:\#|--(?=\s|\Z))[^\r\n]*+", _MYSQL)

_COMMENT_MARK = re.compile(r"/\*|\*/")
_BACKSLASH_OR = {quote: re.compile(rf"\\|{quote}") for quote in "'\""}
# Between two parts of one text, of which the second is escaped as the first.
_NEXT_LINE = re.compile(
    r"(?:[ \t\f\v]++|--[^\r\n]*+)*[\r\n](?:[ \t\n\r\f\v]++|--[^\r\n]*+[\r\n])*'"
)
_KINDS = {kind.name: kind for kind in Kind}
_OPEN = {
    "COMMENT": Kind.OPEN_COMMENT,
    "NAME": Kind.OPEN_NAME,
    "CODED_NAME": Kind.OPEN_NAME,
}
_LONG = {"COMMENT", "NAME", "CODED_NAME", "ESCAPED", "QUOTED", "RAW", "DOUBLE", "DOLLARS"}


def tokens(
    statement: str, quotes: Quotes = Quotes.STANDARD, *, skips_rows: bool = False
) -> Iterator[Token]:
    """Yield the tokens of a statement, without whitespace and comments.

    Args:
        statement: As it is sent, or as psycopg is given it.
        quotes: How texts are quoted in it.
        skips_rows: Whether a comma takes parameters and literals with it that are followed by
            another comma, and whole rows of them.
    """
    match, position, length = _PATTERNS[quotes, skips_rows].match, 0, len(statement)
    while position < length and (found := match(statement, position)):
        group = found.lastgroup or ""
        begin, position = found.span(group)
        if group in _LONG:
            end = _end_of_long(group, statement, begin, position, quotes)
            position = end or length
            if group != "COMMENT" or not end:
                kind = _KINDS.get(group, Kind.TEXT) if end else _OPEN.get(group, Kind.OPEN_TEXT)
                yield kind, begin, position
        elif begin < position:
            yield _KINDS[group], begin, position


def _end_of_long(group: str, statement: str, begin: int, position: int, quotes: Quotes) -> int:
    """Return where what begins here ends, 0 where it does not."""
    if group == "COMMENT":
        return _end_of_comment(statement, position)
    if group == "DOLLARS":
        tag = statement[begin:position]
        end = statement.find(tag, position)
        return end + len(tag) if end >= 0 else 0
    quote = statement[position - 1]
    if group in {"ESCAPED", "DOUBLE"} or (group == "QUOTED" and quotes is Quotes.BACKSLASHES):
        return _end_of_escaped(statement, position, quote, goes_on=quotes is not Quotes.MYSQL)
    return _end_of_quoted(statement, position, quote)


def _end_of_quoted(statement: str, position: int, quote: str) -> int:
    while end := statement.find(quote, position) + 1:
        if not statement.startswith(quote, end):
            return end
        position = end + 1
    return 0


def _end_of_escaped(statement: str, position: int, quote: str, *, goes_on: bool) -> int:
    pattern = _BACKSLASH_OR[quote]
    while found := pattern.search(statement, position):
        position = found.end()
        if found[0] == "\\" or statement.startswith(quote, position):
            position += 1
        elif goes_on and (further := _NEXT_LINE.match(statement, position)):
            position = further.end()
        else:
            return position
    return 0


def _end_of_comment(statement: str, position: int) -> int:
    depth = 1
    while depth and (mark := _COMMENT_MARK.search(statement, position)):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return 0 if depth else position
