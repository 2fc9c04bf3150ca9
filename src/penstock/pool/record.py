"""SQLAlchemy's record of one connection, for a pool that closes and recovers in the background."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool.base import _ConnectionRecord

from penstock.drivers.driver import Trace
from penstock.drivers.effects import Effect
from penstock.pool.lease import Lease
from penstock.pool.slot import CloseReason, Slot

if TYPE_CHECKING:
    from penstock.pool.runtime import PoolRuntime

__all__ = ["Record"]


class Record(_ConnectionRecord):
    """A connection and what SQLAlchemy keeps with it; it outlives the connection itself.

    Args:
        runtime: Who looks after its pool.
    """

    slot: Slot
    """Its place in the ledger; of no meaning while it holds no connection."""
    is_closed: Callable[[], bool]
    """Whether the driver knows the connection to be closed."""
    peer_closed = False
    """Whether the kernel knows that the server has closed it."""
    reads_only = False
    """Whether the server refuses writes on its connection, as the holder before wanted it."""
    fileno: int | None = None
    known: Any = None
    """The connection by which the pool knows the record, until that is closed or given away."""
    is_orphan = False
    """Whether it was taken from a holder who still refers to it: nobody else may have it."""
    repair: "asyncio.Task[None] | bool" = False
    """What is closing or recovery a connection that was taken from its holder."""
    trace: Any = Trace()
    """Has ``effects``: what the statements of its lease may have left on the server."""
    repaired: Any = None
    """The connection that was recovered before the holder had returned the record."""

    def __init__(self, runtime: "PoolRuntime") -> None:
        self.runtime = runtime
        # Looked up once: each return needs them.
        self.heard = runtime.pool.dispatch
        self.release = runtime.pool._return_conn  # noqa: SLF001 - the base class's
        super().__init__(runtime.pool, connect=False)

    def set_read_only(self, *, to_reading: bool) -> None:
        """Have the server refuse writes from the next statement on, or accept them again."""
        self.reads_only = to_reading
        self.runtime.driver_of(self.dbapi_connection).set_read_only(
            self.dbapi_connection, to_reading=to_reading, ignores_error=self._is_evicted
        )

    def _is_evicted(self) -> bool:
        # Cancelled in front of the statement that was meant: what recovers it resets it, too.
        return bool(self.repair)

    def keep_state(self) -> None:
        """Let this lease last and set what it likes: its connection is closed at the end."""
        self.trace.effects |= Effect.LASTING
        if isinstance(self.slot.lease, Lease):
            self.slot.lease.reported = True

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]  # as in the base class
        """The driver's own connection; whoever has it may do anything there."""
        if self.dbapi_connection is not None:
            self.runtime.driver_of(self.dbapi_connection).expose(self.dbapi_connection)
        return super().driver_connection

    def get_connection(self) -> Any:
        """Return the connection, which the pool has just found fit; reconnect if it is gone."""
        connection = self.dbapi_connection
        return self.runtime.reconnected(self) if connection is None else connection

    def connect(self) -> None:
        """Open a connection, as SQLAlchemy does with all its events."""
        super().get_connection()

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """Return to the pool, whatever a listener or an undoing of execution options raises."""
        if self.fairy_ref is not None and not self.finalize_callback and not self.heard.checkin:
            self.fairy_ref = None
            self.release(self)
            return
        try:
            super().checkin(_fairy_was_created)
        except BaseException as error:
            self.runtime.evict(self, error)
            raise

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Give the connection up; after a cancellation, have it recovered instead."""
        if isinstance(e, asyncio.CancelledError) and not soft and self.runtime.recovers(self):
            self._log_invalidate(e, soft)
            self.dbapi_connection = None
        else:
            try:
                super().invalidate(e, soft)
            finally:
                if self.dbapi_connection is not None:  # soft, or a listener of the event failed
                    self.runtime.ledger.retire(self.slot, CloseReason.INVALID)
                    self.runtime.dispatch()

    def shut(self, *, terminate: bool) -> None:
        """Close the connection, as SQLAlchemy does with all its events. Runs in a greenlet."""
        if self.dbapi_connection is not None:
            self._ConnectionRecord__close(terminate=terminate)  # type: ignore[attr-defined]  # its own name
