"""The text of a statement: its tokens, its words, and its shape without values."""

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from importlib.resources import files


def _lines(name: str) -> list[str]:
    return files("penstock.drivers").joinpath(name).read_text("ascii").splitlines()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HARMLESS = frozenset(_lines("harmless_functions.txt"))
"""Functions of ``pg_catalog`` that leave nothing on the session."""
_CATEGORIES = dict(line.split() for line in _lines("keywords.txt"))
KEYWORDS = frozenset(_CATEGORIES)
"""Keywords of any category."""
SYNTAX = frozenset(word for word, category in _CATEGORIES.items() if category in "RC")
"""Keywords that are no function's name, unless in quotes or after a dot."""

OPERAND = "1"
"""Stands for all that ends an expression, and for a name that is no keyword."""
BEFORE_NO_CALL = _words(
    f"{OPERAND} :: analyse analyze as copy exists into of only ordinality recursive references"
    " table type update vacuum verbose view with"
    " current_catalog current_date current_role current_schema current_time current_timestamp"
    " current_user end false localtime localtimestamp null precision session_user system_user"
    " true user varying"
)
"""After these a name with a parenthesis is a table, a type, an alias or a clause, and no call."""
CLAUSES = {
    "bernoulli": _words("tablesample"),
    "by": _words("group order partition"),
    "first": _words("fetch"),
    "join": _words("cross full inner left natural outer right"),
    "key": _words("foreign primary"),
    "next": _words("fetch"),
    "second": _words("interval to"),
    "set": _words("update"),
    "sets": _words("grouping"),
    "system": _words("tablesample"),
    "varying": _words("bit char character nchar"),
    "zone": _words("time"),
}
"""Words that begin a clause after the ones given, and may be a function's name elsewhere."""
AFTER_GROUP_BY = _words(
    "except fetch for having intersect limit offset on order returning union window"
)
"""Keywords that end GROUP BY."""

QUERIES = _words("select table values with")
READS = QUERIES | {"show", "explain"}
CONTROL = _words("abort begin commit end release rollback savepoint start")
"""First keywords of transaction control, PREPARE TRANSACTION aside."""
PLAIN = READS | _words(
    "analyse analyze checkpoint cluster comment copy delete drop grant insert lock merge notify"
    " refresh reindex revoke truncate update vacuum"
)
"""First keywords of statements that leave nothing, the functions aside that they call."""
OBJECTS = _words(
    "domain index materialized policy recursive schema sequence statistics table type unique"
    " unlogged view"
)
"""What CREATE and ALTER may be about and leave nothing."""


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
    text = " ".join(_without_values(statement, quotes).split())
    return _LIST.sub(_shortened, text)[:longest].rstrip("; ")


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
