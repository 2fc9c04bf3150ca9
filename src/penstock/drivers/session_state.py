"""Statements whose effect is meant to outlive their transaction, which a pooler does not let it."""

import re

from penstock.base_error import PenstockError
from penstock.drivers.effects import Effect

_LEADING = re.compile(r"\A(?:\s|--[^\n]*\n|/\*.*?\*/)*", re.DOTALL)
# PgBouncer, config.md, track_extra_parameters: every version sets these again on each server
# connection. It follows intervalstyle since 1.20 and where that is not configured away, and
# search_path where it is configured and the server reports it.
_FOLLOWED = (
    r"(?:application_name|client_encoding|datestyle|names|standard_conforming_strings"
    r"|time\s+zone|timezone)\b"
)
_STATEMENTS = {
    "SET": re.compile(
        rf"set\s+(?!local\b|transaction\b|constraints\b)(?:session\s+)?(?!{_FOLLOWED})"
    ),
    "LISTEN": re.compile(r"listen\b"),
    "PREPARE": re.compile(r"prepare\s+(?!transaction\b)"),
    "LOAD": re.compile(r"load\b"),
    "DECLARE ... WITH HOLD": re.compile(r"declare\b.*?\bcursor\s+with\s+hold\b", re.DOTALL),
    "CREATE TEMPORARY TABLE": re.compile(
        r"create\s+(?:(?:local|global)\s+)?temp(?:orary)?\s+table\b(?!.*\bon\s+commit\s+drop\b)",
        re.DOTALL,
    ),
}
_CALLS = {
    "a session's advisory lock": re.compile(r"\bpg_(?:try_)?advisory_lock(?:_shared)?\s*\("),
    "set_config(..., false)": re.compile(r"\bset_config\s*\([^()]*,\s*false\s*\)"),
}
_REMEDIES = {
    "SET": "SET LOCAL, or settings= of database.read() and database.write()",
    "set_config(..., false)": "set_config(..., true)",
    "a session's advisory lock": "pg_advisory_xact_lock",
    "CREATE TEMPORARY TABLE": "ON COMMIT DROP",
    "DECLARE ... WITH HOLD": "a cursor without WITH HOLD, or a stream",
    "PREPARE": "the driver's own prepared statements",
}


def session_state(sql: str) -> str | None:
    """Return what a statement surely leaves on its session; None where it is not sure.

    Args:
        sql: A statement of PostgreSQL that has the effect ``SESSION``.
    """
    text = _LEADING.sub("", sql, count=1).lower()
    for name, pattern in _STATEMENTS.items():
        if pattern.match(text):
            return name
    return next((name for name, pattern in _CALLS.items() if pattern.search(text)), None)


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
        f"connection to other clients after the transaction, with what was left there; {instead} "
        "a database of its own whose URL leads past the pooler"
    )
