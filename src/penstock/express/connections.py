"""The pool's connections in the express lane's hands: borrowed, used, and accounted for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from logging import INFO
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from penstock.express.failures import is_lost, was_interrupted, worded
from penstock.pool import PenstockPool
from penstock.pool.loans import STATEMENT_KEY
from penstock.pool.record import Record

__all__ = ["ConnectionLost", "Connections"]

Use = Callable[[Any, Any, str, Any], Coroutine[Any, Any, Any]]
"""What is done: given asyncpg's connection, the plan, the SQL and its values."""


class ConnectionLost(Exception):  # noqa: N818 - it says what happened
    """A connection ended before it had answered.

    Args:
        error: What a session would raise.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Connections:
    """The pool's connections, as asyncpg has them.

    Args:
        engine: Whose pool it is; SQLAlchemy's asyncpg dialect below.
        is_confinable: Tells whether a connection may be confined to reading for its session: not
            where a pooler hands the server's sessions around.
    """

    def __init__(self, engine: AsyncEngine, is_confinable: Callable[[], bool]) -> None:
        self.engine = engine
        self.is_confinable = is_confinable
        self._sync = engine.sync_engine
        self._logger = engine.sync_engine.logger

    async def use(
        self, use: Use, plan: Any, sql: str, arguments: Sequence[Any], writes: bool
    ) -> Any:
        """Borrow a connection for one statement.

        Args:
            use: Sends it and returns the answer.
            plan: Passed on to that.
            sql: The statement, for the log and an error's text.
            arguments: Its values, as above.
            writes: Whether the server is to let it write.

        Raises:
            ConnectionLost: The connection ended before it had answered.
            sqlalchemy.exc.DBAPIError: As a session would raise it.
        """
        pool: PenstockPool = self._sync.pool  # type: ignore[assignment]  # as lane_of has looked
        if pool.is_overheard():
            return await self._use_aloud(pool, use, plan, sql, arguments, writes=writes)
        lent = pool.lend(is_noted=False)
        record: Record = lent if lent.__class__ is Record else await lent  # type: ignore[misc]  # the one or the other
        try:
            if record.reads_only is writes or self._logger.isEnabledFor(INFO):
                self._make_ready(record, sql, writes=writes)
            driver = record.dbapi_connection._connection  # type: ignore[union-attr]  # noqa: SLF001 - asyncpg's
            answer = await use(driver, plan, sql, arguments)
        except BaseException as error:
            told = self._worded(record, error, sql, arguments)
            _take_back(record, error, told)
            if told is error:
                raise
            raise told from told.__cause__ or error
        pool.give_back(record)
        return answer

    async def _use_aloud(
        self,
        pool: PenstockPool,
        use: Use,
        plan: Any,
        sql: str,
        arguments: Sequence[Any],
        *,
        writes: bool,
    ) -> Any:
        # Somebody listens to SQLAlchemy's checkouts and returns, so that these are made.
        loan: Any = await greenlet_spawn(pool.connect)
        record: Record = loan._connection_record  # noqa: SLF001 - SQLAlchemy's
        try:
            self._make_ready(record, sql, writes=writes)
            driver = record.dbapi_connection._connection  # type: ignore[union-attr]  # noqa: SLF001 - asyncpg's
            return await use(driver, plan, sql, arguments)
        except BaseException as error:
            told = self._worded(record, error, sql, arguments)
            if isinstance(told, ConnectionLost) or not isinstance(error, Exception):
                loan.invalidate(error)
            elif was_interrupted(error):
                loan.invalidate(asyncio.CancelledError())
            if told is error:
                raise
            raise told from told.__cause__ or error
        finally:
            await asyncio.shield(greenlet_spawn(loan.close))

    @asynccontextmanager
    async def transaction(self, sql: str, isolation: str | None = None) -> AsyncIterator[Any]:
        """Borrow a connection for a read-only transaction, and give asyncpg's.

        Args:
            sql: What the transaction is for, for the log and the report of a leak.
            isolation: As ``asyncpg.Connection.transaction`` has it; None for the server's default.

        Raises:
            sqlalchemy.exc.DBAPIError: As a session would raise it.
        """
        record, transaction = await self._begin(sql, isolation)
        driver = record.dbapi_connection._connection  # type: ignore[union-attr]  # noqa: SLF001 - asyncpg's
        try:
            yield driver
            await transaction.commit()
        except BaseException as error:
            told = self._worded(record, error, sql, ())
            # Rolled back in the background: this task may be cancelled, or the statement running.
            record.keeper.give_up(record, error if is_lost(driver, error) else _interruption())
            told = told.error if isinstance(told, ConnectionLost) else told
            if told is error:
                raise
            raise told from told.__cause__ or error
        self._sync.pool.give_back(record)  # type: ignore[attr-defined]  # ours, as above

    async def _begin(self, sql: str, isolation: str | None) -> tuple[Record, Any]:
        try:
            return await self._begin_once(sql, isolation)
        except ConnectionLost:
            # Nothing of the transaction had reached the server.
            try:
                return await self._begin_once(sql, isolation)
            except ConnectionLost as again:
                raise again.error from again

    async def _begin_once(self, sql: str, isolation: str | None) -> tuple[Record, Any]:
        pool: PenstockPool = self._sync.pool  # type: ignore[assignment]  # as above
        lent = pool.lend()
        record: Record = lent if lent.__class__ is Record else await lent  # type: ignore[misc]  # as above
        try:
            record.info[STATEMENT_KEY] = sql
            driver: Any = record.dbapi_connection._connection  # type: ignore[union-attr]  # noqa: SLF001 - as above
            transaction = driver.transaction(isolation=isolation, readonly=True)
            await transaction.start()
        except BaseException as error:
            told = self._worded(record, error, sql, ())
            _take_back(record, error, told)
            if told is error:
                raise
            raise told from told.__cause__ or error
        return record, transaction

    def _make_ready(self, record: Record, sql: str, *, writes: bool) -> None:
        if record.reads_only is writes and (writes or self.is_confinable()):
            record.confine(to_reading=not writes)
        elif record.reads_only:
            record.stay_confined()
        self._logger.info(sql)

    def _worded(
        self, record: Record, error: BaseException, sql: str, arguments: Sequence[Any]
    ) -> BaseException:
        adapter: Any = record.dbapi_connection
        if adapter is None:  # taken away meanwhile
            return error
        told = worded(self.engine, adapter, error, sql, arguments)
        return ConnectionLost(told) if is_lost(adapter._connection, error) else told  # noqa: SLF001 - asyncpg's


def _take_back(record: Record, error: BaseException, told: BaseException) -> None:
    keeper = record.keeper
    if record.dbapi_connection is None:
        keeper.came_back_empty(record)
    elif was_interrupted(error):
        # It is cleaned up in the background, once the server has let go of the statement.
        keeper.give_up(record, _interruption())
    elif isinstance(told, ConnectionLost) or not isinstance(error, Exception):
        keeper.give_up(record, error)
    else:
        keeper.pool._return_conn(record)  # noqa: SLF001 - the base class's name for giving back


def _interruption() -> asyncio.CancelledError:
    return asyncio.CancelledError()
