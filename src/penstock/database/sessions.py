"""The two sessions of a unit of work: one that writes, one that only reads."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn, TypeAlias

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionTransaction,
)
from sqlalchemy.orm import Session

from penstock.database.commit import commit
from penstock.database.errors import ReadOnlyError, SessionClosed
from penstock.database.read_only import ReadOnlySyncSession

__all__ = ["ReadingSession", "SessionSource", "UnitSession", "WritingSession"]

_logger = logging.getLogger(__name__)

SessionSource: TypeAlias = AsyncEngine | AsyncConnection
"""Where a session gets its connection; a given connection's own transaction is never ended."""


def _operation(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Let ``method`` run only while the session lives, and count it while it runs."""

    @functools.wraps(method)
    async def operation(self: "UnitSession", *args: Any, **kwargs: Any) -> Any:
        self.refuse_if_ended()
        await self.before_operation()
        self.running += 1
        try:
            result = await method(self, *args, **kwargs)
        except BaseException:
            self.running -= 1
            await self.after_operation(failed=True)
            raise
        self.running -= 1
        await self.after_operation(failed=False)
        return result

    return operation


class UnitSession(AsyncSession):
    """An ``AsyncSession`` that belongs to one unit of work and ends with it, for good.

    Attributes:
        running: Operations in progress. Only a session at rest may be committed or closed by
            somebody other than the task that works with it.
    """

    running: int = 0
    _ended: str | None = None
    """Why the session is over; set once. An operation that was in progress then closes it."""

    def __init__(self, source: SessionSource, kind: type[Session] = Session) -> None:
        super().__init__(
            source,
            sync_session_class=kind,
            expire_on_commit=False,
            autoflush=False,
            close_resets_only=False,
            join_transaction_mode="create_savepoint",
        )

    def refuse_if_ended(self) -> None:
        """Raise :class:`SessionClosed` when the unit of work is over."""
        if self._ended:
            raise SessionClosed(
                f"This session ended when {self._ended}. What runs later (a background task, a "
                "stream, a task of your own) opens its own: async with database.write() or "
                "database.read()."
            )

    async def before_operation(self) -> None:
        """Make ready for one operation; a hook for the kinds of session."""

    async def after_operation(self, *, failed: bool) -> None:  # noqa: ARG002 - for subclasses
        """Tidy up after one operation: close the session if its unit ended meanwhile."""
        if self._ended and not self.running:
            await self._close()

    async def end(self, why: str) -> None:
        """Roll back what is open, return the connection and refuse every later use.

        While an operation is in progress in another task, that operation closes the session
        when it comes to rest: a connection is never pulled from under a running statement.

        Args:
            why: What ended it, to follow "This session ended when ...".
        """
        self._ended = self._ended or why
        if not self.running:
            await self._close()

    async def _close(self) -> None:
        if not self.in_transaction():
            self.sync_session.close()
            return
        try:
            # Leaving the context closes to the end, even if this task is cancelled meanwhile.
            await self.__aexit__(None, None, None)
        except Exception:
            # SQLAlchemy has dropped the connection by now, so the server rolls back by itself;
            # raised, this would stand in the place of the caller's own error.
            _logger.exception("A rollback was not answered in good order; its connection is gone")

    def add(self, instance: object, *, _warn: bool = True) -> None:
        """Place an object into the session, unless its unit of work is over."""
        self.refuse_if_ended()
        super().add(instance, _warn=_warn)

    def add_all(self, instances: Iterable[object]) -> None:
        """Place several objects into the session, unless its unit of work is over."""
        self.refuse_if_ended()
        super().add_all(instances)

    def begin(self) -> AsyncSessionTransaction:
        """Begin a transaction by hand, unless the unit of work is over."""
        self.refuse_if_ended()
        return super().begin()

    def begin_nested(self) -> AsyncSessionTransaction:
        """Begin a savepoint, unless the unit of work is over."""
        self.refuse_if_ended()
        return super().begin_nested()


# Every method that talks to the database, but for those that only call another of them.
for _name in (
    "connection",
    "delete",
    "delete_all",
    "execute",
    "flush",
    "get",
    "get_one",
    "invalidate",
    "merge",
    "merge_all",
    "refresh",
    "rollback",
    "run_sync",
    "scalar",
    "stream",
):
    setattr(UnitSession, _name, _operation(getattr(AsyncSession, _name)))


class WritingSession(UnitSession):
    """The session that writes; its COMMIT says so when its outcome is not known."""

    def __init__(self, source: SessionSource) -> None:
        super().__init__(source)
        self.reader: ReadingSession | None = None
        self.began = False
        self._task: asyncio.Task[Any] | None = None
        """The task whose operation came last, and may go on to the next one at any moment."""

    async def before_operation(self) -> None:
        """Take the unit's connection over from the reader, which may hold the pool's last one."""
        self._task = asyncio.current_task()
        self.began = True
        if self.reader is not None:
            await self.reader.step_aside()

    def shareable_connection(self) -> AsyncConnection | None:
        """Return the open connection if no other task is at work with it, else None."""
        transaction = self.get_transaction()
        task = self._task
        elsewhere = task is not None and not task.done() and task is not asyncio.current_task()
        if transaction is None or self.running or elsewhere:
            return None
        return next(iter(transaction.connections), None)

    async def commit(self) -> float:  # type: ignore[override]  # None is all that others expect
        """Flush and commit; :func:`penstock.database.commit.commit` says what it may raise.

        Returns:
            Seconds that the COMMIT took.
        """
        return await self.run_sync(commit)


class ReadingSession(UnitSession):
    """The session that reads, in transactions that the server keeps read-only.

    It holds one connection from its first statement on, until its unit's writing session
    begins: from then on it holds none between statements, and a statement runs inside the
    writer's open transaction, in a read-only savepoint, so that it sees what was flushed there
    and needs no second connection.
    """

    def __init__(self, source: SessionSource, streaming: SessionSource) -> None:
        super().__init__(source, ReadOnlySyncSession)
        self.writer: WritingSession | None = None
        self._source = source
        self._streaming = streaming
        self._streams = False
        """A stream's rows arrive between statements: the connection stays until the unit ends."""
        self._failed = False
        """A statement of the open transaction failed, so that it can only be rolled back."""

    async def before_operation(self) -> None:
        """Choose the connection: the writer's open one, or one of the reader's own."""
        if not self.in_transaction():
            shared = self.writer.shareable_connection() if self.writer else None
            self.bind = self._source if shared is None or self._streams else shared

    async def after_operation(self, *, failed: bool) -> None:
        """Let the connection go once the unit writes."""
        self._failed = self._failed or failed
        if failed:
            self._settle()
        if self.writer is not None and self.writer.began:
            await self.step_aside()
        await super().after_operation(failed=failed)

    def _settle(self) -> None:
        """Let go of the locks of a statement that failed before it ran; no transaction ends it."""
        transaction = self.sync_session.get_transaction()
        if transaction is not None and not self.running and self._is_without_transaction():
            for connection in transaction.connections:
                connection.connection._connection_record.settle()  # noqa: SLF001 - the pool's own

    async def step_aside(self) -> None:
        """Give the connection back for the writer; a read in progress does so when it is done."""
        if self.running or self._streams or not self.in_transaction():
            return
        self.refuse_changes()
        failed, self._failed = self._failed, False
        await (AsyncSession.rollback(self) if failed else AsyncSession.commit(self))

    async def _close(self) -> None:
        if self._is_without_transaction():
            # Nothing is to be said to the server: a task and a greenlet for it would cost more
            # than the rest of closing.
            self.sync_session.close()
        else:
            await super()._close()

    def _is_without_transaction(self) -> bool:
        transaction = self.sync_session.get_transaction()
        if transaction is None or self._source is self._streaming or self.bind is not self._source:
            return False
        return all(map(_has_none_open, transaction.connections))

    def reads_in_writers_transaction(self) -> bool:
        """Say whether a statement is in progress on the writing session's connection."""
        return self.running > 0 and self.bind is not self._source

    def refuse_changes(self) -> None:
        """Raise :class:`ReadOnlyError` if an object that this session loaded was changed."""
        changed = [o for o in self.dirty if self.is_modified(o)]
        if changed:
            names = ", ".join(sorted({type(o).__name__ for o in changed}))
            raise ReadOnlyError(
                f"{len(changed)} object(s) loaded by a read-only session were changed ({names}); "
                "nothing would be saved. Load what you change with the writing session."
            )

    async def stream(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement and stream its rows from a server-side cursor."""
        if not self._streams:
            await self._begin_to_stream()
        return await super().stream(*args, **kwargs)

    async def _begin_to_stream(self) -> None:
        self.refuse_if_ended()
        if self._streaming is not self._source and self.in_transaction() and not self.running:
            # Its connection has no transaction, which a cursor of the server's needs.
            await AsyncSession.rollback(self)
        self._streams = True
        self._source = self._streaming


def _has_none_open(connection: Connection) -> bool:
    """Whether a connection of asyncpg's, confined to reading, has begun no transaction."""
    if connection.invalidated or connection.closed:
        return False
    adapter = connection.connection.dbapi_connection
    return getattr(adapter, "_transaction", adapter) is None


def _refuse_write(*_: object, **__: object) -> NoReturn:
    raise ReadOnlyError(
        "This session only reads. Use WriteSession in a route, or async with database.write()."
    )


for _name in ("add", "add_all", "commit", "delete", "delete_all", "flush", "merge", "merge_all"):
    setattr(ReadingSession, _name, _refuse_write)
