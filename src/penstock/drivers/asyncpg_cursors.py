"""Cursors of SQLAlchemy's adapter for asyncpg, around a connection that begins without a wait."""

import asyncio
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_cursor,
    AsyncAdapt_asyncpg_ss_cursor,
)


class Cursor(AsyncAdapt_asyncpg_cursor):
    """A cursor that has all rows: what it could not send begins no transaction."""

    __slots__ = ()

    _adapt_connection: Any

    async def _prepare_and_execute(self, operation: str, parameters: Any) -> None:
        try:
            await super()._prepare_and_execute(operation, parameters)
        except Exception:
            self._adapt_connection.end_unsent()
            raise

    async def _executemany(self, operation: str, seq_of_parameters: Any) -> Any:
        await self._adapt_connection.before_many(operation)
        try:
            return await super()._executemany(operation, seq_of_parameters)
        except Exception:
            self._adapt_connection.end_unsent()
            raise


class ServerSideCursor(AsyncAdapt_asyncpg_ss_cursor, Cursor):
    """A cursor that fetches rows as they are read, in an open transaction."""

    __slots__ = ()

    async def _prepare_and_execute(self, operation: str, parameters: Any) -> None:
        # The driver opens a cursor only in a transaction that the server has confirmed.
        await self._adapt_connection.open_transaction()
        await super()._prepare_and_execute(operation, parameters)
        self._cursor = _LockedCursor(self._cursor, self._adapt_connection._execute_mutex)


class _LockedCursor:
    """A cursor of the driver's that fetches while the connection runs no other statement."""

    __slots__ = ("_cursor", "_mutex")

    def __init__(self, cursor: Any, mutex: asyncio.Lock) -> None:
        self._cursor = cursor
        self._mutex = mutex

    async def fetch(self, count: int) -> Any:
        async with self._mutex:
            return await self._cursor.fetch(count)
