"""The statements that begin and bound transactions on asyncpg, and those that are prepared."""

from typing import Any

from penstock.deadlines import StatementLimit
from penstock.drivers.pipelining import Parameters

STAY_READ_ONLY: tuple[str, Parameters] = ("SET TRANSACTION READ ONLY", ())
"""Keeps the open transaction, or savepoint, from writing until it ends."""


def begin_text(transaction: Any) -> str:
    """Return the text that begins a transaction.

    Args:
        transaction: asyncpg's, not started.
    """
    words = ["BEGIN"]
    if transaction._isolation:
        words += ["ISOLATION LEVEL", transaction._isolation.replace("_", " ").upper()]
    if transaction._readonly:
        words.append("READ ONLY")
    if transaction._deferrable:
        words.append("DEFERRABLE")
    return " ".join(words)


def context_statement(settings: tuple[tuple[str, str], ...]) -> tuple[str, Parameters]:
    """Return the statement that makes settings hold until the transaction ends.

    Args:
        settings: Names and values, at least one; they travel as parameters.
    """
    calls = ", ".join(
        f"set_config(${2 * number + 1}, ${2 * number + 2}, true)" for number in range(len(settings))
    )
    return f"SELECT {calls}", [text for setting in settings for text in setting]


def limit_statement(limit: StatementLimit) -> tuple[str, Parameters]:
    """Return the statement that makes a limit hold until the open transaction ends.

    It is no query, so that the transaction's isolation level may be set after it.
    """
    return f"SET LOCAL statement_timeout = {limit.milliseconds}", ()


class PreparedStatements:
    """SQLAlchemy's cache of prepared statements, where the search_path decides what a text means.

    Args:
        cache: SQLAlchemy's.

    Attributes:
        path: The ``search_path`` in force; None for the engine's.
    """

    __slots__ = ("_cache", "path")

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self.path: str | None = None

    def _key(self, operation: str) -> str | tuple[str, str]:
        return operation if self.path is None else (operation, self.path)

    def __contains__(self, operation: str) -> bool:
        return self._key(operation) in self._cache

    def __getitem__(self, operation: str) -> Any:
        return self._cache[self._key(operation)]

    def __setitem__(self, operation: str, prepared: Any) -> None:
        self._cache[self._key(operation)] = prepared

    def recent(self) -> list[str]:
        """Return the texts that were prepared for the engine's own path, the latest used first."""
        uses = sorted(self._cache._data.items(), key=lambda item: -item[1][2][0])
        return [key for key, _ in uses if isinstance(key, str)]
