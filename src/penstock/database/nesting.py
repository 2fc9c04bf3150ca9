"""Units of work within one transaction: one at a time, with settings that are put back."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from penstock.base_error import PenstockError
from penstock.context import ContextError, Settings
from penstock.drivers.capabilities import driver_of
from penstock.drivers.driver import without_values

NO_SETTINGS = "The connections of this engine take no role and no settings"


class SessionBusy(PenstockError, InvalidRequestError):  # noqa: N818 - it reads as what happened, like SQLAlchemy's
    """A unit of work should have been committed while one of its statements was in progress."""


class NestedLock:
    """The lock of one unit of work, whose savepoints must not mix with those of another.

    A unit that is made within another, by the same task or one that it has started, works while
    that holds its lock; those that are made beside it wait until it has ended.

    Args:
        timeout: Seconds that it waits for others; None for no limit.
        outer: The lock of the unit around it; None for none.

    Attributes:
        outer: The lock of the unit around it; None for none.
        inside: Held by the one unit at work within this one.
        is_over: Whether the unit has ended.
    """

    __slots__ = ("_entry", "_is_taken", "_timeout", "inside", "is_over", "outer")

    def __init__(self, timeout: float | None, outer: Self | None = None) -> None:
        self._timeout = timeout
        self.outer = outer
        self._entry, self.inside = asyncio.Lock(), asyncio.Lock()
        self._is_taken = outer is None
        self.is_over = False

    def within(self) -> "NestedLock":
        """Return the lock of a unit that is made now, within this one or deeper."""
        outer = self._current()
        lock = NestedLock(self._timeout, outer)
        _enclosing.set((self, lock))
        return lock

    def _current(self) -> "NestedLock":
        root, lock = _enclosing.get()
        while root is self and lock is not None:
            if not lock.is_over:
                return lock
            lock = lock.outer
        return self

    async def acquire(self) -> None:
        """Wait for the lock, once.

        Raises:
            SessionBusy: Another did not end in time.
        """
        if self._is_taken:
            return
        assert self.outer is not None  # noqa: S101 - or it would be taken
        await self.outer.acquire()
        async with self._entry:
            if not self._is_taken:
                await self._wait(self.outer)
                self._is_taken = True

    async def _wait(self, outer: "NestedLock") -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await outer.inside.acquire()
        except TimeoutError as error:
            raise SessionBusy(
                "Under rollback_after() one unit of work is at work at a time, and this one has "
                f"waited {self._timeout:g} s (pool_timeout) for another to end. Start within a "
                "session's block what is awaited there, or test it without rollback_after()."
            ) from error

    def release(self) -> None:
        """Release it, for good."""
        if self._is_taken and not self.is_over and self.outer is not None:
            self.outer.inside.release()
        self.is_over = True


_enclosing: ContextVar[tuple[NestedLock | None, NestedLock | None]] = ContextVar(
    "penstock_nested_lock", default=(None, None)
)
"""The outermost lock, and that of the unit which was made last."""


@contextmanager
def kept_after_cancellation(connection: Connection) -> Iterator[None]:
    """Have a connection survive the cancellation of its statements for the length of a block.

    SQLAlchemy would close it, and all that its transaction has written would be lost. Where the
    driver cannot go on after a cancellation, it is.

    Args:
        connection: Whose savepoints are rolled back instead.
    """

    def keep(failure: ExceptionContext) -> None:
        if failure.connection is connection:
            is_cancelled = isinstance(failure.original_exception, asyncio.CancelledError)
            failure.is_disconnect = failure.is_disconnect and not is_cancelled

    if not driver_of(connection.dialect).can_recover:
        yield
        return
    event.listen(connection.dialect, "handle_error", keep)
    try:
        yield
    finally:
        event.remove(connection.dialect, "handle_error", keep)


def set_within(connection: Connection, settings: Settings) -> Settings:
    """Set names and values until the transaction ends, and return what the values were.

    They are neither logged nor seen by listeners. Runs in a greenlet.

    Args:
        connection: In a transaction of PostgreSQL's.
        settings: Names and values; an empty value for what is not set.

    Raises:
        ContextError: The connection cannot.
        sqlalchemy.exc.DBAPIError: The server refuses; the error does not show the values.
    """
    is_numbered = connection.dialect.driver == "asyncpg"
    calls, values = [], list[str]()
    for name, value in settings:
        first = len(values) + 1
        marks = [f"${first + n}" if is_numbered else "%s" for n in range(3)]
        calls.append("current_setting({}, true), set_config({}, {}, true)".format(*marks))
        values += [name, name, value]
    try:
        row = _row(connection, f"SELECT {', '.join(calls)}", values)
    except DBAPIError as error:
        raise _without_values(error, settings) from None
    return tuple((name, row[2 * n] or "") for n, (name, _) in enumerate(settings))


def _without_values(error: DBAPIError, settings: Settings) -> DBAPIError:
    orig = error.orig
    assert orig is not None  # noqa: S101 - as it is the driver's
    sqlstate = getattr(orig, "sqlstate", None) or ""
    orig.args = (without_values(str(orig), settings, sqlstate),)
    orig.__cause__ = None
    return error.__class__(error.statement, None, orig, hide_parameters=True)


def _row(connection: Connection, sql: str, values: list[str]) -> Any:
    adapter: Any = connection.connection.dbapi_connection
    base: Any = connection.dialect.loaded_dbapi.Error
    if not hasattr(adapter, "fetch_row"):
        raise ContextError(NO_SETTINGS)
    try:
        return adapter.fetch_row(sql, values)
    except base as error:
        raise DBAPIError.instance(
            sql, None, error, base, hide_parameters=True, dialect=connection.dialect
        ) from None
