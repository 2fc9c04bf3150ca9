"""The words by which a statement's effects are told: functions, keywords and clauses."""

from importlib.resources import files

__all__ = [
    "AFTER_GROUP_BY",
    "BEFORE_NO_CALL",
    "CLAUSES",
    "CONTROL",
    "HARMLESS",
    "KEYWORDS",
    "OBJECTS",
    "OPERAND",
    "PLAIN",
    "QUERIES",
    "READS",
    "SYNTAX",
]


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
