"""What a statement of PostgreSQL may leave behind on its session, by its text alone.

The text is not parsed but read once, token by token, and all that is not known to be harmless
counts: a kind of statement that is not listed here, and a call of a function that is not in
``harmless_functions.txt``. That file has the functions of ``pg_catalog`` of PostgreSQL 15 to 18
that a statement can call, without those that work on the session, run a text that they are given,
or load a library; ``keywords.txt`` has what ``pg_get_keywords()`` of the same versions says. Tests
hold both against the server that is there and name what a newer one adds.

What cannot be seen in a text:

- what views, triggers, rules, policies, defaults, operators, casts and the attribute notation
  (``row.function``) call, and a user's function by a name of ``pg_catalog``;
- PREPARE and LOAD within a function, and ``pg_temp`` in a parameter that becomes the
  ``search_path``;
- the values of ``currval`` and ``lastval``: ``nextval`` is not counted, since defaults of columns
  call it as well;
- that a setting of one's own is empty, and no longer NULL, after a transaction that set it for
  itself: only a new connection undoes that.

The body of a function in SQL's own syntax (``BEGIN ATOMIC``) counts as several statements.
"""

import enum
from collections.abc import Callable
from functools import lru_cache

from penstock.drivers.sql_text import (
    AFTER_GROUP_BY,
    BEFORE_NO_CALL,
    CLAUSES,
    CONTROL,
    HARMLESS,
    KEYWORDS,
    OBJECTS,
    OPERAND,
    PLAIN,
    QUERIES,
    READS,
    SYNTAX,
    Kind,
    Quotes,
    tokens,
)


class Effect(enum.IntFlag):
    """What a statement may do beyond its rows."""

    NONE = 0
    SESSION = enum.auto()
    """It may leave state on the session: settings, a role, locks, temporary tables, LISTEN."""
    LASTING = enum.auto()
    """Only a new connection undoes what it may leave: prepared statements made or dropped, the
    driver's own included, a loaded library, a temporary replication slot."""
    CONTROL = enum.auto()
    """It begins or ends a transaction or a savepoint."""
    SEVERAL = enum.auto()
    """It is more than one statement."""
    READS = enum.auto()
    """It is one statement and begins with SELECT, WITH, VALUES, TABLE, SHOW or EXPLAIN: it runs in
    a read-only transaction, and no code in it can end that."""
    TRANSACTION = enum.auto()
    """It may leave what ends with the transaction: a setting, an advisory lock, a notification."""
    DRIVER = enum.auto()
    """No effect of a statement: code outside SQLAlchemy has the driver's connection."""


AFTER_TRANSACTION = ~(Effect.READS | Effect.TRANSACTION)
"""Those of a statement's effects that outlive its transaction."""


def effects_of(sql: str) -> Effect:
    """Return what a statement may leave behind; the answers for recent statements are kept.

    Args:
        sql: As it is sent, with the parameters of any driver.
    """
    length = len(sql)
    if length <= SHORT:
        return effects_of_short(sql)
    return _of_long(sql) if length <= _LONG else _effects(sql)


def _effects(sql: str) -> Effect:
    effects = _Reading(sql).effects()
    if "\\'" in sql:
        # Where standard_conforming_strings is off, texts end elsewhere; where they do not end at
        # all, such a server refuses the statement.
        other = _Reading(sql, Quotes.BACKSLASHES)
        if not other.is_open:
            effects = _either(effects, other.effects())
    return effects


def _either(one: Effect, other: Effect) -> Effect:
    together = one | other
    return together if one & other & Effect.READS else together & ~Effect.READS


# At most eight million characters are kept, and none of a text longer than _LONG.
SHORT, _LONG = 4_000, 200_000
effects_of_short = lru_cache(maxsize=1_000)(_effects)
"""The same for texts of up to ``SHORT`` characters, with one call less."""
_of_long = lru_cache(maxsize=20)(_effects)


class _Frame:
    """What is open between a pair of parentheses, or outside of all.

    Attributes:
        cases: CASE without its END.
        commas: Commas so far.
        ctes: Whether a name after a comma is a common table expression.
        groups: Whether it is in GROUP BY.
        inserts: Whether it is an INSERT.
        is_list: Whether an expression may follow its end without a word between.
        joined: Whether the latest ON belongs to a JOIN.
        joins: JOIN without its ON or USING.
        merges: Whether it is a MERGE.
        sets_config: Whether it has the arguments of set_config.
    """

    __slots__ = (
        "cases",
        "commas",
        "ctes",
        "groups",
        "inserts",
        "is_list",
        "joined",
        "joins",
        "merges",
        "sets_config",
    )

    def __init__(self) -> None:
        self.cases = self.commas = self.joins = 0
        self.ctes = self.groups = self.inserts = self.is_list = False
        self.joined = self.merges = self.sets_config = False


class _Reading:
    """One pass over a text, statement by statement."""

    def __init__(self, sql: str, quotes: Quotes = Quotes.STANDARD) -> None:
        self._sql = sql
        self._effects = Effect.NONE
        self._statements = 0
        self._reads = False
        self.is_open = False
        self._begin()
        self._read(quotes)
        self._end()

    def effects(self) -> Effect:
        if self.is_open:
            return self._effects | Effect.SESSION | Effect.SEVERAL
        if self._statements > 1:
            return self._effects | Effect.SEVERAL
        return self._effects | Effect.READS if self._reads else self._effects

    def _read(self, quotes: Quotes) -> None:
        sql = self._sql
        for kind, begin, end in tokens(sql, quotes, skips_rows=True):
            if kind is Kind.WORD:
                self._word(sql[begin:end])
            elif note := _KINDS.get(kind):
                note(self, sql[begin:end])
            else:
                self.is_open = True
            if self.is_open:
                break

    def _begin(self) -> None:
        self._frames = [_Frame()]
        # The latest token and the two before; a dotted name is one.
        self._last = self._before = self._second = ""
        self._names: list[str] = []
        self._is_bare = self._is_dotted = False
        # The statement's kind and a few tokens after it.
        self._opening: list[str] = []
        self._awaits_kind = True
        self._explains = self._may_be_options = False
        self._options_at = 0
        self._configures = self._indexes = self._updates = self._settings = False

    def _session(self) -> None:
        self._effects |= Effect.SESSION

    def _push(self, value: str, raw: str) -> None:
        if not self._last:
            self._statements += 1
        self._second, self._before, self._last = self._before, self._last, value
        self._names, self._is_dotted = [], False
        if self._awaits_kind:
            if raw != "(":
                self._kind(raw)
        elif len(self._opening) < _OPENING:
            self._opening.append(raw)

    # Names and words

    def _word(self, text: str) -> None:
        # Others than PostgreSQL fold letters outside of ASCII.
        word = text.lower() if text.isascii() else text
        self._mention(word)
        if self._is_dotted:
            self._dotted(word)
            return
        if word == "as" and self._before in _BEFORE_CTE and self._is_cte():
            self._frames[-1].ctes = True
        is_type = self._last == "::" or (self._before in _BEFORE_ZONE and word == "zone")
        self._push(word if word in KEYWORDS and not is_type else OPERAND, word)
        self._names, self._is_bare = [word], True
        if noted := _WORDS.get(word):
            noted(self)

    def name(self, text: str) -> None:
        name = text[1:-1].replace('""', '"')
        self._mention(name)
        if self._is_dotted:
            self._dotted(name)
            return
        self._push(OPERAND, '"' + name.lower())
        self._names, self._is_bare = [name], False

    def coded_name(self, text: str) -> None:
        self._session()
        self.name(text[2:])

    def _mention(self, name: str) -> None:
        if name[:3] == "pg_":
            self._settings = self._settings or name == "pg_settings"
            if name[:7] == "pg_temp":
                self._session()

    def _dotted(self, name: str) -> None:
        self._names.append(name)
        self._is_dotted, self._last = False, OPERAND
        if len(self._opening) < _OPENING:
            self._opening.append(name)

    def _is_cte(self) -> bool:
        return len(self._names) == 1 and self._names[0] not in {"ordinality", "operator"}

    # Everything else

    def value(self, _text: str) -> None:
        self._push(OPERAND, OPERAND)

    def doubtful(self, text: str) -> None:
        self._session()
        self.value(text)

    def text(self, text: str) -> None:
        self._push(OPERAND, "'")
        self._literal(text)

    def _literal(self, text: str) -> None:
        kind = self._opening[:1]
        if self._configures or kind == ["set"]:
            if any(word in text.lower() for word in _LASTING):
                self._session()
        elif kind == ["do"] and any(word in text.lower() for word in _LASTING_IN_CODE):
            self._effects |= Effect.LASTING

    def operator(self, text: str) -> None:
        self._push(text, text)

    def mark(self, mark: str) -> None:
        if mark == "(":
            self._open()
        elif mark == ")":
            self._close()
        elif mark == ";":
            self._end()
            self._begin()
        elif mark == "." and self._names and not self._is_dotted:
            self._is_dotted = True
            if len(self._opening) < _OPENING:
                self._opening.append(".")
        else:
            self._frames[-1].commas += mark.count(",")
            if len(mark) > 1:
                self._literal(mark)
            self._push(OPERAND if mark == "]" else mark[0], mark[0])

    def _open(self) -> None:
        frame, inner = self._frames[-1], _Frame()
        if self._names:
            self._named_open(frame, inner)
        elif self._last == OPERAND:
            # The statement behind WITH is in parentheses.
            frame.ctes = False
        self._may_be_options = self._awaits_kind and self._last == "explain"
        self._push("(", "(")
        self._frames.append(inner)
        self.is_open = len(self._frames) > _DEEPEST

    def _close(self) -> None:
        frame = self._frames.pop() if len(self._frames) > 1 else self._frames[0]
        if frame.sets_config:
            is_local = self._last == "true" and self._before == "," and frame.commas == 2
            self._effects |= Effect.TRANSACTION if is_local else Effect.SESSION
        self._push(")" if frame.is_list else OPERAND, ")")
        if self._options_at and len(self._frames) < self._options_at:
            self._options_at, self._awaits_kind = 0, True

    # What a name before a parenthesis is

    def _named_open(self, frame: _Frame, inner: _Frame) -> None:
        word = self._names[0] if self._is_bare and len(self._names) == 1 else ""
        before = self._before
        if (word, before) in _LISTS:
            inner.is_list = True
        elif word == "sets" and before == "grouping":
            inner.groups = frame.groups
        elif before in _BEFORE_CTE and self._is_cte():
            frame.ctes = True
        elif not (self._is_no_call(frame) or (word and self._is_clause(word, frame))):
            self._call(inner)

    def _is_no_call(self, frame: _Frame) -> bool:
        before = self._before
        if before in BEFORE_NO_CALL or (before == "," and frame.ctes):
            return True
        if before == "using" and self._second == "exclude":
            return True
        if len(self._frames) > 1 or self._opening[:1] != ["create"]:
            return False
        if self._indexes and before in {"on", "using"}:
            return True
        return before == "by" and self._second == "partition"

    def _is_clause(self, word: str, frame: _Frame) -> bool:
        before, second = self._before, self._second
        is_second = (second, before, word) == ("as", "not", "materialized")
        if word in SYNTAX or not before or before in CLAUSES.get(word, ()) or is_second:
            return True
        match word:
            case "conflict":
                return before == "on" and frame.inserts and not frame.joined
            case "rollup" | "cube":
                return frame.groups and before in {"by", "distinct", "all", ",", "("}
            case "insert":
                return before == "then" and frame.merges and not frame.cases
            case "stdin" | "stdout":
                return self._opening[:1] == ["copy"] and before in {"from", "to"}
        return word == "ilike" and before == "not" and second in BEFORE_NO_CALL

    def _call(self, inner: _Frame) -> None:
        names = self._names
        if len(names) > 2 or (len(names) == 2 and names[0] != "pg_catalog"):
            self._session()
        elif names[-1] == "set_config":
            inner.sets_config = self._configures = True
        elif names[-1] not in HARMLESS:
            self._session()
            if "replication_slot" in names[-1]:
                self._effects |= Effect.LASTING
        elif "advisory_xact_lock" in names[-1] or names[-1] in _OF_TRANSACTION:
            self._effects |= Effect.TRANSACTION

    # By single words

    def query(self) -> None:
        self._frames[-1].ctes = False
        self._updates = self._updates or self._last == "update"

    def join(self) -> None:
        self._frames[-1].joins += 1

    def on(self) -> None:
        frame = self._frames[-1]
        frame.groups = False
        if self._before != "distinct":
            frame.joined = frame.joins > 0
            frame.joins -= frame.joined

    def using(self) -> None:
        frame = self._frames[-1]
        frame.joins = max(0, frame.joins - 1)

    def case(self) -> None:
        self._frames[-1].cases += 1

    def end_of_case(self) -> None:
        frame = self._frames[-1]
        frame.cases = max(0, frame.cases - 1)

    def by(self) -> None:
        if self._before == "group":
            self._frames[-1].groups = True

    def end_of_groups(self) -> None:
        self._frames[-1].groups = False

    def into(self) -> None:
        frame = self._frames[-1]
        frame.inserts = frame.inserts or self._before == "insert"
        frame.merges = frame.merges or self._before == "merge"

    def temporary(self) -> None:
        after = self._second if self._before == "into" else ""
        if after not in {"", "insert", "merge"} or self._before in {"create", "local", "global"}:
            self._session()

    def index(self) -> None:
        if self._opening[:1] == ["create"] and self._before in {"create", "unique"}:
            self._indexes = True

    def execute(self) -> None:
        if self._before == "as":
            self._session()

    # By the statement's kind

    def _kind(self, word: str) -> None:
        """Take the word that says what the statement is, or one of EXPLAIN before it."""
        if self._may_be_options and word not in QUERIES:
            self._options_at, self._awaits_kind = len(self._frames), False
        elif not (self._explains and word in _AFTER_EXPLAIN):
            self._reads = self._explains or word in READS
            self._explains = self._explains or word == "explain"
            self._awaits_kind = word == "explain"
            self._opening = [word]
        self._may_be_options = False

    def _end(self) -> None:
        if self._last:
            self._effects |= _effects_of_kind(*self._opening)
        if self._settings and self._updates:
            # The view has a rule that calls set_config.
            self._session()


def _effects_of_kind(kind: str = "", *after: str) -> Effect:
    if kind in PLAIN:
        return Effect.NONE
    if kind in CONTROL or (kind == "prepare" and after[:1] == ("transaction",) and "'" in after):
        return Effect.CONTROL
    if kind == "set" and _ends_with_transaction(*after):
        return Effect.TRANSACTION
    if kind in {"create", "alter"}:
        about = after[2:3] if after[:2] == ("or", "replace") else after[:1]
        return Effect.SESSION if OBJECTS.isdisjoint(about) else Effect.NONE
    if kind in {"prepare", "deallocate", "load"} or (kind == "discard" and not _KEEPS & {*after}):
        return Effect.SESSION | Effect.LASTING
    return Effect.SESSION


def _ends_with_transaction(what: str = "", name: str = "", *_: str) -> bool:
    # A setting may have a name that begins with one of these words.
    if name in {".", "=", "to"}:
        return False
    return what in {"local", "transaction", "constraints"} and name.strip('"') not in _LASTING


# One transaction tells the same only once, and counts its descriptors of large objects.
_OF_TRANSACTION = frozenset({"lo_open", "pg_notify"})
_OPENING = 4
# The server's parser refuses what is nested more deeply.
_DEEPEST = 10_000
# What is made in that schema and what the seed was stay, though the setting itself does not.
_LASTING = ("pg_temp", "seed")
_LASTING_IN_CODE = ("prepare", "deallocate", "discard", "load", "replication_slot")
_KEEPS = frozenset({"temp", "temporary", "sequences"})
_AFTER_EXPLAIN = frozenset({"analyze", "analyse", "verbose"})
_BEFORE_CTE = frozenset({"with", "recursive"})
_BEFORE_ZONE = frozenset({"with", "without"})
_LISTS = frozenset({("on", "distinct"), ("with", "returning")})
_KINDS: dict[Kind, Callable[[_Reading, str], None]] = {
    Kind.NAME: _Reading.name,
    Kind.CODED_NAME: _Reading.coded_name,
    Kind.TEXT: _Reading.text,
    Kind.VALUE: _Reading.value,
    Kind.DOUBTFUL: _Reading.doubtful,
    Kind.MARK: _Reading.mark,
    Kind.CAST: _Reading.operator,
    Kind.OPERATOR: _Reading.operator,
}
_WORDS: dict[str, Callable[[_Reading], None]] = {
    **dict.fromkeys(AFTER_GROUP_BY, _Reading.end_of_groups),
    **dict.fromkeys(QUERIES - {"with"}, _Reading.query),
    **dict.fromkeys(("insert", "update", "delete", "merge"), _Reading.query),
    **dict.fromkeys(("temp", "temporary"), _Reading.temporary),
    "by": _Reading.by,
    "case": _Reading.case,
    "end": _Reading.end_of_case,
    "execute": _Reading.execute,
    "index": _Reading.index,
    "into": _Reading.into,
    "join": _Reading.join,
    "on": _Reading.on,
    "using": _Reading.using,
}
