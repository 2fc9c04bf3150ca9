"""A connection of asyncpg's, below SQLAlchemy: transactions begin and end without a wait."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, NoReturn, Self

from asyncpg.exceptions import InterfaceError, InternalClientError, InvalidCachedStatementError
from asyncpg.transaction import TransactionState
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_connection,
    AsyncAdapt_asyncpg_cursor,
    AsyncAdapt_asyncpg_ss_cursor,
)
from sqlalchemy.util import await_

from penstock.deadlines import StatementLimit, current_limits
from penstock.drivers.driver import (
    NO_OPTIONS,
    BeginOptions,
    TransactionTrace,
    keeps_transaction,
    refuse_end,
    seconds_of,
)
from penstock.drivers.effects import AFTER_TRANSACTION, SHORT, Effect, effects_of, effects_of_short
from penstock.drivers.followed_statements import StatementsOnPath, drop_statements
from penstock.drivers.pipelining import (
    STAY_READ_ONLY,
    Parameters,
    Pipeline,
    ReadOnlySavepoint,
    begin_text,
    context_statements,
    limit_statement,
    may_pipeline,
)
from penstock.drivers.session_state import refuse_session_state

_MAY_END = Effect.CONTROL | Effect.DRIVER


class _Cursor(AsyncAdapt_asyncpg_cursor):
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


class _ServerSideCursor(AsyncAdapt_asyncpg_ss_cursor, _Cursor):
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


class AsyncpgConnection(TransactionTrace, AsyncAdapt_asyncpg_connection):
    """SQLAlchemy's adapter, whose BEGIN travels with the first statement of a transaction.

    The ROLLBACK of a transaction that reads is not waited for.
    """

    _connection: Any
    _prepared_statement_cache: Any
    _transaction: Any
    _statements: Any
    """SQLAlchemy's cache of those that are prepared; None where it keeps none."""
    pipeline: Pipeline
    """In front of the driver; the transport of a connection that has ended knows it no more."""
    queries_before = 0
    """How many the driver had run when its own connection was given out."""
    is_shared = False
    """Whether a pooler in between may give the server's session to others between transactions.

    PgBouncer before 1.21 does so with the answer to ROLLBACK, although the next transaction's BEGIN
    has followed it already: the rest of that transaction would go to another session.
    """
    _is_limited_anew = False
    _opening: Sequence[tuple[str, Parameters]] = ()
    """What the open transaction has begun with."""
    _savepoint: ReadOnlySavepoint
    """The latest, kept for its end may go on by itself: the event loop keeps no task."""

    _cursor_cls = _Cursor
    _ss_cursor_cls = _ServerSideCursor

    @classmethod
    def of(cls, adapter: AsyncAdapt_asyncpg_connection) -> Self:
        """Return one that takes the place of SQLAlchemy's own, around the same connection."""
        connection = cls.__new__(cls)
        for base in type(adapter).__mro__:
            for name in getattr(base, "__slots__", ()):
                setattr(connection, name, getattr(adapter, name))
        connection._statements = connection._prepared_statement_cache
        # From the start: it knows where each message begins.
        connection.pipeline = Pipeline.of(connection._connection._transport)
        return connection

    # What its statements do.

    async def _prepare(self, operation: str, invalidate_timestamp: float) -> Any:
        await self._settle()
        self.note(operation)
        options, cache = self._options, self._statements
        path = options.search_path if options is not None and options.settings else None
        if path is not None and cache is not None:
            cache = StatementsOnPath(cache, path)
        self._prepared_statement_cache = cache
        return await super()._prepare(operation, invalidate_timestamp)

    def recently_prepared(self) -> list[str]:
        """Return the texts that sessions have had prepared, the latest used first."""
        kept = {} if self._statements is None else self._statements._data
        uses = sorted(kept.items(), key=lambda item: -item[1][2][0])
        return [key for key, _ in uses if isinstance(key, str)]  # not those on another path

    async def before_many(self, operation: str) -> None:
        """Begin and record, as before a single statement, what is run for several values.

        Args:
            operation: As for :meth:`note`.
        """
        async with self._execute_mutex:
            if self._transaction is None:
                await self._start_transaction()
            await self._settle()
        self.note(operation)

    async def _settle(self) -> None:
        """Wait for a statement that was cancelled: what became of its BEGIN is known then."""
        protocol = self._connection._protocol
        if protocol._is_cancelling():
            try:
                await protocol._wait_for_cancellation(self._connection._config.command_timeout)
            except Exception as error:  # noqa: BLE001 - raised as SQLAlchemy's
                self._handle_exception(error)

    def note(self, operation: str) -> None:
        """Record what a statement may leave behind; keep the transaction read-only if it reads.

        Args:
            operation: The statement that is sent next.

        Raises:
            PenstockError: It leaves on the session what a pooler would give to others.
        """
        effects = (effects_of_short if len(operation) <= SHORT else effects_of)(operation)
        if self.refuses_state:
            refuse_session_state(effects, operation)
        if effects & Effect.CONTROL:
            is_autocommit = self.isolation_level == "autocommit"
            refuse_end(self, operation, self.dbapi.ProgrammingError, is_autocommit=is_autocommit)
        if self._transaction is not None and self._opening and self._has_ended():
            # The next statement begins another transaction of the kind.
            self._send([*self._opening, STAY_READ_ONLY] if self.reads_within else self._opening)
            self._has_lost_settings, self.limit = False, None
        else:
            self._send_again(effects)
        if self.reads_within or (self._options is not None and self._options.reading):
            # Before its first query, a transaction may be made to write (SET TRANSACTION).
            self._may_have_state = self._may_have_state or not effects & Effect.READS
        if self._is_limited_anew:
            self._is_limited_anew = False
        elif self._options is not None and not effects & Effect.CONTROL:
            self._limit_anew(self._options)
        if effects & Effect.CONTROL and not keeps_transaction(operation):
            self._has_lost_settings = True
        self.effects |= effects & AFTER_TRANSACTION
        self.holds_state = self.holds_state or effects != Effect.READS

    def _has_ended(self) -> bool:
        # By a statement, or by code that has the driver's connection; or the server has refused
        # to begin, and would run what follows without a transaction.
        is_asked = self._options is not None or self.reads_within
        may_end = is_asked and bool(self.effects & _MAY_END)
        if not (may_end or self.pipeline.is_refused):
            return False
        # The driver learns of a BEGIN with the answer to the statement behind it.
        return not (self.pipeline.has_open_batch or self._connection.is_in_transaction())

    def _send_again(self, effects: Effect) -> None:
        again = []
        if self._may_have_state and not effects & Effect.CONTROL:
            again.append(STAY_READ_ONLY)
        if self._has_lost_settings:
            self._has_lost_settings = False
            again += context_statements((self._options or NO_OPTIONS).settings)
        if again:
            self._send(again)

    def _send(self, statements: Sequence[tuple[str, Parameters]]) -> None:
        self.pipeline.send_batch(statements, (self._options or NO_OPTIONS).settings)

    def _limit_anew(self, options: BeginOptions) -> None:
        # In front of each statement, for less is left until a deadline than there was.
        limit = self._limit(options, is_first=False)
        if limit is not None and limit.is_news(self.limit):
            self.pipeline.send_batch([limit_statement(limit)])
            self.limit = limit

    def _limit(self, options: BeginOptions, *, is_first: bool) -> StatementLimit | None:
        limits = current_limits.get()
        if not limits or options.sets_statement_timeout:
            return None
        return limits.of_statement(monotonic(), self.own_timeout, is_first=is_first)

    async def limit_next(self, options: BeginOptions) -> StatementLimit | None:
        """Return and keep how long the server may take for what is sent next.

        Args:
            options: Whose settings count more.
        """
        is_as_new = not self.effects & Effect.SESSION
        if self.own_timeout is None and current_limits.get() and is_as_new:
            shown = await self._connection.fetchval("SHOW statement_timeout")
            self.own_timeout = seconds_of(shown)
        self.limit = self._limit(options, is_first=True)
        return self.limit

    @property
    def has_begun(self) -> bool:
        """Whether it has begun a transaction and not ended it."""
        return self._transaction is not None

    def run_async(self, fn: Any) -> Any:
        """Run what uses the driver's own connection."""
        self.expose()
        return super().run_async(fn)

    def expose(self) -> None:
        """Record that code outside SQLAlchemy has the driver's connection, and may use it."""
        if not self.effects & Effect.DRIVER:
            self.effects |= Effect.DRIVER
            self.queries_before = self._connection._protocol.queries_count

    @property
    def ended_by(self) -> str:
        """The SQLSTATE with which the server has ended the connection; empty if it said none."""
        return self.pipeline.ended_by

    def fetch_row(self, sql: str, values: list[str]) -> Any:
        """Return a statement's row, which counts as none of the lease's. Runs in a greenlet.

        Args:
            sql: With parameters ``$1``, ``$2`` ...
            values: Of these.
        """
        try:
            return await_(self._connection.fetchrow(sql, *values))
        except Exception as error:  # noqa: BLE001 - raised as SQLAlchemy's
            self._handle_exception(error)

    # Its transactions.

    async def begin_pipelined(self) -> None:
        """Begin as ``begin`` says, with what the driver sends next."""
        await self._start_transaction()

    def send_settings(self, settings: tuple[tuple[str, str], ...]) -> None:
        """Send settings in front of the driver's next statement, for its transaction alone.

        Args:
            settings: Names and values; the statement after them is prepared already.
        """
        secret = settings
        if self.limit is not None:
            settings = (*settings, ("statement_timeout", str(self.limit.milliseconds)))
        if settings:
            self.pipeline.send_batch(context_statements(settings), secret)

    async def _start_transaction(self) -> None:
        options, self.begin, self.limit = self.begin or self.lease_options, None, None
        if self.isolation_level == "autocommit" and options in {None, NO_OPTIONS}:
            return
        driver = self._connection
        try:
            transaction = self._new_transaction(options or BeginOptions())  # if it is not closed
            if driver._protocol._is_cancelling():
                await driver.execute("SELECT")  # a BEGIN in front could be what is cancelled
            limit = None if options is None else await self.limit_next(options)
            if driver._top_xact is not None or driver.is_in_transaction():
                await transaction.start()  # within one that the driver knows of
                opening = [STAY_READ_ONLY] if transaction._readonly else []
            else:
                opening = [(begin_text(transaction), ())]
                # As Transaction.start() leaves it, so that the driver's own nest in it.
                driver._top_xact = transaction
                transaction._state = TransactionState.STARTED
        except Exception as error:  # noqa: BLE001 - raised as SQLAlchemy's
            self._handle_exception(error)
        if options is not None:
            opening += context_statements(options.settings)
        if limit is not None:
            opening.append(limit_statement(limit))
            self._is_limited_anew = True
        self._transaction, self._options, self._opening = transaction, options, opening
        if opening:
            self._send(opening)
        self._may_have_state, self._has_lost_settings = self.reads_within, False
        self.holds_state = False

    def begin_as(self, options: BeginOptions) -> None:
        """Begin the next transactions so; where a listener has begun one already, go on so.

        One may also be ended by code that has SQLAlchemy's connection of the session.

        Args:
            options: An isolation level can no longer be had then.
        """
        self.lease_options = options
        if self._transaction is None:
            self.begin = options
            return
        self._options = options
        begin = "BEGIN READ ONLY" if options.reading else "BEGIN"
        self._opening = [(begin, ()), *context_statements(options.settings)]
        self._may_have_state, self._has_lost_settings = options.reading, True

    async def read_apart(
        self,
        operation: str,
        settings: tuple[tuple[str, str], ...],
        read: Callable[[Any], Awaitable[Any]],
    ) -> Any:
        """Run what reads in the open transaction, as if it were in a separate transaction.

        It waits for the statement in progress. It sees what the transaction has written, can write
        nothing itself, and neither its settings nor its failure are left. That costs no round trip.

        Args:
            operation: The statement.
            settings: Names and values that hold for it alone.
            read: Runs it, given the driver's connection.
        """
        async with ReadOnlySavepoint(self._execute_mutex, self._connection) as savepoint:
            self._savepoint = savepoint
            if self._transaction is None:
                await self._start_transaction()
            self.note(operation)
            savepoint.begin(settings)
            return await read(self._connection)

    async def open_transaction(self) -> None:
        """Begin now, in a separate round trip, if no transaction has begun yet."""
        if self._transaction is None:
            async with self._execute_mutex:
                await self._start_transaction()
                self._is_limited_anew = False
                try:
                    await self._connection.fetch("SELECT")
                except Exception as error:  # noqa: BLE001 - as above
                    self._handle_exception(error)

    def _new_transaction(self, options: BeginOptions) -> Any:
        isolation = self.isolation_level
        if options.isolation is not None:
            isolation = options.isolation.lower().replace(" ", "_")
        return self._connection.transaction(
            isolation=None if isolation == "autocommit" else isolation,
            readonly=options.reading or self.readonly,
            deferrable=options.deferrable or self.deferrable,
        )

    def commit(self) -> None:
        """Commit; what only reads is rolled back, which leaves nothing that it has set."""
        self._await_statement()
        if self._transaction is not None and self.ends_without_wait():
            self._roll_back_pipelined()
        else:
            self._end(super().commit)

    def rollback(self) -> None:
        """Roll back, without a wait where it only reads; what cannot be rolled back is closed."""
        self._await_statement()
        if self._transaction is not None and self.ends_without_wait():
            self._roll_back_pipelined()
        else:
            self.end_unsent()
            try:
                self._end(super().rollback)
            except self.dbapi.Error:
                # As during a statement on the driver's own connection: SQLAlchemy gives
                # back only what it knows is gone.
                _abort(self._connection)
                raise

    def _end(self, end: Callable[[], None]) -> None:
        try:
            end()
        except Exception:
            # The server may have refused just that, and SQLAlchemy asks it only once.
            self.effects |= Effect.CONTROL
            raise
        finally:
            self.begin = self._options = self.limit = None

    def _await_statement(self) -> None:
        if self._execute_mutex.locked():
            await_(self._execute_mutex.acquire())
            self._execute_mutex.release()

    def ends_without_wait(self) -> bool:
        """Return whether a rollback says nothing to the server, or waits for no answer."""
        return self._transaction is None or (
            self._options is not None
            and self._options.reading
            and not self.is_shared
            and self._transaction is self._connection._top_xact
            and may_pipeline(self._connection)
            and not self.pipeline.is_within_message
            and not self._execute_mutex.locked()
        )

    def _roll_back_pipelined(self) -> None:
        driver, transaction = self._connection, self._transaction
        try:
            self.pipeline.roll_back(driver._protocol)
        except (InternalClientError, InterfaceError):  # see rollback() and _handle_exception()
            _abort(driver)
        if driver._top_xact is transaction:
            driver._top_xact = None
        transaction._state = TransactionState.ROLLEDBACK
        self._transaction = self.begin = self._options = self.limit = None

    def end_unsent(self) -> None:
        """Undo a BEGIN that was sent in front of a statement which the driver could not send.

        The next statement begins anew; on a shared session it goes on in the open transaction.
        """
        if not (may_pipeline(self._connection) and self.pipeline.has_open_batch):
            return
        self.pipeline.end_batch()
        if self.is_shared:
            return  # it stays open until the rollback that is waited for: see is_shared
        transaction, driver = self._transaction, self._connection
        is_top = transaction is not None and transaction is driver._top_xact
        if is_top and not driver.is_in_transaction():
            self.pipeline.send_query("ROLLBACK", leaves_idle=True)
            transaction._state = TransactionState.ROLLEDBACK
            driver._top_xact = self._transaction = None
            self.begin, self._options = self._options, None

    def _handle_exception(self, error: Exception) -> NoReturn:
        if isinstance(error, InternalClientError):
            # The server has said that it ends the connection, which it has not closed yet: as it is
            # the driver neither takes a ROLLBACK nor counts as closed.
            _abort(self._connection)
        if isinstance(error, InvalidCachedStatementError):
            drop_statements(self._connection)
        super()._handle_exception(error)


def _abort(driver: Any) -> None:
    """Close a connection at once; unlike after ``terminate()``, its state can still be read."""
    driver._aborted = True
    driver._transport.abort()
