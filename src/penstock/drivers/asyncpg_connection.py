"""A connection of asyncpg's, below SQLAlchemy: transactions begin and end without a wait."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, NoReturn, Self

from asyncpg.exceptions import InterfaceError, InternalClientError
from asyncpg.transaction import TransactionState
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.util import await_

from penstock.deadlines import StatementLimit, current_limits
from penstock.drivers.asyncpg_cursors import Cursor, ServerSideCursor
from penstock.drivers.asyncpg_savepoint import ReadOnlySavepoint
from penstock.drivers.asyncpg_statements import (
    STAY_READ_ONLY,
    PreparedStatements,
    begin_text,
    context_statement,
    limit_statement,
)
from penstock.drivers.driver import (
    NO_OPTIONS,
    BeginOptions,
    holds_state_after,
    keeps_transaction,
    left_by,
    refuse_end,
    seconds_of,
)
from penstock.drivers.effects import Effect, effects_of
from penstock.drivers.pipelining import Parameters, Pipeline, may_pipeline

_MAY_END = Effect.CONTROL | Effect.DRIVER


class AsyncpgConnection(AsyncAdapt_asyncpg_connection):
    """SQLAlchemy's adapter, whose BEGIN travels with the first statement of a transaction.

    The ROLLBACK of a transaction that reads is not waited for.

    Attributes:
        effects: What the lease's statements may have left on the server.
        begin: How the next transaction begins; None as ``lease_options`` has it, or the engine.
        reads_within: Whether a session reads in a savepoint of a transaction that is not its own.
        holds_state: Whether the open transaction may hold settings or locks that end with it.
        limit: The ``statement_timeout`` that its transaction was given last; None for none.
        own_timeout: Seconds of the configured one, 0 for none; None until it was read.
        pipeline: In front of the driver; kept, for the transport of a connection that has ended
            does not know it any more.
        queries_before: How many the driver had run when its own connection was given out.
    """

    __slots__ = (
        "_has_lost_settings",
        "_is_limited_anew",
        "_may_have_state",
        "_opening",
        "_options",
        "_savepoint",
        "begin",
        "effects",
        "holds_state",
        "is_shared",
        "lease_options",
        "limit",
        "own_timeout",
        "pipeline",
        "queries_before",
        "reads_within",
    )

    _connection: Any
    _prepared_statement_cache: Any
    _transaction: Any
    begin: BeginOptions | None
    effects: Effect
    holds_state: bool
    lease_options: BeginOptions | None
    limit: StatementLimit | None
    own_timeout: float | None
    pipeline: Pipeline
    queries_before: int
    _has_lost_settings: bool
    """Whether the open transaction may be another than the one that its settings were sent for."""
    reads_within: bool
    is_shared: bool
    """Whether a pooler in between may give the server's session to others between transactions.

    PgBouncer before 1.21 does so with the answer to ROLLBACK, although the next transaction's BEGIN
    has followed it already: the rest of that transaction would go to another session.
    """
    _may_have_state: bool
    _is_limited_anew: bool
    _opening: list[tuple[str, Parameters]]
    _options: BeginOptions | None
    _savepoint: ReadOnlySavepoint
    """The latest, kept for its end may go on by itself: the event loop keeps no task."""

    _cursor_cls = Cursor
    _ss_cursor_cls = ServerSideCursor

    @classmethod
    def of(cls, adapter: AsyncAdapt_asyncpg_connection) -> Self:
        """Return one that takes the place of SQLAlchemy's own, around the same connection."""
        connection = cls.__new__(cls)
        for base in type(adapter).__mro__:
            for name in getattr(base, "__slots__", ()):
                setattr(connection, name, getattr(adapter, name))
        if (cache := connection._prepared_statement_cache) is not None:
            connection._prepared_statement_cache = PreparedStatements(cache)
        connection.effects = Effect.NONE
        connection.begin = connection._options = connection.lease_options = None
        connection._opening = []
        connection._may_have_state = connection._has_lost_settings = False
        connection._is_limited_anew = connection.is_shared = False
        connection.reads_within = connection.holds_state = False
        connection.limit = connection.own_timeout = None
        connection.pipeline = connection._pipeline  # which knows where each message begins
        connection.queries_before = 0
        return connection

    # What its statements do.

    async def _prepare(self, operation: str, invalidate_timestamp: float) -> Any:
        await self._settle()
        self.note(operation)
        if self._prepared_statement_cache is not None:
            self._prepared_statement_cache.path = (self._options or NO_OPTIONS).search_path
        return await super()._prepare(operation, invalidate_timestamp)

    def recently_prepared(self) -> list[str]:
        """Return the texts that sessions have had prepared, the latest used first."""
        statements: PreparedStatements | None = self._prepared_statement_cache
        return [] if statements is None else statements.recent()

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
        """
        effects = effects_of(operation)
        if self.reads_within:
            refuse_end(effects, operation, self.dbapi.ProgrammingError)
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
        self.effects |= left_by(effects)
        self.holds_state = self.holds_state or holds_state_after(effects)

    def _has_ended(self) -> bool:
        # By a statement, or by code that has the driver's connection; or the server has refused
        # to begin, and would run what follows without a transaction.
        is_asked = self._options is not None or self.reads_within
        may_end = is_asked and bool(self.effects & _MAY_END)
        return (may_end or self._pipeline.is_refused) and not self._is_open()

    def read_within(self, *, begins: bool) -> None:
        """Keep what follows read-only, in a savepoint of a transaction that is not the session's.

        Args:
            begins: False where that ends.
        """
        self.reads_within, self._may_have_state = begins, False

    def _send_again(self, effects: Effect) -> None:
        again = []
        if self._may_have_state and not effects & Effect.CONTROL:
            again.append(STAY_READ_ONLY)
        if self._has_lost_settings:
            self._has_lost_settings = False
            settings = (self._options or NO_OPTIONS).settings
            again += [context_statement(settings)] if settings else []
        if again:
            self._send(again)

    def _send(self, statements: list[tuple[str, Parameters]]) -> None:
        self._pipeline.send_batch(statements, (self._options or NO_OPTIONS).settings)

    def _limit_anew(self, options: BeginOptions) -> None:
        # In front of each statement, for less is left until a deadline than there was.
        limit = self._limit(options, is_first=False)
        if limit is not None and limit.is_news(self.limit):
            self._pipeline.send_batch([limit_statement(limit)])
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

    def _is_open(self) -> bool:
        # The driver learns of a BEGIN with the answer to the statement behind it.
        return self._pipeline.has_open_batch or self._connection.is_in_transaction()

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
            self._pipeline.send_batch([context_statement(settings)], secret)

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
                self._opening = [STAY_READ_ONLY] if transaction._readonly else []
            else:
                self._opening = [(begin_text(transaction), ())]
                # As Transaction.start() leaves it, so that the driver's own nest in it.
                driver._top_xact = transaction
                transaction._state = TransactionState.STARTED
        except Exception as error:  # noqa: BLE001 - raised as SQLAlchemy's
            self._handle_exception(error)
        if options is not None and options.settings:
            self._opening.append(context_statement(options.settings))
        if limit is not None:
            self._opening.append(limit_statement(limit))
            self._is_limited_anew = True
        self._transaction, self._options = transaction, options
        if self._opening:
            self._send(self._opening)
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
        self._opening = [("BEGIN READ ONLY" if options.reading else "BEGIN", ())]
        if options.settings:
            self._opening.append(context_statement(options.settings))
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
        if self._ends_without_wait():
            self._roll_back_pipelined()
        else:
            self._end(super().commit)

    def rollback(self) -> None:
        """Roll back, without a wait where the transaction only reads.

        What cannot be rolled back is closed.
        """
        self._await_statement()
        if self._ends_without_wait():
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
        return self._transaction is None or self._ends_without_wait()

    def _ends_without_wait(self) -> bool:
        return (
            self._transaction is not None
            and self._options is not None
            and self._options.reading
            and not self.is_shared
            and self._transaction is self._connection._top_xact
            and self._may_pipeline()
            and not self._pipeline.is_within_message
            and not self._execute_mutex.locked()
        )

    def _roll_back_pipelined(self) -> None:
        driver, transaction = self._connection, self._transaction
        try:
            self._pipeline.roll_back(driver._protocol)
        except (InternalClientError, InterfaceError):  # see rollback() and _handle_exception()
            _abort(driver)
        self._leave(transaction)

    def _leave(self, transaction: Any) -> None:
        if self._connection._top_xact is transaction:
            self._connection._top_xact = None
        transaction._state = TransactionState.ROLLEDBACK
        self._transaction = self.begin = self._options = self.limit = None

    def end_unsent(self) -> None:
        """Undo a BEGIN that was sent in front of a statement which the driver could not send.

        The next statement begins anew.
        """
        if not (self._may_pipeline() and self._pipeline.has_open_batch):
            return
        self._pipeline.end_batch()
        transaction, driver = self._transaction, self._connection
        is_top = transaction is not None and transaction is driver._top_xact
        if is_top and not driver.is_in_transaction():
            self._pipeline.send_query("ROLLBACK", leaves_idle=True)
            transaction._state = TransactionState.ROLLEDBACK
            driver._top_xact = self._transaction = None
            self.begin, self._options = self._options, None

    def _handle_exception(self, error: Exception) -> NoReturn:
        if isinstance(error, InternalClientError):
            # The server has said that it ends the connection, which it has not closed yet: as it is
            # the driver neither takes a ROLLBACK nor counts as closed.
            _abort(self._connection)
        super()._handle_exception(error)

    @property
    def _pipeline(self) -> Pipeline:
        return Pipeline.of(self._connection._transport)

    def _may_pipeline(self) -> bool:
        return may_pipeline(self._connection)


def _abort(driver: Any) -> None:
    """Close a connection at once; unlike after ``terminate()``, its state can still be read."""
    driver._aborted = True
    driver._transport.abort()
