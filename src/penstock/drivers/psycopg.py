"""psycopg, below SQLAlchemy's adapter."""

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from time import monotonic
from typing import Any, Self

from sqlalchemy.dialects.postgresql.psycopg import (
    AsyncAdapt_psycopg_connection,
    AsyncAdapt_psycopg_cursor,
    AsyncAdapt_psycopg_ss_cursor,
)
from sqlalchemy.util import await_
from typing_extensions import override

from penstock.context import ContextError
from penstock.deadlines import current_limits
from penstock.drivers.driver import (
    FOLLOWED,
    LASTING,
    NO_OPTIONS,
    BeginOptions,
    Driver,
    TransactionTrace,
    keeps_transaction,
    refuse_end,
    seconds_of,
    without_values,
)
from penstock.drivers.effects import AFTER_TRANSACTION, Effect, effects_of
from penstock.drivers.session_state import refuse_session_state

RESET = (
    "CLOSE ALL",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ROLE",
    "RESET ALL",
    "UNLISTEN *",
    "SELECT pg_advisory_unlock_all()",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
)
"""What DISCARD ALL does, but for the driver's own prepared statements, which stay."""

_IDLE, _ACTIVE = 0, 1
"""libpq's PQTRANS_IDLE and PQTRANS_ACTIVE."""
_CANCELLATION_TIMEOUT = 1.0
"""Seconds for which the end of a cancelled statement is waited for."""


@asynccontextmanager
async def limited(connection: Any, seconds: float | None) -> AsyncIterator[None]:
    """Give a connection so long for what it does in a block, and close one that is stuck.

    Args:
        connection: psycopg's.
        seconds: None for no limit.

    Raises:
        TimeoutError: The time was up; the statement was cancelled.
    """
    last = None if seconds is None else seconds + _CANCELLATION_TIMEOUT
    try:
        # A second cancellation ends psycopg's own wait, of several seconds, for the first one's.
        async with asyncio.timeout(last), asyncio.timeout(seconds):
            yield
    except TimeoutError:
        if connection.pgconn.transaction_status == _ACTIVE:
            connection.pgconn.finish()
        raise


def statement_limit(connection: Any) -> AbstractAsyncContextManager[None]:
    """Give a statement as long as the client allows, where the server does not keep the limit.

    Args:
        connection: psycopg's.
    """
    seconds = getattr(connection, "statement_limit", None)
    return nullcontext() if seconds is None else limited(connection, seconds)


class _Cursor(AsyncAdapt_psycopg_cursor):
    __slots__ = ()

    _adapt_connection: Any

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        async with statement_limit(self._connection):
            await self._adapt_connection.before_statement(operation)
            return await super()._execute_async(operation, parameters)

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> Any:
        async with statement_limit(self._connection):
            await self._adapt_connection.before_statement(operation)
            return await super()._executemany_async(operation, seq_of_parameters)


class _ServerSideCursor(AsyncAdapt_psycopg_ss_cursor, _Cursor):
    __slots__ = ()


class PsycopgConnection(TransactionTrace, AsyncAdapt_psycopg_connection):
    """SQLAlchemy's adapter, which records what a lease's statements may leave on the server."""

    _connection: Any
    ran = 0
    """Statements since the driver's own connection was given out."""
    ran_itself = 0
    """Those of them that came through SQLAlchemy."""

    @classmethod
    def of(cls, adapter: AsyncAdapt_psycopg_connection) -> Self:
        """Return one that takes the place of SQLAlchemy's own, around the same connection."""
        driver: Any = adapter._connection
        return cls(adapter.dbapi, driver)

    def cursor(self, name: Any = None, /) -> Any:
        """Return a cursor that records what it runs."""
        return _ServerSideCursor(self, name) if name else _Cursor(self)

    async def before_statement(self, operation: Any) -> None:
        """Begin as ``begin`` says, and record what the statement may leave behind.

        Args:
            operation: The statement that is sent next.

        Raises:
            psycopg.ProgrammingError: It is several, one of which could end a read-only transaction.
            PenstockError: It leaves on the session what a pooler would give to others.
        """
        effects = effects_of(operation) if isinstance(operation, str) else Effect.SESSION
        if self.refuses_state and isinstance(operation, str):
            refuse_session_state(effects, operation)
        if effects & Effect.CONTROL:
            is_autocommit = self._connection.autocommit
            refuse_end(self, operation, self.dbapi.ProgrammingError, is_autocommit=is_autocommit)
        if self._is_idle():
            self.holds_state, self.limit = False, None
            self._options, self.begin = self.begin or self._options or self.lease_options, None
            if self._options is not None:
                # First, or after a statement ended the transaction: another of the kind.
                await self._begin(self._options)
        elif self._options is not None and not effects & Effect.CONTROL:
            await self._limit(self._options, is_first=False)
        if self.reads_within or (self._options is not None and self._options.reading):
            await self._stay_read_only(effects)
        if self._options is not None:
            await self._stay_set(self._options, effects, operation)
        self.effects |= effects & AFTER_TRANSACTION
        self.holds_state = self.holds_state or effects != Effect.READS
        self.ran_itself += 1

    def _is_idle(self) -> bool:
        status: int = self._connection.info.transaction_status
        return status == _IDLE

    def begin_as(self, options: BeginOptions) -> None:
        """Begin the next transactions so; where one has begun already, go on so.

        Args:
            options: How they begin.
        """
        self.lease_options = options
        if self._is_idle():
            self.begin = options
        else:
            self._options = options
            self._may_have_state, self._has_lost_settings = options.reading, True

    async def _stay_read_only(self, effects: Effect) -> None:
        if effects & Effect.SEVERAL:
            raise self.dbapi.ProgrammingError("A session that reads runs one statement at a time.")
        if self._may_have_state and not effects & Effect.CONTROL:
            await self._run("SET TRANSACTION READ ONLY")
        # Before its first query, a transaction may be made to write (SET TRANSACTION).
        self._may_have_state = self._may_have_state or not effects & Effect.READS

    async def _stay_set(self, options: BeginOptions, effects: Effect, operation: Any) -> None:
        if self._has_lost_settings:
            await self._set(options)
        if not effects & Effect.CONTROL:
            return
        if effects & Effect.SEVERAL and options.settings:
            raise ContextError(
                "A text of several statements ends its transaction during them, and with it the "
                "context of what follows: run them one by one."
            )
        self._has_lost_settings = not keeps_transaction(operation)

    async def _begin(self, options: BeginOptions) -> None:
        driver, self._may_have_state = self._connection, self.reads_within
        self._has_lost_settings = False
        if driver.autocommit and options != NO_OPTIONS:
            await self._run("BEGIN")
        if options.reading and (driver.autocommit or not driver.read_only):
            await self._run("SET TRANSACTION READ ONLY")
        if options.isolation is not None or options.deferrable:
            level = f" ISOLATION LEVEL {options.isolation}" if options.isolation else ""
            deferrable = " DEFERRABLE" if options.deferrable else ""
            await self._run(f"SET TRANSACTION{level}{deferrable}")
        await self._set(options)
        await self._limit(options, is_first=True)

    async def _set(self, options: BeginOptions) -> None:
        if not options.settings:
            return
        calls = ", ".join("set_config(%s, %s, true)" for _ in options.settings)
        values = [text for setting in options.settings for text in setting]
        refused: Exception | None = None
        try:
            await self._run(f"SELECT {calls}", values)
        except self.dbapi.Error as error:
            message = error.diag.message_primary or str(error)
            sqlstate = "" if self._connection.closed else error.sqlstate or ""
            refused = type(error)(without_values(message, options.settings, sqlstate))
        if refused is not None:
            raise refused  # without the other one, whose text has values
        self._has_lost_settings = False

    async def _limit(self, options: BeginOptions, *, is_first: bool) -> None:
        limits = current_limits.get()
        if not limits or options.sets_statement_timeout or self._connection.autocommit:
            return
        if self.own_timeout is None and is_first and not self.effects & Effect.SESSION:
            self.own_timeout = await self._own_timeout()
        limit = limits.of_statement(monotonic(), self.own_timeout, is_first=is_first)
        if limit is not None and limit.is_news(self.limit):
            await self._run(f"SET LOCAL statement_timeout = {limit.milliseconds}")
            self.limit = limit

    async def _own_timeout(self) -> float:
        self.ran_itself += 1
        cursor = await self._connection.execute("SHOW statement_timeout")
        (shown,) = await cursor.fetchone()
        return seconds_of(shown)

    async def _run(self, statement: str, values: Any = None) -> None:
        self.ran_itself += 1
        await self._connection.execute(statement, values)

    def fetch_row(self, sql: str, values: list[str]) -> Any:
        """Return a statement's row, which counts as none of the lease's. Runs in a greenlet.

        Args:
            sql: With parameters ``%s``.
            values: Of these.
        """
        return await_(self._fetch_row(sql, values))

    async def _fetch_row(self, sql: str, values: list[str]) -> Any:
        self.ran_itself += 1
        return await (await self._connection.execute(sql, values)).fetchone()

    def expose(self) -> None:
        """Record that code outside SQLAlchemy has the driver's connection, and may use it."""
        if not self.effects & Effect.DRIVER:
            self.effects |= Effect.DRIVER
            self.ran = self.ran_itself = 0
            self._connection.cursor_factory = _counting(self._connection.cursor_factory, self)

    def count(self, query: Any) -> None:
        """Count and record what runs on the driver's connection outside SQLAlchemy."""
        self.ran += 1
        if isinstance(query, bytes):
            query = query.decode(errors="replace")
        if isinstance(query, str):
            self.effects |= effects_of(query) & Effect.LASTING

    def set_autocommit(self, value: bool) -> None:
        """Set whether statements run outside transactions."""
        self._set_at_once("autocommit", value)

    def set_deferrable(self, value: bool | None) -> None:
        """Set whether the next transactions are ``DEFERRABLE``."""
        self._set_at_once("deferrable", value)

    def set_isolation_level(self, value: Any) -> None:
        """Set the isolation level of the next transactions."""
        self._set_at_once("isolation_level", value)

    def set_read_only(self, value: bool | None) -> None:
        """Set whether the next transactions only read."""
        self._set_at_once("read_only", value)

    def _set_at_once(self, name: str, value: Any) -> None:
        # SQLAlchemy sets them while it makes what is to return the connection: a cancellation
        # there would lose it. Nothing is sent, but psycopg may wait for a turn of the event loop.
        driver = self._connection
        at_once = getattr(driver, f"_set_{name}_gen", None)
        if at_once is None or driver.lock.locked() or driver._pipeline is not None:
            await_(getattr(driver, f"set_{name}")(value))
        else:
            deque(at_once(value), maxlen=0)

    def commit(self) -> None:
        """Commit, within ``command_timeout``."""
        self.begin = self._options = self.limit = None
        await_(self._within_limit(self._connection.commit()))

    def rollback(self) -> None:
        """Roll back, within ``command_timeout``. What cannot be rolled back is closed."""
        self.begin = self._options = self.limit = None
        try:
            await_(self._within_limit(self._connection.rollback()))
        except self.dbapi.Error:
            # As during a COPY that is not read: SQLAlchemy gives back only what it knows is gone.
            self._connection.pgconn.finish()
            raise

    async def _within_limit(self, work: Awaitable[None]) -> None:
        async with limited(self._connection, getattr(self._connection, "command_timeout", None)):
            await work

    def run_async(self, fn: Any) -> Any:
        """Run what uses the driver's own connection."""
        self.expose()
        return super().run_async(fn)


class Psycopg(Driver):
    """psycopg: it cancels the server's query itself, and waits for that, when it is cancelled."""

    can_recover = True

    @override
    def owns(self, connection: Any) -> bool:
        return isinstance(connection, AsyncAdapt_psycopg_connection) and hasattr(
            connection._connection, "pgconn"
        )

    @override
    def adapt(self, connection: Any) -> Any:
        if type(connection) is AsyncAdapt_psycopg_connection and self.owns(connection):
            return PsycopgConnection.of(connection)
        return connection

    @override
    def trace(self, connection: Any) -> Any:
        if isinstance(connection, PsycopgConnection):
            return connection
        return super().trace(connection)

    @override
    def is_standby(self, connection: Any) -> bool:
        said: bytes | None = connection._connection.pgconn.parameter_status(b"in_hot_standby")
        return said == b"on"

    @override
    def expose(self, connection: Any) -> None:
        if isinstance(connection, PsycopgConnection):
            connection.expose()

    def take_effects(self, connection: Any) -> Effect:
        """Return what the lease may have left, and begin anew.

        A driver's connection that was given out but ran no query has left nothing.
        """
        effects = super().take_effects(connection)
        if not effects & Effect.DRIVER:
            return effects
        driver = connection._connection
        driver.cursor_factory = driver.cursor_factory.__base__
        was_used = connection.ran > connection.ran_itself or driver._notify_handlers
        return effects | Effect.SESSION if was_used else effects

    @override
    def is_closed(self, connection: Any) -> Callable[[], bool]:
        driver = connection._connection
        return lambda: driver.closed

    @override
    def fileno(self, connection: Any) -> int | None:
        number: int = connection._connection.fileno()
        return number

    @override
    def recover(self, connection: Any) -> bool:
        connection.rollback()
        driver = connection._connection
        if isinstance(connection, PsycopgConnection):
            connection.forget_options()
        return not driver.closed and driver.info.transaction_status == _IDLE

    def reset(self, connection: Any) -> bool:
        """Run RESET in one transaction, which psycopg begins by itself."""
        return await_(_reset(connection._connection))

    @override
    def followed_settings(self, connection: Any) -> tuple[str | None, ...]:
        reported = connection._connection.info.parameter_status
        return tuple(reported(name) for name in FOLLOWED)

    @override
    def server_pid(self, connection: Any) -> int | None:
        pid: int = connection._connection.info.backend_pid
        return pid

    @override
    def is_in_transaction(self, connection: Any) -> bool:
        return connection._connection.info.transaction_status != _IDLE  # type: ignore[no-any-return]  # untyped

    @override
    def abandon(self, dialect: Any, connection: Any) -> None:
        connection._connection.pgconn.finish()


def _counting(factory: Any, connection: PsycopgConnection) -> Any:
    """Return a class of cursors like another one, which counts what they run."""
    noted = weakref.ref(connection)  # or the driver's connection would be part of a cycle

    def count(query: Any) -> None:
        if (adapter := noted()) is not None:
            adapter.count(query)

    class Counting(factory):  # type: ignore[misc]  # whichever class the application has chosen
        async def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            count(query)
            return await super().execute(query, *args, **kwargs)

        async def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            count(query)
            return await super().executemany(query, *args, **kwargs)

        def stream(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            count(query)
            return super().stream(query, *args, **kwargs)

        def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
            count(statement)
            return super().copy(statement, *args, **kwargs)

    return Counting


async def _reset(driver: Any) -> bool:
    driver._notify_handlers.clear()  # of functions that have listened
    for statement in RESET:
        await driver.execute(statement)
    lasting = await driver.execute(LASTING)
    await driver.commit()
    return not lasting.rowcount
