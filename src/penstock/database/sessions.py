"""The two sessions of a unit of work: one that writes, one that only reads."""

import inspect
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from penstock.base_error import PenstockError
from penstock.cluster import Cluster
from penstock.cluster.position import Reads, current_reads
from penstock.cluster.routed_lane import on_one
from penstock.context import ContextSource
from penstock.database.commit import WritingSyncSession, WritingTransaction, commit
from penstock.database.connection_lock import ConnectionLock, ReadOnlyError
from penstock.database.read_session import ReadOnlySyncSession, reading_engine
from penstock.database.session import SessionSource, UnitSession, operation
from penstock.drivers.driver import BeginOptions
from penstock.pool import PenstockPool

_logger = logging.getLogger(__name__)


class WritingSession(UnitSession):
    """The session that writes; its COMMIT raises an error when its outcome is not known."""

    sync_session_class = WritingSyncSession
    reader: "ReadingSession | None" = None
    began = False
    committed: Callable[[], None] | None = None
    """Called after each COMMIT; None where nobody has to know."""

    async def before_operation(self) -> ConnectionLock:
        """Take the unit's connection over from the reader, which may hold the pool's last one."""
        lock = await super().before_operation()
        self.began = True
        if self.reader is not None:
            try:
                await self.reader.release_connection(object(), waits=self.open_connection() is None)
            except BaseException:
                lock.release()
                raise
        return lock

    async def commit(self) -> float:  # type: ignore[override]  # None is all that others expect
        """Flush and commit; :func:`penstock.database.commit.commit` says what it may raise.

        Returns:
            Seconds that the COMMIT took.
        """
        try:
            return await self.run_sync(commit)
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


class Route:
    """The way of one reading session to the server that it reads from.

    Args:
        cluster: Chooses the server.
        reads: What the session has to see; None for what the request or the task has to.
    """

    def __init__(self, cluster: Cluster, reads: Reads | None) -> None:
        self._cluster = cluster
        self._reads = reads
        self._chosen = AsyncExitStack()

    async def source(self) -> AsyncEngine:
        """Choose the server, and return its engine for what only reads."""
        reads = self._reads or current_reads.get()
        member = await self._chosen.enter_async_context(on_one(self._cluster, reads))
        return reading_engine(member.engine)

    async def end(self) -> None:
        """Give back what the choice holds."""
        await self._chosen.aclose()


class ReadingSession(UnitSession):
    """The session that reads, in transactions that the server keeps read-only.

    It holds one connection from its first statement on, until its unit's writing session
    begins: from then on it holds none between statements, and a statement runs inside the
    writer's open transaction, in a read-only savepoint, so that it sees what was flushed there
    and needs no second connection.
    """

    sync_session_class = ReadOnlySyncSession

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
            options=replace(options, reading=True),
            context=context,
            lock_wait=lock_wait,
            autoflush=autoflush,
        )
        self.writer: WritingSession | None = None
        self.route: Route | None = None
        """Its way to a server, until it is taken; None where there is one server only."""
        self._taken: Route | None = None
        self._source = self._bound = source
        self._streams = False
        """A stream's rows arrive between statements: the connection stays until the unit ends."""
        self._failed = False
        """A statement of the open transaction failed, so that it can only be rolled back."""

    async def before_operation(self) -> ConnectionLock:
        """Choose the connection: the writer's open one, or one of the reader's own."""
        while True:
            lock = self._lock_to_acquire()
            await lock.acquire(self)
            if self.in_transaction():
                if lock is self._lock_on_bound():
                    return lock
            elif lock is not self.connection_lock:
                shared = self.writer.shareable_connection() if self.writer else None
                if shared is not None:
                    self._bind(shared)
                    return lock
            elif lock is self._lock_to_acquire():
                if self.route is not None:
                    await self._take_route(lock)
                self._bind(self._source)
                return lock
            lock.release()  # the connection was bound elsewhere while this waited
            await self.after_lock_elsewhere()

    async def _take_route(self, lock: ConnectionLock) -> None:
        self._taken, self.route = self.route, None
        try:
            self._source = await self._taken.source()  # type: ignore[union-attr]  # as was asked
        except BaseException:
            self.route, self._taken = self._taken, None
            lock.release()
            raise

    def _lock_to_acquire(self) -> ConnectionLock:
        if self.in_transaction():
            return self._lock_on_bound()
        writer = self.writer
        if writer is None or self._streams:
            return self.connection_lock
        is_shared = writer.connection_lock.is_held or writer.shareable_connection() is not None
        return writer.connection_lock if is_shared else self.connection_lock

    def _lock_on_bound(self) -> ConnectionLock:
        is_own = self._bound is self._source or self.writer is None
        return self.connection_lock if is_own else self.writer.connection_lock  # type: ignore[union-attr]  # as asked

    def _bind(self, source: SessionSource) -> None:
        if source is not self._bound:  # to ask or to set SQLAlchemy's own costs more
            self.bind = self._bound = source
            self.sync_session.is_guest = source is not self._source  # type: ignore[attr-defined]  # of that kind

    async def after_operation(self, *, failed: bool) -> None:
        """Release the connection once the unit writes."""
        self._failed = self._failed or failed
        if self.writer is not None and self.writer.began:
            await self.release_connection()
        await super().after_operation(failed=failed)

    async def after_lock_elsewhere(self) -> None:
        """Let the writer end, which has waited for this where its unit has ended."""
        if self.writer is not None:
            await self.writer.settle()

    async def release_connection(self, party: object | None = None, *, waits: bool = False) -> None:
        """Release the connection, to the writer or the pool, unless something is lost by that.

        A stream keeps the connection, and so does a transaction that holds what was set or locked
        in it. A read in progress releases it by itself, once the unit writes.

        Args:
            party: Which party holds the lock meanwhile; None for the session's own.
            waits: Whether to wait for a read in progress.
        """
        if not self._may_release() and not (waits and self.running and not self._streams):
            return
        async with self.held_by(party or self):
            if self._may_release():
                self.refuse_changes()
                failed, self._failed = self._failed, False
                await (AsyncSession.rollback(self) if failed else AsyncSession.commit(self))

    def _may_release(self) -> bool:
        is_idle_in_transaction = not self.running and not self._streams
        return is_idle_in_transaction and self.in_transaction() and not self._holds_state()

    def _holds_state(self) -> bool:
        """Return whether the transaction is the session's own and its end would undo something."""
        connection = None if self._failed else self.open_connection()
        if connection is None or not isinstance(self._bound, AsyncEngine):
            return False
        sync: Any = connection.sync_connection
        if sync is None or sync.invalidated or sync.closed:
            return False
        return bool(getattr(sync.connection.dbapi_connection, "holds_state", False))

    async def _close_transaction(self) -> None:
        try:
            if self._ends_without_wait():
                # Nothing is waited for; a greenlet would cost more than all of closing.
                self.sync_session.close()
            else:
                await super()._close_transaction()
        finally:
            taken, self._taken = self._taken, None
            if taken is not None:
                await taken.end()

    def _ends_without_wait(self) -> bool:
        session = self.sync_session
        transaction = session.get_transaction()
        if transaction is None or session.in_nested_transaction():
            return False
        if self._bound is not self._source:
            return False
        return all(map(_ends_without_wait, transaction.connections))

    def reads_in_writers_transaction(self) -> bool:
        """Return whether a statement is in progress on the writing session's connection."""
        return self.running > 0 and self._bound is not self._source

    def refuse_changes(self) -> None:
        """Raise :class:`ReadOnlyError` if an object that this session loaded was changed."""
        if not self.sync_session.identity_map.check_modified():
            return
        if changed := [o for o in self.dirty if self.is_modified(o)]:
            names = ", ".join(sorted({type(o).__name__ for o in changed}))
            raise ReadOnlyError(
                f"{len(changed)} object(s) loaded by a read-only session were changed ({names}); "
                "nothing would be saved. Load what you change with the writing session."
            )

    async def stream(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement and stream its rows from a server-side cursor."""
        self.refuse_if_ended()
        self._streams = True
        return await super().stream(*args, **kwargs)


def _ends_without_wait(connection: Connection) -> bool:
    """Return whether the connection can be released without a wait for the server."""
    if connection.invalidated or connection.closed or connection.dispatch.rollback:
        return False
    pool: Any = connection.engine.pool
    if not isinstance(pool, PenstockPool) or pool.has_checkout_listeners():
        return False
    ends_without_wait = getattr(connection.connection.dbapi_connection, "ends_without_wait", None)
    return ends_without_wait is not None and bool(ends_without_wait())


def _refuse_write(*_: object, **__: object) -> NoReturn:
    raise ReadOnlyError(
        "This session only reads. Use WriteSession in a route, or async with database.write()."
    )


for _name in ("add", "add_all", "commit", "delete", "delete_all", "flush", "merge", "merge_all"):
    setattr(ReadingSession, _name, _refuse_write)


@dataclass(frozen=True, slots=True)
class SessionKinds:
    """The classes of the two sessions of a unit of work.

    Args:
        writing: Of the one that writes.
        reading: Of the one that reads.
        autoflush: Whether they send what is pending before they read.
    """

    writing: type[WritingSession] = WritingSession
    reading: type[ReadingSession] = ReadingSession
    autoflush: bool = False

    @classmethod
    def of(cls, session_class: type[AsyncSession] | None, *, autoflush: bool) -> Self:
        """Return the kinds that are an application's own class as well.

        Args:
            session_class: Of SQLAlchemy's ``AsyncSession``; None for none.
            autoflush: As the attribute.
        """
        if session_class is None or session_class is AsyncSession:
            return cls(autoflush=autoflush)
        if not (isinstance(session_class, type) and issubclass(session_class, AsyncSession)):
            raise PenstockError(
                f"session_class takes a subclass of AsyncSession, not {session_class!r}."
            )
        return cls(
            _merged(session_class, WritingSession),
            _merged(session_class, ReadingSession),
            autoflush,
        )


def _merged(own: type[AsyncSession], kind: type[Any]) -> type[Any]:
    """Return a class that is both; what the application's defines is in front."""
    below, below_kind = own.sync_session_class, kind.sync_session_class
    attributes: dict[str, Any] = {
        # It may use the database by other ways than those that are counted.
        name: operation(method)
        for name, method in inspect.getmembers(own, inspect.iscoroutinefunction)
        if not name.startswith("_") and not hasattr(AsyncSession, name)
    }
    attributes |= _instead_of_deprecated(own, kind)
    attributes["sync_session_class"] = below_kind
    if below is not Session:
        attributes["sync_session_class"] = type(
            below_kind.__name__, (below, below_kind), _instead_of_deprecated(below, below_kind)
        )
    attributes["__doc__"] = kind.__doc__
    return type(kind.__name__, (own, kind), attributes)


def _instead_of_deprecated(own: type, kind: type) -> dict[str, Any]:
    """Return the methods that are called here as well, without a deprecation warning."""
    return {
        name: getattr(kind, name)
        for name, method in inspect.getmembers(own, inspect.isfunction)
        if hasattr(method, "__deprecated__") and hasattr(kind, name)
    }
