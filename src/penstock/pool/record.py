"""SQLAlchemy's record of one connection, for a pool that closes and recovers in the background."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionRecord

from penstock.drivers.driver import Driver, Trace
from penstock.drivers.effects import Effect
from penstock.pool.lease import Lease
from penstock.pool.ledger import Ledger
from penstock.pool.slot import CloseReason, Slot


class RecordOwner(Protocol):
    """What a pool does for its records on its event loop."""

    ledger: Ledger
    """Decides about the records' slots."""

    def driver_of(self, connection: Any) -> Driver:
        """Return the driver of a connection."""

    def dispatch(self) -> None:
        """Start the actions that the ledger has queued."""

    def evict(self, record: "Record", error: BaseException) -> None:
        """Take back a checked-out record whose connection is broken."""

    def recover(self, record: "Record") -> bool:
        """Recover the record's connection in the background; return False if it cannot be."""

    def reset_session(self, record: "Record") -> bool:
        """Undo session state; return whether the record has lost its connection for that."""

    def reconnect(self, record: "Record") -> Any:
        """Return a new connection for a checked-out record. Runs in a greenlet."""

    def returned_without_connection(self, record: "Record") -> None:
        """Record a return without a connection, from any thread."""

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task of the pool."""


class Record(_ConnectionRecord):
    """A connection and what SQLAlchemy keeps with it; the record outlives the connection.

    Args:
        pool: SQLAlchemy's side of the pool.
        runtime: The pool's side on its event loop.
    """

    slot: Slot
    """Its place in the ledger; meaningless while it holds no connection."""
    is_closed: Callable[[], bool]
    """Whether the driver knows the connection to be closed."""
    peer_closed = False
    """Whether the kernel knows that the server has closed the socket."""
    reads_only = False
    """Whether the server refuses writes on the connection, as its last holder set it."""
    fileno: int | None = None
    """The number of the socket that is monitored; None for none."""
    registered: Any = None
    """The connection under which the record is registered."""
    is_orphan = False
    """Whether its holder, from whom it was taken, still refers to it: it is not used again."""
    repair: "asyncio.Task[None] | bool" = False
    """The task that closes or recovers the connection that was taken from the holder."""
    trace: Any = Trace()
    """Has ``effects``: what the statements of its lease may have left on the server."""
    recovered: Any = None
    """The connection that was recovered before the holder had returned the record."""

    def __init__(self, pool: Pool, runtime: RecordOwner) -> None:
        self.runtime = runtime
        # Looked up once: each return needs them.
        self.events = pool.dispatch
        self.release = pool._return_conn  # noqa: SLF001 - the base class's
        super().__init__(pool, connect=False)

    def set_read_only(self, *, to_reading: bool) -> None:
        """Make the server refuse writes from the next statement on, or accept them again.

        Args:
            to_reading: True to refuse writes, False to accept them.
        """
        self.reads_only = to_reading
        self.runtime.driver_of(self.dbapi_connection).set_read_only(
            self.dbapi_connection, to_reading=to_reading, ignores_error=self._is_in_repair
        )

    def _is_in_repair(self) -> bool:
        # Cancelled before the statement it was set for: the recovery resets it as well.
        return bool(self.repair)

    def keep_state(self) -> None:
        """Exempt this lease from leak detection and reset: its connection is closed at the end."""
        self.trace.effects |= Effect.LASTING
        if isinstance(self.slot.lease, Lease):
            self.slot.lease.reported = True

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]  # as in the base class
        """The driver's own connection, on which the caller may do anything."""
        if self.dbapi_connection is not None:
            self.runtime.driver_of(self.dbapi_connection).expose(self.dbapi_connection)
        return super().driver_connection

    def get_connection(self) -> Any:
        """Return the connection, which the pool has just found fit; reconnect if it is gone."""
        connection = self.dbapi_connection
        return self.runtime.reconnect(self) if connection is None else connection

    def connect(self) -> None:
        """Open a connection, with all of SQLAlchemy's events."""
        super().get_connection()

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """Return to the pool, also when a listener or a reset of execution options raises."""
        if self.fairy_ref is not None and not self.finalize_callback and not self.events.checkin:
            self.fairy_ref = None
            self.release(self)
            return
        try:
            super().checkin(_fairy_was_created)
        except BaseException as error:
            self.runtime.evict(self, error)
            raise

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Close the connection; after a cancellation, recover it instead.

        Args:
            e: The error that invalidates it.
            soft: Whether it stays open until it is checked out again.
        """
        if isinstance(e, asyncio.CancelledError) and not soft and self.runtime.recover(self):
            self._log_invalidate(e, soft)
            self.dbapi_connection = None
        else:
            try:
                super().invalidate(e, soft)
            finally:
                if self.dbapi_connection is not None:  # soft, or a listener of the event failed
                    self.runtime.ledger.evict(self.slot, CloseReason.INVALID)
                    self.runtime.dispatch()

    def shut(self, *, terminate: bool) -> None:
        """Close the connection, with all of SQLAlchemy's events. Runs in a greenlet.

        Args:
            terminate: Whether the socket is dropped without a message to the server.
        """
        if self.dbapi_connection is not None:
            self._ConnectionRecord__close(terminate=terminate)  # type: ignore[attr-defined]  # its own name
