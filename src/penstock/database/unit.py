"""A unit of work: the sessions of one request, or of one ``async with``, on one database."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.context import ContextSource
from penstock.database.aborted import doubt
from penstock.database.errors import SessionBusy
from penstock.database.nested_turns import NestedTurn
from penstock.database.session_kinds import SessionKinds
from penstock.database.sessions import ReadingSession, WritingSession
from penstock.database.unit_session import SessionSource, UnitSession
from penstock.drivers.driver import NO_OPTIONS, BeginOptions
from penstock.pool.record import Record

__all__ = ["UnitOfWork"]

_T = TypeVar("_T")
_DEFAULT_KINDS = SessionKinds()


class UnitOfWork:
    """At most one session that writes and one that reads, which end together.

    Each is made when first asked for and takes a connection with its first statement.

    Args:
        writing: Where the writing session gets its connection: an engine, or a connection in
            whose transaction it works by savepoints.
        reading: The same for the reading session.
        committed: Told how many seconds each COMMIT took.
        options: How the transactions of both begin.
        turn_timeout: Seconds that one statement waits for another on the same connection; None for
            no limit.
        kinds: The classes of both.
        nested: Its turn, where several are in one transaction; None elsewhere.

    Attributes:
        context: Where the role and the settings of their transactions come from, beside those of
            the options; None for nowhere else. A session looks when it is first used.
    """

    __slots__ = (
        "_committed",
        "_kinds",
        "_nested",
        "_options",
        "_reader",
        "_reading",
        "_turn_timeout",
        "_writer",
        "_writing",
        "context",
    )

    def __init__(
        self,
        writing: SessionSource,
        reading: SessionSource,
        committed: Callable[[float], None] | None = None,
        options: BeginOptions = NO_OPTIONS,
        turn_timeout: float | None = None,
        *,
        kinds: SessionKinds = _DEFAULT_KINDS,
        nested: NestedTurn | None = None,
    ) -> None:
        self._nested = nested
        self._kinds = kinds
        self._committed = committed
        self._turn_timeout = turn_timeout
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
            self._introduce()
        return self._writer

    @property
    def reader(self) -> ReadingSession:
        """The session that reads."""
        if self._reader is None:
            self._reader = self._kinds.reading(self._reading, **self._arguments())
            self._introduce()
        return self._reader

    def _arguments(self) -> dict[str, Any]:
        return {
            "options": self._options,
            "context": self.context,
            "turn_timeout": self._turn_timeout,
            "autoflush": self._kinds.autoflush,
        }

    def _introduce(self) -> None:
        for session in (self._writer, self._reader):
            if session is not None:
                session.nested = self._nested
        if self._writer is not None and self._reader is not None:
            self._writer.reader, self._reader.writer = self._reader, self._writer

    # The express lane, beside the sessions.

    async def read_within(
        self,
        read: Callable[[AsyncConnection], Awaitable[_T]],
        otherwise: Callable[[], Awaitable[_T]],
    ) -> _T:
        """Read on the connection that a session holds, once it comes to rest.

        Args:
            read: Reads on that connection, and leaves its transaction as it was.
            otherwise: Reads where the sessions hold none.

        Raises:
            SessionBusy: They did not come to rest in time.
        """
        party = object()
        while (session := self._holder()) is not None:
            async with session.turn(party):
                connection = session.shareable_connection()
                if connection is not None:
                    with doubt(connection), _as_before(session.lease()):
                        return await read(connection)
                if session.open_connection() is not None:
                    break
        return await otherwise()

    async def make_way(self) -> UnitSession | None:
        """Let the sessions come to rest, and the one that reads return its connection.

        Returns:
            A session that holds one all the same; None where neither does.
        """
        party = object()
        if self._writer is not None and self._writer.turns.are_taken:
            async with self._writer.turn(party):
                pass
        if self._reader is not None:
            await self._reader.step_aside(party, waits=True)
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
            seconds = await self._writer.commit()
            if self._committed is not None:
                self._committed(seconds)

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
                    self._nested.leave()


@contextmanager
def _as_before(lease: Record | None) -> Iterator[None]:
    """Let what the block sets count for nothing: it is undone when the block is left."""
    adapter: Any = None if lease is None else lease.dbapi_connection
    held = getattr(adapter, "holds_state", None)
    try:
        yield
    finally:
        if held is not None:
            adapter.holds_state = held
