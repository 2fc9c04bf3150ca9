"""The session that writes, its COMMIT, and whether a failure says what became of the work."""

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Self, TypeAlias

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, AsyncSessionTransaction
from sqlalchemy.orm import Session

from penstock.database.session import ConnectionLock, UnitSession, UnitSyncSession, operation
from penstock.deadlines import DeadlineExceeded, current_limits
from penstock.engine import StatementTimeout
from penstock.express import CommitOutcomeUnknown

_logger = logging.getLogger(__name__)

_UNKNOWN_SQLSTATE_CLASSES = ("08", "57")
"""Connection exception and operator intervention: the server may have committed before it went.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
_STATEMENT_COMPLETION_UNKNOWN = "40003"
_CANCELLED = "57014"
"""The server says so only of a transaction that it has rolled back: a cancellation that comes later
is a warning."""


def commit(session: Session) -> float:
    """Flush ``session`` and commit its transaction.

    A failure of the flush is raised as it is: nothing has been committed then.

    Returns:
        Seconds that the COMMIT took.

    Raises:
        CommitOutcomeUnknown: The COMMIT left and no answer came back.
        DeadlineExceeded: The time was up before it left; the work is rolled back.
        sqlalchemy.exc.DBAPIError: The server refused the COMMIT; the work is rolled back.
    """
    session.flush()
    began = monotonic()
    with committing():
        session.commit()
    return monotonic() - began


@contextmanager
def committing() -> Iterator[None]:
    """Send a COMMIT in the block, and raise an error where its outcome is not known.

    Raises:
        CommitOutcomeUnknown: The COMMIT left and no answer came back.
        DeadlineExceeded: The time was up before it left.
    """
    if limits := current_limits.get():
        limits.before_commit()
    try:
        yield
    except asyncio.CancelledError as cancelled:
        cancelled.was_sent = True  # type: ignore[attr-defined]  # for what has set a limit
        raise
    except Exception as error:
        if _outcome_is_unknown(error):
            limit = getattr(error, "limit", "")
            lost = f"did not come within {limit}" if limit else "was lost"
            raise CommitOutcomeUnknown(
                f"The answer to COMMIT {lost}: the work may or may not have been saved. "
                "Look for it before repeating it."
            ) from error
        raise


def _outcome_is_unknown(error: Exception) -> bool:
    if isinstance(error, StatementTimeout | DeadlineExceeded):
        return error.outcome_unknown
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError | TimeoutError)
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:
        return error.connection_invalidated
    if sqlstate == _CANCELLED:
        return False
    return sqlstate.startswith(_UNKNOWN_SQLSTATE_CLASSES) or sqlstate == (
        _STATEMENT_COMPLETION_UNKNOWN
    )


_FAILED_IN = "penstock_failed_in"
"""Where in a connection's ``info`` the transaction stands in which a statement has failed."""


class WritingSyncSession(UnitSyncSession):
    """The session below a writing one: it does not take a rollback for a commit."""


def record_failures(engine: Engine) -> None:
    """Have each transaction of the engine's remembered in which a statement fails."""
    event.listen(engine.dialect, "handle_error", _note)


@contextmanager
def doubt(connection: AsyncConnection) -> Iterator[None]:
    """Have the connection's transaction remembered if the block fails.

    Args:
        connection: On which the block runs something without SQLAlchemy's knowledge.
    """
    try:
        yield
    except BaseException:
        _remember(connection.sync_connection)
        raise


def _note(context: ExceptionContext) -> None:
    _remember(context.connection)


def _remember(connection: Connection | None) -> None:
    if connection is None or connection.closed or connection.invalidated:
        return
    if (transaction := connection.get_transaction()) is not None:
        connection.info[_FAILED_IN] = weakref.ref(transaction)


@event.listens_for(WritingSyncSession, "before_commit")
def _refuse_what_is_aborted(session: Session) -> None:
    """Ask the server, where a statement has failed, whether there is anything left to commit.

    It forgets the whole transaction unless the failed statement is undone to a savepoint, and
    would answer COMMIT by ROLLBACK, which no driver takes for an error.
    """
    transaction = session.get_transaction()
    for connection in transaction.connections if transaction else ():
        if connection.closed or connection.invalidated:
            continue
        failed_in = connection.info.pop(_FAILED_IN, None)
        if failed_in is not None and failed_in() is connection.get_transaction():
            try:
                connection.exec_driver_sql("SELECT 1")
            except Exception as error:
                error.add_note("A statement before it failed, and its error was passed over.")
                raise


_Step: TypeAlias = Callable[..., Awaitable[Any]]


class WritingTransaction(AsyncSessionTransaction):
    """What ``begin()`` and ``begin_nested()`` return: to begin and to end may flush and commit."""

    __slots__ = ()

    session: "WritingSession"

    async def start(self, is_ctxmanager: bool = False) -> Self:
        """Begin."""
        await _as_operation(self.session, super().start, is_ctxmanager)
        return self

    async def commit(self) -> None:
        """Commit, or release the savepoint."""
        await _as_operation(self.session, self._committing, super().commit)

    async def rollback(self) -> None:
        """Roll back, to the savepoint if it is one."""
        await _as_rollback(self.session, super().rollback)

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Commit; after an error roll back, unless the unit of work has done so already."""
        leave = super().__aexit__
        if error is None:
            await _as_operation(self.session, self._committing, leave, kind, error, traceback)
        elif not self.session.is_over:
            await _as_rollback(self.session, leave, kind, error, traceback)

    async def _committing(self, step: _Step, *arguments: Any) -> Any:
        if self.nested:
            return await step(*arguments)
        if self.is_active:
            await AsyncSession.flush(self.session)  # a failure of which is none of the COMMIT
        try:
            with committing():
                return await step(*arguments)
        finally:
            self.session.note_commit()


async def _step(_session: UnitSession, step: _Step, *arguments: Any) -> Any:
    return await step(*arguments)


_as_operation = operation(_step)
_as_rollback = operation(_step, is_bounded=False)


class WritingSession(UnitSession):
    """The session that writes; its COMMIT raises an error when its outcome is not known."""

    sync_session_class = WritingSyncSession
    began = False
    commit_seconds: float | None = None
    """How long the last COMMIT took; None before the first."""
    committed: Callable[[], None] | None = None
    """Called after each COMMIT; None where nobody has to know."""
    release_reader: Callable[..., Awaitable[None]] | None = None
    """Has the other session of its unit release its connection; None where there is none."""

    async def before_operation(self) -> ConnectionLock:
        """Take the unit's connection over from the reader, which may hold the pool's last one."""
        lock = await super().before_operation()
        self.began = True
        if self.release_reader is not None:
            try:
                await self.release_reader(object(), waits=self.open_connection() is None)
            except BaseException:
                lock.release()
                raise
        return lock

    async def commit(self) -> None:
        """Flush and commit; :func:`commit` says what it may raise."""
        try:
            self.commit_seconds = await self.run_sync(commit)
        finally:
            self.note_commit()

    def note_commit(self) -> None:
        """Have what reads next see what was committed, wherever it reads."""
        if self.committed is not None:
            self.committed()

    async def close(self) -> None:
        """Close the session, which ends it for good; what is not committed is rolled back."""
        if not self.is_over and self.in_transaction():
            _logger.warning(
                "A WriteSession was closed before its unit of work could commit: what it had "
                "written since its last commit is rolled back. Leave closing to the unit of work."
            )
        await super().close()

    def begin(self) -> WritingTransaction:
        """Begin a transaction explicitly."""
        self.refuse_if_ended()
        return WritingTransaction(self)

    def begin_nested(self) -> WritingTransaction:
        """Begin a savepoint."""
        self.refuse_if_ended()
        return WritingTransaction(self, nested=True)

    def add(self, instance: object, *, _warn: bool = True) -> None:
        """Place an object into the session, unless its unit of work is over."""
        self.refuse_if_ended()
        super().add(instance, _warn=_warn)

    def add_all(self, instances: Iterable[object]) -> None:
        """Place several objects into the session, unless its unit of work is over."""
        self.refuse_if_ended()
        super().add_all(instances)
