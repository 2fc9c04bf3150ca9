"""Prepared statements that are kept: behind a pooler that follows them, and by search_path."""

from typing import Any

from asyncpg import Connection
from typing_extensions import override


class Edition:
    """Which edition of the statements an engine's connections prepare.

    PgBouncer prepares a text once on each server connection and keeps it there for all its clients,
    also after the schema has changed under it: every use fails until another text is prepared.
    """

    def __init__(self) -> None:
        self.suffix = ""
        """White space at the end of each text, by which editions differ."""
        self._number = 0

    def renew(self, outdated: str) -> None:
        """Have every statement be prepared anew, on all connections.

        Args:
            outdated: The suffix of what has failed: of several connections that find out about the
                same change of the schema, the first renews for all.
        """
        if outdated == self.suffix:
            self._number += 1
            self.suffix = "\n" + f"{self._number:b}".translate(_SPACES)


_SPACES = {ord("0"): " ", ord("1"): "\t"}


class _FollowedConnection(Connection):  # type: ignore[misc]  # asyncpg is untyped
    """asyncpg's connection, whose statements can be told from those before a schema change."""

    __slots__ = ("suffix",)
    edition: Edition

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.suffix = self.edition.suffix
        """Of the statement that was asked for last."""

    @override
    async def _get_statement(self, query: str, timeout: float | None, **options: Any) -> Any:
        return await super()._get_statement(text_on(self, query), timeout, **options)

    @override
    def _drop_global_statement_cache(self) -> None:
        # asyncpg does so when a statement has failed for what it knows of the schema.
        self.edition.renew(self.suffix)
        super()._drop_global_statement_cache()


def followed_connection() -> type[Any]:
    """Return a class of connections for one engine, as ``asyncpg.connect`` takes it."""
    own = {"edition": Edition(), "__slots__": ()}
    return type("FollowedConnection", (_FollowedConnection,), own)


def drop_statements(connection: Any) -> None:
    """Have a connection's statements be prepared anew, as the schema is another.

    Args:
        connection: asyncpg's; those of any other class prepare anew by themselves.
    """
    if hasattr(connection, "edition"):
        connection._drop_global_statement_cache()


def text_on(connection: Any, sql: str) -> str:
    """Return a statement's text as a connection of asyncpg's prepares it now.

    Args:
        connection: asyncpg's.
        sql: The statement.
    """
    edition: Edition | None = getattr(connection, "edition", None)
    if edition is None:
        return sql
    suffix: str = edition.suffix
    connection.suffix = suffix
    return sql + suffix


class StatementsOnPath:
    """SQLAlchemy's cache of prepared statements, under a search_path that says what they mean."""

    __slots__ = ("_cache", "_path")

    def __init__(self, cache: Any, path: str) -> None:
        self._cache = cache
        self._path = path

    def __contains__(self, operation: str) -> bool:
        return (operation, self._path) in self._cache

    def __getitem__(self, operation: str) -> Any:
        return self._cache[operation, self._path]

    def __setitem__(self, operation: str, prepared: Any) -> None:
        self._cache[operation, self._path] = prepared
