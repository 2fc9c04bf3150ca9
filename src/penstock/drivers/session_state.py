"""Statements whose effect is meant to outlive their transaction, which a pooler does not let it."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

from penstock.base_error import PenstockError
from penstock.drivers.effects import SHORT, Effect
from penstock.drivers.sql_text import QUERIES, SYNTAX
from penstock.drivers.sql_words import statements

# PgBouncer, config.md, track_extra_parameters: every version sets these again on each server
# connection. It follows intervalstyle since 1.20 and where that is not configured away, and
# search_path where it is configured and the server reports it.
_FOLLOWED = frozenset(
    {
        "application_name",
        "client_encoding",
        "datestyle",
        "names",
        "standard_conforming_strings",
        "timezone",
    }
)
_TEMPORARY = frozenset({"temp", "temporary"})
_REMEDIES = {
    "SET": "SET LOCAL, or settings= of database.read() and database.write()",
    "UPDATE of pg_settings": "SET LOCAL",
    "set_config(..., false)": "set_config(..., true)",
    "a session's advisory lock": "pg_advisory_xact_lock",
    "a temporary table": "CREATE TEMPORARY TABLE ... ON COMMIT DROP",
    "DECLARE ... WITH HOLD": "a cursor without WITH HOLD, or a stream",
    "PREPARE": "the driver's own prepared statements",
}


def refuse_session_state(effects: Effect, sql: str) -> None:
    """Refuse what would stay on a server connection that others get next.

    Args:
        effects: Of the statement.
        sql: The statement.

    Raises:
        PenstockError: It would; the message says what to use instead.
    """
    if not effects & Effect.SESSION or (what := session_state(sql)) is None:
        return
    remedy = _REMEDIES.get(what)
    instead = f"use {remedy}, or" if remedy else "use"
    raise PenstockError(
        f"{what} is refused: the pooler in between (pool_mode=transaction) gives the server "
        f"connection to other clients after the transaction, as the statement left it; {instead} "
        "a database of its own whose URL leads past the pooler"
    )


def session_state(sql: str) -> str | None:
    """Return what a statement surely leaves on its session; None where it is not sure.

    What a ``DO`` has in its body counts, and what that executes as a literal.

    Args:
        sql: A statement of PostgreSQL that has the effect ``SESSION``.
    """
    return _state_of_short(sql) if len(sql) <= SHORT else _state(sql)


# What a text is: only so many are looked for within each other.
_STATEMENT, _CODE, _EXECUTED = range(3)


def _state(sql: str, depth: int = _STATEMENT) -> str | None:
    for statement in statements(sql, _ENDS_IN_CODE if depth == _CODE else _ENDS):
        found = _state_of_one(statement, depth)
        if found is not None:
            return found
    return None


_state_of_short = lru_cache(maxsize=500)(_state)


def _state_of_one(words: Sequence[str], depth: int) -> str | None:
    begin = next((at for at, word in enumerate(words) if word != "("), len(words))
    words = words[begin:]
    kind = words[0] if words else ""
    if kind == "do":
        return _state_of_block(words) if depth == _STATEMENT else None
    is_code = depth == _CODE
    return (
        _state_of_kind(kind, words)
        or _temporary(kind, words)
        or (_called(words) if is_code or _runs_calls(kind, words) else None)
        or (_executed(words) if is_code else None)
    )


def _is_name(word: str) -> bool:
    return word[:1] == '"' or ((word[:1].isalpha() or word[:1] == "_") and word not in SYNTAX)


# By a statement's kind


def _state_of_kind(kind: str, words: Sequence[str]) -> str | None:
    if (found := _KINDS.get(kind)) is None:
        return None
    what, stays = found
    return what if stays([*words[1:], "", ""]) else None


def _set(words: list[str]) -> bool:
    if words[1] not in {".", "=", "to"}:  # or it is a setting of that name
        if words[0] in {"local", "transaction", "constraints"}:
            return False
        if words[0] == "session":
            words = words[1:]
    return bool(words[0]) and not _is_followed(words)


def _reset(words: list[str]) -> bool:
    is_named = _is_name(words[0]) or words[0] == "all"
    return is_named and not _is_followed(words)


def _updates_settings(words: list[str]) -> bool:
    names = [word.removeprefix('"') for word in words[:4] if word != "only"]
    return names[0] == "pg_settings" or names[:3] == ["pg_catalog", ".", "pg_settings"]


def _is_followed(names: Sequence[str]) -> bool:
    if names[1:2] == ["."]:
        return False
    return names[0].removeprefix('"').lower() in _FOLLOWED or names[:2] == ["time", "zone"]


def _until(words: Sequence[str], ends: set[str]) -> Sequence[str]:
    end = next((at for at, word in enumerate(words) if word in ends), len(words))
    return words[:end]


_KINDS: dict[str, tuple[str, Callable[[list[str]], bool]]] = {
    "deallocate": ("DEALLOCATE", lambda words: _is_name(words[0]) or words[0] == "all"),
    "declare": (
        "DECLARE ... WITH HOLD",
        lambda words: ("with", "hold") in pairwise(_until(words, {"for"})),
    ),
    "discard": ("DISCARD", lambda words: words[0] in {"all", "sequences", *_TEMPORARY}),
    "listen": ("LISTEN", lambda words: _is_name(words[0])),
    "load": ("LOAD", lambda words: words[0][:1] == "'"),
    "prepare": (
        "PREPARE",
        lambda words: (
            _is_name(words[0]) and not (words[0] == "transaction" and words[1][:1] == "'")
        ),
    ),
    "reset": ("RESET", _reset),
    "set": ("SET", _set),
    "update": ("UPDATE of pg_settings", _updates_settings),
}

# Temporary tables, views and sequences, wherever the statement makes them


def _temporary(kind: str, words: Sequence[str]) -> str | None:
    if kind == "import":
        return None
    is_dropped = ("on", "commit", "drop") in zip(words, words[1:], words[2:], strict=False)
    for at, word in enumerate(words):
        if word == "create" and not is_dropped and _makes_temporary(words[at + 1 : at + 9]):
            return "a temporary table"
        is_into = word == "into" and words[at - 1] not in {"insert", "merge"}
        if is_into and _selects_into(words[at + 1 : at + 6]):
            return "a temporary table"
    return None


def _makes_temporary(words: Sequence[str]) -> bool:
    words = words[2:] if words[:2] == ["or", "replace"] else words
    words = words[1:] if words[:1] and words[0] in _SCOPES else words
    if words[:1] and words[0] in _TEMPORARY:
        return True
    return _has_temporary_schema(_until(words, {"(", "as", "on"}))


def _selects_into(words: Sequence[str]) -> bool:
    if words[:1] and words[0] in _SCOPES and words[1:2] and words[1] in _TEMPORARY:
        words = words[1:]
    if words[1:2] and words[0] in _TEMPORARY:
        return words[1] == "table" or _is_name(words[1])
    return _has_temporary_schema(words[1:3] if words[:1] == ["table"] else words[:2])


def _has_temporary_schema(words: Sequence[str]) -> bool:
    return any(
        after == "." and _TEMPORARY_SCHEMA.fullmatch(name) is not None
        for name, after in pairwise(words)
    )


_SCOPES = frozenset({"local", "global"})
_TEMPORARY_SCHEMA = re.compile(r'"?pg_temp(?:_[0-9]+)?')


# Calls


def _runs_calls(kind: str, words: Sequence[str]) -> bool:
    if kind == "explain":
        return not {"analyze", "analyse"}.isdisjoint(_until(words, _EXPLAINED))
    if kind == "create":
        return "as" in words and not {"table", "materialized"}.isdisjoint(words[1:5])
    return kind in _RUN


def _called(words: Sequence[str]) -> str | None:
    for at in range(1, len(words)):
        if words[at] != "(" or words[at - 1].removeprefix('"') not in _CALLS:
            continue
        if not _is_of_pg_catalog(words, at - 1):
            continue
        if "set_config" not in words[at - 1]:
            return "a session's advisory lock"
        if _lasts(_arguments(words, at + 1)):
            return "set_config(..., false)"
    return None


def _is_of_pg_catalog(words: Sequence[str], at: int) -> bool:
    before = words[at - 1] if at else ""
    if before != ".":
        return before not in _BEFORE_TABLE
    return words[at - 2].removeprefix('"') == "pg_catalog" and (at < 3 or words[at - 3] != ".")


def _arguments(words: Sequence[str], at: int) -> list[list[str]]:
    arguments: list[list[str]] = [[]]
    depth = 0
    for word in words[at : at + _MOST]:
        if word == ")" and not depth:
            break
        depth += (word in {"(", "["}) - (word in {")", "]"})
        if word == "," and not depth:
            arguments.append([])
        else:
            arguments[-1].append(word)
    return arguments


def _lasts(arguments: list[list[str]]) -> bool:
    """Whether the third argument of set_config is a constant, and another than ``true``."""
    named = [argument for argument in arguments if argument[:1] in _IS_LOCAL]
    if named:
        value = [word for word in named[0][1:] if word not in {":", "=", ">"}]
    elif len(arguments) == 3:
        value = arguments[2]
    else:
        return False
    value = [word for word in value if word not in _AROUND]
    if not value or not all(_is_constant(word) for word in value):
        return False
    return len(value) > 1 or value[0].strip("'").lower() not in _TRUE


def _is_constant(word: str) -> bool:
    return word in _CONSTANTS or word[0].isdigit() or word[0] == "'" or word in _OPERATORS


_CALLS = frozenset(
    {
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_try_advisory_lock",
        "pg_try_advisory_lock_shared",
        "set_config",
    }
)
_RUN = QUERIES | frozenset(["call", "copy", "declare", "delete", "insert", "merge", "update"])
_EXPLAINED = {*QUERIES, "insert", "update", "delete", "merge", "create", "declare"}
_BEFORE_TABLE = frozenset(["into", "only", "recursive", "table", "update", "with"])
_IS_LOCAL = (["is_local"], ['"is_local'])
_MOST = 1_000
"""Tokens of arguments that are looked at."""
_AROUND = frozenset({"(", ")", "::", "bool", "boolean", "cast", "as"})
_CONSTANTS = frozenset({"true", "false", "not", "null", "and", "or", "is"})
_OPERATORS = frozenset("=<>!+-*/%|")
_TRUE = frozenset({"t", "true", "y", "yes", "on", "1"})


# Code


def _state_of_block(words: Sequence[str]) -> str | None:
    if "language" in words[:-1] and words[words.index("language") + 1].strip("\"'") != "plpgsql":
        return None
    code = next((word[1:] for word in words if word[0] == "'" and word != "'plpgsql"), "")
    return _state(code, _CODE)


def _executed(words: Sequence[str]) -> str | None:
    for word, text in pairwise(words):
        if (
            word == "execute"
            and text[0] == "'"
            and (found := _state(text[1:], _EXECUTED)) is not None
        ):
            return found
    return None


_ENDS = frozenset({";"})
_ENDS_IN_CODE = _ENDS | {"begin", "then", "else", "loop"}
