"""A unit of work: the sessions of one request, or of one ``async with``, and what makes units."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from penstock.base_error import PenstockError
from penstock.cluster import Cluster
from penstock.cluster.position import Reads
from penstock.cluster.routed_lane import Route
from penstock.context import ContextSource
from penstock.database.nesting import NestedLock, SessionBusy
from penstock.database.read_session import ReadingSession, ReadOnlySession, reading_engine
from penstock.database.session import SessionSource, UnitSession, operation
from penstock.database.write_session import WritingSession, doubt
from penstock.drivers.driver import NO_OPTIONS, BeginOptions
from penstock.pool import PoolInAnotherLoop
from penstock.pool.leak import OpenLease
from penstock.pool.record import Record
from penstock.telemetry import Telemetry

_T = TypeVar("_T")


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


_DEFAULT_KINDS = SessionKinds()


class UnitOfWork:
    """At most one session that writes and one that reads, which end together.

    Each is made when first used and takes a connection with its first statement.

    Args:
        writing: Where the writing session gets its connection: an engine, or a connection in
            whose transaction it works by savepoints.
        reading: The same for the reading session.
        telemetry: Told how many seconds each COMMIT took.
        options: How the transactions of both begin.
        lock_wait: Seconds that one statement waits for another on the same connection; None for
            no limit.
        kinds: The classes of both.
        nested: Its lock, where several are in one transaction; None elsewhere.
        cluster: Chooses the server of the session that reads; None where there is one only.

    Attributes:
        reads: What that session has to see; None for what the request or the task has to.
        context: Where the role and the settings of their transactions come from, beside those of
            the options; None for nowhere else. A session looks when it is first used.
    """

    __slots__ = (
        "_cluster",
        "_kinds",
        "_lock_wait",
        "_nested",
        "_options",
        "_reader",
        "_reading",
        "_telemetry",
        "_writer",
        "_writing",
        "context",
        "reads",
    )

    def __init__(
        self,
        writing: SessionSource,
        reading: SessionSource,
        telemetry: Telemetry | None = None,
        options: BeginOptions = NO_OPTIONS,
        lock_wait: float | None = None,
        *,
        kinds: SessionKinds = _DEFAULT_KINDS,
        nested: NestedLock | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._cluster = cluster
        self.reads: Reads | None = None
        self._nested = nested
        self._kinds = kinds
        self._telemetry = telemetry
        self._lock_wait = lock_wait
        self._writing = writing
        self._reading = reading
        self._options = options
        self.context: ContextSource | None = None
        self._writer: WritingSession | None = None
        self._reader: ReadingSession | None = None

    @property
    def writer(self) -> WritingSession:
        """The session that writes."""
        if self._writer is None:
            self._writer = self._kinds.writing(self._writing, **self._arguments())
            if self._cluster is not None:
                self._writer.committed = self._cluster.written
            self._introduce()
        return self._writer

    @property
    def reader(self) -> ReadingSession:
        """The session that reads."""
        if self._reader is None:
            self._reader = self._kinds.reading(self._reading, **self._arguments())
            if self._cluster is not None:
                self._reader.route = Route(self._cluster, self.reads)
            self._introduce()
        return self._reader

    def _arguments(self) -> dict[str, Any]:
        return {
            "options": self._options,
            "context": self.context,
            "lock_wait": self._lock_wait,
            "autoflush": self._kinds.autoflush,
        }

    def _introduce(self) -> None:
        for session in (self._writer, self._reader):
            if session is not None:
                session.nested = self._nested
        if self._writer is not None and self._reader is not None:
            self._reader.writer = self._writer
            self._writer.release_reader = self._reader.release_connection

    # The express lane, beside the sessions.

    async def read_within(
        self,
        read: Callable[[AsyncConnection], Awaitable[_T]],
        otherwise: Callable[[], Awaitable[_T]],
    ) -> _T:
        """Read on the connection that a session holds, once it is idle.

        Args:
            read: Reads on that connection, and leaves its transaction as it was.
            otherwise: Reads where the sessions hold none.

        Raises:
            SessionBusy: They were not idle in time.
        """
        party = object()
        while (session := self._holder()) is not None:
            async with session.held_by(party):
                connection = session.shareable_connection()
                if connection is not None:
                    with doubt(connection), _as_before(session.lease()):
                        return await read(connection)
                if session.open_connection() is not None:
                    break
        return await otherwise()

    async def release_reader(self) -> UnitSession | None:
        """Wait until the sessions are idle, and release the connection of the one that reads.

        Returns:
            A session that still holds one; None where neither does.
        """
        party = object()
        if self._writer is not None and self._writer.connection_lock.is_held:
            async with self._writer.held_by(party):
                pass
        if self._reader is not None:
            await self._reader.release_connection(party, waits=True)
        return self._holder()

    def _holder(self) -> UnitSession | None:
        for session in (self._writer, self._reader):
            if session is not None and session.holds_or_takes_connection:
                return session
        return None

    def leases(self) -> Iterator[tuple[UnitSession, Record]]:
        """Return the sessions that hold a connection, each with the pool's record of it."""
        known = None
        for session in (self._writer, self._reader):
            record = None if session is None else session.lease()
            if session is not None and record is not None and record is not known:
                known = record
                yield session, record

    # Its end.

    def check(self) -> None:
        """Refuse a commit that would lose work or cut into a running statement.

        Raises:
            ReadOnlyError: An object of the reading session was changed.
            SessionBusy: A statement of another task is still in progress.
        """
        if self._reader is not None:
            self._reader.refuse_changes()
        reads_there = self._reader is not None and self._reader.reads_in_writers_transaction()
        if reads_there or (self._writer is not None and self._writer.running):
            raise SessionBusy(
                "A statement was in progress in another task when the unit of work should have "
                "been committed; it is rolled back. Await every task that uses the session."
            )

    async def flush(self) -> None:
        """Send what is pending, so that its errors come before any COMMIT."""
        if self._writer is not None and self._writer.in_transaction():
            await self._writer.flush()

    async def commit(self) -> None:
        """Commit the writing session; nothing is sent where nothing was begun.

        Raises:
            CommitOutcomeUnknown: The COMMIT was sent and its answer lost.
            sqlalchemy.exc.DBAPIError: The server refused; the work is rolled back.
        """
        if self._writer is not None and self._writer.in_transaction():
            await self._writer.commit()
            seconds = self._writer.commit_seconds
            if seconds is not None and self._telemetry and self._telemetry.recorder:
                self._telemetry.recorder.committed(seconds)

    async def end(self, why: str, advice: Callable[[], str | None] | None = None) -> None:
        """Roll back what is open and close both sessions for good.

        Args:
            why: What ended it, to follow "This session ended when ...".
            advice: Says what to do instead, called where a session is used after its end; None, or
                None from it, for the general advice.
        """
        try:
            if self._reader is not None:
                await self._reader.end(why, advice)
        finally:
            try:
                if self._writer is not None:
                    await self._writer.end(why, advice)
            finally:
                if self._nested is not None:
                    self._nested.release()


@contextmanager
def _as_before(lease: Record | None) -> Iterator[None]:
    """Ignore what the block sets, which is undone when the block is left."""
    adapter: Any = None if lease is None else lease.dbapi_connection
    held = getattr(adapter, "holds_state", None)
    try:
        yield
    finally:
        if held is not None:
            adapter.holds_state = held


MakeUnit = Callable[[BeginOptions], UnitOfWork]
"""Makes a unit of work, given how its transactions begin."""

_NESTED_ELSEWHERE = (
    "rollback_after() holds the database in another event loop: tests, fixtures and clients that "
    "share it run in one loop. A TestClient has its own; take the plugin's penstock_test_client."
)
_NESTED_LOST = (
    "The connection of rollback_after() was lost, and with it all that its block has written: the "
    "server or what is in between has closed it."
)
_LEFT = "its async with block was left"
_ABANDONED = "its request was over, where its async with block was still open"


class UnitFactory:
    """Makes the units of work of one database.

    Args:
        engine: Where their sessions get connections.
        kinds: The classes of their sessions.
        telemetry: Told how many seconds each COMMIT took.
        lock_wait: Seconds that one statement waits for another on the same connection.

    Attributes:
        make: Makes a unit, given how its transactions begin; see :meth:`made_by`.
        cluster: Chooses the server for a reading session; None where there is only the engine's.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        kinds: SessionKinds,
        telemetry: Telemetry,
        lock_wait: float,
    ) -> None:
        self._engine = engine
        self._reading = reading_engine(engine)
        self._kinds = kinds
        self._telemetry = telemetry
        self._lock_wait = lock_wait
        self.make: MakeUnit = self._on_pool
        self.cluster: Cluster | None = None

    def _on_pool(self, options: BeginOptions) -> UnitOfWork:
        return UnitOfWork(
            self._engine,
            self._reading,
            self._telemetry,
            options,
            self._lock_wait,
            kinds=self._kinds,
            cluster=self.cluster,
        )

    def nested_in(self, connection: AsyncConnection) -> MakeUnit:
        """Return what makes units within a connection's transaction, by savepoints.

        The units work one at a time, but for those that one has within it.

        Args:
            connection: Whose transaction it is.

        Raises:
            PoolInAnotherLoop: By what makes them, elsewhere than in this event loop.
            sqlalchemy.exc.PendingRollbackError: The same, once the connection is lost.
        """
        lock, loop = NestedLock(self._lock_wait), asyncio.get_running_loop()

        def make(options: BeginOptions) -> UnitOfWork:
            if asyncio.get_running_loop() is not loop:
                raise PoolInAnotherLoop(_NESTED_ELSEWHERE)
            if connection.invalidated:
                raise PendingRollbackError(_NESTED_LOST)
            return UnitOfWork(
                connection, connection, options=options, kinds=self._kinds, nested=lock.within()
            )

        return make

    @contextmanager
    def made_by(self, make: MakeUnit | None) -> Iterator[None]:
        """Have all units made by ``make`` for the length of a block.

        Args:
            make: Called for each unit; None for units on the pool.
        """
        before, self.make = self.make, make or self._on_pool
        try:
            yield
        finally:
            self.make = before

    @asynccontextmanager
    async def writing(self, options: BeginOptions) -> AsyncIterator[WritingSession]:
        """Give the writing session of a new unit, which is committed when the block ends.

        Args:
            options: How its transactions begin.
        """
        unit = self.make(options)
        session = unit.writer
        session.block = OpenLease(partial(unit.end, _ABANDONED))
        try:
            yield session
            if session.is_over:
                session.refuse_if_ended()
            unit.check()
            await unit.commit()
        finally:
            if session.block.leave():
                await unit.end(_LEFT)

    @asynccontextmanager
    async def reading(
        self, options: BeginOptions, reads: Reads | None = None
    ) -> AsyncIterator[ReadOnlySession]:
        """Give the reading session of a new unit, which ends with the block.

        Args:
            options: How its transactions begin.
            reads: What it has to see; None for what the request or the task has to.
        """
        unit = self.make(options)
        unit.reads = reads
        session = unit.reader
        session.block = OpenLease(partial(unit.end, _ABANDONED))
        try:
            yield session
            unit.check()
        finally:
            if session.block.leave():
                await unit.end(_LEFT)


@asynccontextmanager
async def reading_within(
    connection: AsyncConnection, settings: tuple[tuple[str, str], ...]
) -> AsyncIterator[ReadOnlySession]:
    """Give a session that reads within a connection's transaction.

    Args:
        connection: Whose transaction it is.
        settings: Server settings that hold for what it reads.
    """
    unit = UnitOfWork(connection, connection, options=BeginOptions(settings=settings))
    try:
        yield unit.reader
    finally:
        await unit.end("its statement was over")
