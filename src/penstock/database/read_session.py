"""Reading only: the type that has no way to write, and the server's refusal behind it."""

import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    NoReturn,
    Protocol,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    overload,
)

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Result,
    ScalarResult,
    Select,
    TextClause,
    TextualSelect,
    event,
)
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncResult,
    AsyncScalarResult,
    AsyncSession,
    AsyncSessionTransaction,
)
from sqlalchemy.orm import SessionTransaction

from penstock.base_error import PenstockError
from penstock.cluster.routed_lane import Route
from penstock.context import ContextSource
from penstock.database.session import ConnectionLock, SessionSource, UnitSession, UnitSyncSession
from penstock.database.write_session import WritingSession
from penstock.drivers.capabilities import driver_of
from penstock.drivers.driver import BeginOptions
from penstock.pool import PenstockPool


class ReadOnlyError(PenstockError, InvalidRequestError):
    """A read-only session was to write, or an object that it loaded was changed."""


_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
_Reads: TypeAlias = (
    Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]] | TextualSelect | TextClause
)
"""What can only read; a text clause is for the server to judge."""


class ReadOnlySession(Protocol):
    """What a read-only session can do: SQLAlchemy's ``AsyncSession`` without its writing side.

    An ``AsyncSession`` fits wherever this type is expected, so that one function that reads
    serves both kinds of session. A type checker refuses ``add``, ``commit`` and an
    ``insert()``; whatever gets past it, the server refuses.
    """

    @overload
    async def execute(
        self, statement: Select[*_Ts], params: _Parameters | None = None
    ) -> Result[*_Ts]: ...
    @overload
    async def execute(
        self, statement: _Reads, params: _Parameters | None = None
    ) -> Result[*tuple[Any, ...]]: ...

    @overload
    async def scalar(
        self, statement: Select[_T], params: Mapping[str, Any] | None = None
    ) -> _T | None: ...
    @overload
    async def scalar(self, statement: _Reads, params: Mapping[str, Any] | None = None) -> Any: ...

    @overload
    async def scalars(
        self, statement: Select[_T], params: _Parameters | None = None
    ) -> ScalarResult[_T]: ...
    @overload
    async def scalars(
        self, statement: _Reads, params: _Parameters | None = None
    ) -> ScalarResult[Any]: ...

    @overload
    async def stream(
        self, statement: Select[*_Ts], params: _Parameters | None = None
    ) -> AsyncResult[*_Ts]: ...
    @overload
    async def stream(
        self, statement: _Reads, params: _Parameters | None = None
    ) -> AsyncResult[*tuple[Any, ...]]: ...

    @overload
    async def stream_scalars(
        self, statement: Select[_T], params: _Parameters | None = None
    ) -> AsyncScalarResult[_T]: ...
    @overload
    async def stream_scalars(
        self, statement: _Reads, params: _Parameters | None = None
    ) -> AsyncScalarResult[Any]: ...

    async def get(
        self, entity: type[_T], ident: Any, *, options: Sequence[Any] | None = None
    ) -> _T | None:
        """Return the object with this primary key, or None.

        Args:
            entity: The mapped class.
            ident: The primary key; a tuple of its columns' values where there are several.
            options: Loader options, such as ``selectinload()``.
        """
        ...

    async def get_one(
        self, entity: type[_T], ident: Any, *, options: Sequence[Any] | None = None
    ) -> _T:
        """Return the object with this primary key.

        Args:
            entity: The mapped class.
            ident: The primary key; a tuple of its columns' values where there are several.
            options: Loader options, such as ``selectinload()``.

        Raises:
            NoResultFound: There is none.
        """
        ...

    async def refresh(self, instance: object, attribute_names: Iterable[str] | None = None) -> None:
        """Load the object's attributes anew.

        Args:
            instance: An object of this session.
            attribute_names: Which of them; None for all.
        """
        ...

    def expunge(self, instance: object) -> None:
        """Detach the object, so that it may be changed for the caller's own purposes.

        Args:
            instance: An object of this session.
        """
        ...


if TYPE_CHECKING:

    class _WritingSession:
        """What a read-only session is not: its writing methods ask for one."""

    class ReadOnlyAsyncSession(ReadOnlySession, AsyncSession):  # type: ignore[misc]  # fewer statements
        """A read-only session as existing code takes it: as an ``AsyncSession``.

        By this type a checker refuses to write; by that of an ``AsyncSession``, as which it may be
        handed on, the server alone.
        """

        def _refused(self: _WritingSession, *_: Any, **__: Any) -> NoReturn: ...  # type: ignore[misc]  # so it is refused

        add = add_all = delete = delete_all = merge = merge_all = _refused
        commit = flush = _refused

else:
    ReadOnlyAsyncSession = AsyncSession


class ReadOnlySyncSession(UnitSyncSession):
    """The session below a reading session: each of its transactions is made read-only.

    Attributes:
        within: The driver's connection on which it reads in a transaction that is not its own.
    """

    within: Any = None


@event.listens_for(ReadOnlySyncSession, "after_begin")
def _make_read_only(
    session: ReadOnlySyncSession,
    transaction: SessionTransaction,  # noqa: ARG001 - the event's signature
    connection: Connection,
) -> None:
    match connection.dialect.name:
        case "postgresql" if connection.in_nested_transaction():
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            _keep_read_only(session, connection)
        case "mysql" | "mariadb" if not connection.in_nested_transaction():
            connection.exec_driver_sql("START TRANSACTION READ ONLY")
        case "sqlite" if not connection.in_nested_transaction():
            connection.exec_driver_sql("PRAGMA query_only = ON")


def _keep_read_only(session: ReadOnlySyncSession, connection: Connection) -> None:
    # A statement may end the savepoint or the transaction around it.
    adapter: Any = connection.connection.dbapi_connection
    if hasattr(adapter, "read_within"):
        adapter.read_within(begins=True)
        session.within = adapter


@event.listens_for(ReadOnlySyncSession, "after_transaction_end")
def _end_within(session: ReadOnlySyncSession, transaction: SessionTransaction) -> None:
    if session.within is not None and transaction.parent is None:
        session.within.read_within(begins=False)
        session.within = None


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
                    await self._take(self.route, lock)
                self._bind(self._source)
                return lock
            lock.release()  # the connection was bound elsewhere while this waited
            await self.after_lock_elsewhere()

    async def _take(self, route: Route, lock: ConnectionLock) -> None:
        try:
            self._source = reading_engine(await route.source())
        except BaseException:
            lock.release()
            raise
        self._taken, self.route = route, None

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

    async def _go_elsewhere(self, error: Exception) -> bool:
        """Begin anew on another server, where the first statement has met none that answers."""
        taken = self._taken
        other = None if taken is None else taken.other(error)
        if taken is None or other is None:
            return False
        await AsyncSession.rollback(self)
        await taken.end()
        self._taken, self.route, self._failed = None, other, False
        return True

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

    def begin(self) -> AsyncSessionTransaction:
        """Begin a transaction explicitly, unless the unit of work is over."""
        self.refuse_if_ended()
        return super().begin()

    def begin_nested(self) -> AsyncSessionTransaction:
        """Begin a savepoint, unless the unit of work is over."""
        self.refuse_if_ended()
        return super().begin_nested()

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


def _on_any_server(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Repeat what a session does first on another server, where the chosen one does not answer."""

    async def begun(self: ReadingSession, *args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return await method(self, *args, **kwargs)
            except Exception as error:
                if not await self._go_elsewhere(error):
                    raise

    @functools.wraps(method)
    def chosen(self: ReadingSession, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        is_first = self.route is not None and not self.in_transaction()
        return begun(self, *args, **kwargs) if is_first else method(self, *args, **kwargs)

    return chosen


for _name in ("connection", "execute", "get", "get_one", "run_sync", "scalar", "stream"):
    setattr(ReadingSession, _name, _on_any_server(getattr(ReadingSession, _name)))


def _refuse_write(*_: object, **__: object) -> NoReturn:
    raise ReadOnlyError(
        "This session only reads. Use WriteSession in a route, or async with database.write()."
    )


for _name in ("add", "add_all", "commit", "delete", "delete_all", "flush", "merge", "merge_all"):
    setattr(ReadingSession, _name, _refuse_write)


def reading_engine(engine: AsyncEngine) -> AsyncEngine:
    """Return ``engine``, over the same pool, with transactions that begin read-only.

    PostgreSQL gets ``BEGIN READ ONLY``; on a :class:`PenstockPool` each session sends it to asyncpg
    with its first statement. MySQL and MariaDB begin such a transaction by a separate statement,
    SQLite switches the connection to
    ``query_only`` until it is returned. Inside the writing session's open transaction
    PostgreSQL reads in a read-only savepoint; the others know nothing of the kind.
    """
    if engine.dialect.name == "sqlite":
        _lift_query_only_on_return(engine)
    if driver_of(engine.dialect).is_pipelined and isinstance(engine.pool, PenstockPool):
        return engine
    return engine.execution_options(postgresql_readonly=True)


def _lift_query_only_on_return(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "reset")
    def lift(dbapi_connection: Any, *_: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA query_only = OFF")
        cursor.close()
