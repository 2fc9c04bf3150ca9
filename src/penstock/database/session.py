"""What both sessions of a unit of work are: operations counted, and refused after the end."""

import asyncio
import functools
import logging
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_, greenlet_spawn

from penstock.base_error import PenstockError
from penstock.context import ContextError, ContextSource, Settings
from penstock.database.nesting import NO_SETTINGS, NestedLock, SessionBusy, set_within
from penstock.deadlines import Deadline, DeadlineExceeded, current_limits, within_limits
from penstock.drivers import sqlalchemy_internals as internals
from penstock.drivers.driver import BeginOptions
from penstock.express.errors import raise_if_unknown
from penstock.pool.leak import OpenLease
from penstock.pool.record import Record

_logger = logging.getLogger(__name__)


class SessionClosed(PenstockError, InvalidRequestError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """The session's unit of work is over; a transaction that it began now would never end."""


class ConnectionLock:
    """Which party is at work on a session's connection: one at a time, first come, first served.

    A party may do several things at once while it holds the lock.

    Args:
        timeout: Seconds that a party waits for the lock; None for no limit.
    """

    __slots__ = ("_count", "_party", "_queue", "_timeout")

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._party: object | None = None
        self._count = 0
        """What the party has in progress."""
        self._queue: deque[tuple[object, asyncio.Future[None]]] | None = None
        """The parties that wait; None while none does. None waits while no party is at work."""

    @property
    def is_held(self) -> bool:
        """Whether a party is at work."""
        return self._party is not None

    async def acquire(self, party: object) -> None:
        """Begin one piece of work, which :meth:`release` ends, once no other party is at work.

        Args:
            party: Whose work it is.

        Raises:
            SessionBusy: Others were at work for the whole of the timeout.
        """
        if self._party is not None and self._party is not party:
            await self._wait(party)
            return
        self._party = party
        self._count += 1

    def release(self) -> None:
        """End a piece of work; the end of the last hands the lock to the next party."""
        self._count -= 1
        if self._count:
            return
        self._party = None
        while self._queue:
            party, waiter = self._queue.popleft()
            if not waiter.done():
                self._party, self._count = party, 1
                waiter.set_result(None)
                return

    async def _wait(self, party: object) -> None:
        waiter = asyncio.get_running_loop().create_future()
        if self._queue is None:
            self._queue = deque()
        self._queue.append((party, waiter))
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.release()
            if not isinstance(error, TimeoutError) or not limit.expired():
                raise
            raise SessionBusy(
                f"A statement waited {self._timeout:g} s (pool_timeout) for others of its request, "
                "which are in progress on the same connection."
            ) from error


SessionSource: TypeAlias = AsyncEngine | AsyncConnection
"""Where a session gets its connection; a given connection's own transaction is never ended."""

_Method: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]

_CLOSED_BY_HAND = (
    "This session was closed within its unit of work, by close() or an async with. Leave that out: "
    "what injects or opens a session commits or rolls back, and closes it."
)
_OPEN_YOUR_OWN = (
    "What runs later (a background task, a stream, an exception handler, a task of your own) opens "
    "its own: async with database.write() or database.read()."
)


def operation(method: _Method, *, is_bounded: bool = True) -> _Method:
    """Let ``method`` run only while the session lives, and count it while it runs.

    Args:
        method: Of a session.
        is_bounded: Whether what bounds the session, the call or the request bounds it: not a
            rollback, which is no less wanted when the time is up.
    """

    @functools.wraps(method)
    async def counted(self: "UnitSession", *args: Any, **kwargs: Any) -> Any:
        self.refuse_if_ended()
        if self.block is not None:
            self.block.use()
        if self.nested is not None:
            await self.nested.acquire()
        if self.sync_session.context is not None:  # type: ignore[attr-defined]  # of that kind
            await self.sync_session.find_context()  # type: ignore[attr-defined]  # as above
        lock = await self.before_operation()
        self.running += 1
        try:
            try:
                work = method(self, *args, **kwargs)
                if is_bounded and (self.deadline is not None or current_limits.get()):
                    work = _within_limits(self.deadline, work)
                result = await work
            except BaseException:
                self.running -= 1
                await self.after_operation(failed=True)
                raise
            self.running -= 1
            await self.after_operation(failed=False)
            return result
        finally:
            lock.release()
            if lock is not self.connection_lock:
                await self.after_lock_elsewhere()

    return counted


async def _within_limits(deadline: Deadline | None, work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await within_limits(work, deadline)
    except DeadlineExceeded as error:
        raise_if_unknown(error)
        raise


class UnitSyncSession(Session):
    """The session below a session of a unit of work.

    Attributes:
        options: How its transactions begin.
        context: Where the role and the settings of its transactions come from, until they are
            known and part of the options; None from then on.
        begins: Whether a transaction of a connection is beginning.
        above: Gives the session of the unit of work; None once that is gone.
    """

    options = BeginOptions()
    context: ContextSource | None = None
    begins = False
    above: Callable[[], "UnitSession | None"] = staticmethod(lambda: None)
    is_guest = False
    """Whether its connection is in the transaction of another session of the same unit."""
    _before: tuple[Connection, Settings] | None = None
    """What was set on a connection before its transaction, which is a savepoint of an outer one."""

    async def find_context(self) -> None:
        """Have the role and the settings found out."""
        if (source := self.context) is None:
            return
        settings = source.alone if source.request() is None else None
        if settings is None:
            settings = await source.settings()
        if settings:
            self.options = replace(self.options, settings=settings + self.options.settings)
        self.context = None

    def begin_on(self, transaction: SessionTransaction, connection: Connection) -> None:
        """Have a transaction begin as it should, with its first statement.

        Args:
            transaction: Of this session; nothing is done where it is a savepoint within another.
            connection: Where it begins.

        Raises:
            ContextError: The connection cannot.
        """
        if self.context is not None:  # as where an attribute is loaded, which is no operation
            await_(self.find_context())
        if transaction.nested:
            return
        options = self.options
        if connection.in_nested_transaction():
            if options.settings and not self.is_guest:
                self._before = connection, set_within(connection, options.settings)
            return
        self.begins = True
        adapter: Any = connection.connection.dbapi_connection
        if hasattr(adapter, "begin_as"):
            adapter.begin_as(options)
        elif options.settings:
            raise ContextError(NO_SETTINGS)
        elif options.isolation and connection.dialect.name == "postgresql":
            level = f"{options.isolation}{' DEFERRABLE' if options.deferrable else ''}"
            connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {level}")

    def ended(self, transaction: SessionTransaction) -> None:
        """Put back what was set before, as a savepoint leaves its settings behind."""
        if self._before is not None and transaction.parent is None:
            (connection, settings), self._before = self._before, None
            if not connection.closed and not connection.invalidated:
                set_within(connection, settings)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement: for an operation, or to load an object's attribute."""
        above = self.above()
        if above is None or above.running:
            return super().execute(*args, **kwargs)
        return above.load(partial(super().execute, *args, **kwargs))

    def _connection_for_bind(self, *args: Any, **kwargs: Any) -> Connection:
        # What listeners to after_begin have set is set again wherever the next one begins. Should
        # SQLAlchemy not call this any more, a session gives its connection up less often.
        connection: Connection = super()._connection_for_bind(*args, **kwargs)
        if self.begins:
            self.begins = False
            adapter: Any = connection.connection.dbapi_connection
            if hasattr(adapter, "holds_state"):
                adapter.holds_state = False
        return connection


# In front of the application's own listeners, whose statements belong to the transaction.
event.listen(UnitSyncSession, "after_begin", UnitSyncSession.begin_on, propagate=True, insert=True)
event.listen(UnitSyncSession, "after_transaction_end", UnitSyncSession.ended, propagate=True)


class UnitSession(AsyncSession):
    """An ``AsyncSession`` that belongs to one unit of work and ends with it, for good.

    Attributes:
        running: Operations in progress. Only an idle session may be committed or closed by
            another task than the one that works with it.
        block: By which the session was opened; None for a request's own session.
        connection_lock: Held by the party at work on its connection: its operations, those of the
            other session of its unit, or a statement of the express lane.
        nested: The lock of its unit, where several are in one transaction; None elsewhere.
        deadline: By when its work has to be done; None for no such bound.
    """

    running: int = 0
    nested: NestedLock | None = None
    block: OpenLease | None = None
    _ended: str | None = None
    """Why the session is over; set once. An operation that was in progress then closes it."""
    _advice: Callable[[], str | None] | None = None
    """Says what to do instead of using it after its end; None for the general advice."""

    _is_closed = False
    """Whether it was closed before its unit of work was over."""

    _results: Sequence[Any] = ()
    """What it has streamed, as far as it was not read to its end."""

    def __init__(
        self,
        source: SessionSource,
        *,
        options: BeginOptions,
        context: ContextSource | None = None,
        lock_wait: float | None = None,
        autoflush: bool = False,
    ) -> None:
        super().__init__(
            source,
            expire_on_commit=False,
            autoflush=autoflush,
            close_resets_only=False,
            join_transaction_mode="create_savepoint",
        )
        below: Any = self.sync_session  # of that kind
        below.options, below.context, below.above = options, context, weakref.ref(self)
        self.connection_lock = ConnectionLock(lock_wait)
        self.deadline = options.deadline

    @property
    def is_over(self) -> bool:
        """Whether the unit of work is over."""
        return self._ended is not None

    def refuse_if_ended(self) -> None:
        """Raise :class:`SessionClosed` when the unit of work is over, or the session closed."""
        if self._is_closed:
            raise SessionClosed(_CLOSED_BY_HAND)
        if self._ended:
            advice = self._advice() if self._advice else None
            raise SessionClosed(
                f"This session ended when {self._ended}. {advice or _OPEN_YOUR_OWN}"
            )

    def open_connection(self) -> AsyncConnection | None:
        """Return the connection that the session's transaction holds; None where it holds none."""
        transaction = self.get_transaction()
        return None if transaction is None else next(iter(transaction.connections), None)

    def lease(self) -> Record | None:
        """Return the pool's record of the connection that it holds; None where it holds none."""
        connection = self.open_connection()
        below = None if connection is None else connection.sync_connection
        if below is None or below.closed or below.invalidated:
            return None
        record: Any = internals.record_of(below.connection)
        return record if isinstance(record, Record) else None

    def shareable_connection(self) -> AsyncConnection | None:
        """Return the connection that it holds, if there is a transaction of which to be a part."""
        connection = self.open_connection()
        if connection is None or connection.sync_connection is None:
            return None
        options = connection.sync_connection.get_execution_options()
        return None if options.get("isolation_level") == "AUTOCOMMIT" else connection

    @property
    def holds_or_takes_connection(self) -> bool:
        """Whether its transaction holds a connection, or what is in progress may take one."""
        return self.connection_lock.is_held or self.open_connection() is not None

    async def before_operation(self) -> ConnectionLock:
        """Prepare one operation, and acquire its lock, which the caller releases."""
        await self.connection_lock.acquire(self)
        return self.connection_lock

    async def after_operation(self, *, failed: bool) -> None:  # noqa: ARG002 - for subclasses
        """Tidy up after one operation: close the session if its unit ended meanwhile."""
        if self._ended and not self.running:
            await self._close()

    @asynccontextmanager
    async def held_by(self, party: object) -> AsyncIterator[None]:
        """Let another party than its operations be at work on its connection for a block.

        Args:
            party: Which holds the lock for the length of the block.

        Raises:
            SessionBusy: The lock was not free in time.
        """
        await self.connection_lock.acquire(party)
        try:
            yield
        finally:
            self.connection_lock.release()
            await self.settle()

    async def after_lock_elsewhere(self) -> None:
        """Tidy up after work on another session's connection; a hook for the kinds of session."""

    def load(self, statement: Callable[[], Any]) -> Any:
        """Run what an object of the session loads outside any operation, when an attribute is read.

        It runs in a greenlet, for ``awaitable_attrs``.

        Args:
            statement: Executes it.
        """
        lock = await_(self.before_operation())
        self.running += 1
        try:
            return statement()
        finally:
            self.running -= 1
            lock.release()
            if self._ended is not None or lock is not self.connection_lock:
                await_(self._settle_both())

    async def _settle_both(self) -> None:
        await self.settle()
        await self.after_lock_elsewhere()

    async def end(self, why: str, advice: Callable[[], str | None] | None = None) -> None:
        """Roll back what is open, return the connection and refuse every later use.

        While an operation is in progress in another task, that operation closes the session
        when it is done: a connection is never taken from a running statement.

        Args:
            why: What ended it, to follow "This session ended when ...".
            advice: As for :meth:`penstock.database.UnitOfWork.end`.
        """
        if not self._ended:
            self._ended, self._advice = why, advice
        await self.settle()

    async def settle(self) -> None:
        """Close the session if its unit has ended and no party is at work on its connection."""
        if self._ended is not None and not self.running and not self.connection_lock.is_held:
            await self._close()

    async def _close(self) -> None:
        try:
            if self._results:
                await greenlet_spawn(self._close_results)
        finally:
            await self._close_transaction()

    def _close_results(self) -> None:
        # What is read from them later would be fetched on the connection's next lease.
        results, self._results = self._results, ()
        for result in results:
            result.close()

    async def _close_transaction(self) -> None:
        if not self.in_transaction():
            self.sync_session.close()
            return
        try:
            # Leaving the context closes to the end, even if this task is cancelled meanwhile.
            await self.__aexit__(None, None, None)
        except Exception:
            # Raised, this would stand in the place of the caller's own error.
            _logger.exception("A rollback failed; its connection was closed")
            # The server rolls back by itself. A savepoint that is gone leaves the rest open.
            await AsyncSession.invalidate(self)

    async def stream(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement and stream its rows, which end with the unit of work."""
        result = await super().stream(*args, **kwargs)
        # What all views of the result share, and whether it has been read to its end.
        unread = [other for other in self._results if not internals.is_read(other)]
        self._results = [*unread, internals.shared_result(result)]
        return result

    async def exec(self, statement: Any, **arguments: Any) -> Any:
        """Execute a statement as SQLModel's session does: rows, or what its ``select()`` of one is.

        Args:
            statement: Any.
            **arguments: As ``execute`` has them; ``params`` are the statement's values.
        """
        result = await self.execute(statement, **arguments)
        expression = sys.modules.get("sqlmodel.sql.expression")
        is_of_one = expression is not None and isinstance(statement, expression.SelectOfScalar)
        return result.scalars() if is_of_one else result

    async def close(self) -> None:
        """Close the session, which ends it for good."""
        await super().close()
        self._is_closed = self._ended is None


# Every method that talks to the database, but for those that only call another of them.
for _name in (
    "connection",
    "delete",
    "delete_all",
    "execute",
    "flush",
    "get",
    "get_one",
    "merge",
    "merge_all",
    "refresh",
    "run_sync",
    "scalar",
    "stream",
):
    setattr(UnitSession, _name, operation(getattr(UnitSession, _name)))
for _name in ("invalidate", "rollback"):
    setattr(UnitSession, _name, operation(getattr(UnitSession, _name), is_bounded=False))
