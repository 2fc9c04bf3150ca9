"""SQLAlchemy's record of one connection, for a pool that closes and mends in the background."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool.base import _ConnectionRecord

from penstock.drivers.driver import Trace
from penstock.drivers.effects import Effect
from penstock.pool.lease import Loan
from penstock.pool.slot import CloseReason, Slot

if TYPE_CHECKING:
    from penstock.pool.runtime import Keeper

__all__ = ["Record"]


class Record(_ConnectionRecord):
    """A connection and what SQLAlchemy keeps with it; it outlives the connection itself.

    Args:
        keeper: Who looks after its pool.
    """

    slot: Slot
    """Its place in the ledger; of no meaning while it holds no connection."""
    is_closed: Callable[[], bool]
    """Whether the driver knows the connection to be closed."""
    hung_up = False
    """Whether the kernel knows that the server has closed it."""
    reads_only = False
    """Whether the server refuses writes on its connection, as the borrower before wanted it."""
    fileno: int | None = None
    known: Any = None
    """The connection by which the pool knows the record, until that is closed or given away."""
    is_orphan = False
    """Whether it was taken from a borrower who still refers to it: nobody else may have it."""
    repair: "asyncio.Task[None] | bool" = False
    """What is closing or mending a connection that was taken from its borrower."""
    trace: Any = Trace()
    """Has ``effects``: what the statements of its lease may have left on the server."""
    repaired: Any = None
    """The connection that was mended before the borrower had returned the record."""

    def __init__(self, keeper: "Keeper") -> None:
        self.keeper = keeper
        # Looked up once: each return needs them.
        self.heard = keeper.pool.dispatch
        self.give_back = keeper.pool._return_conn  # noqa: SLF001 - the base class's
        super().__init__(keeper.pool, connect=False)

    def confine(self, *, to_reading: bool) -> None:
        """Have the server refuse writes from the next statement on, or accept them again."""
        self.reads_only = to_reading
        self.keeper.driver_of(self.dbapi_connection).confine(
            self.dbapi_connection, to_reading=to_reading, is_excused=self._is_given_up
        )

    def _is_given_up(self) -> bool:
        # Cancelled in front of the statement that was meant: what recovers it resets it, too.
        return bool(self.repair)

    def keep_state(self) -> None:
        """Let this lease last and set what it likes: its connection is closed at the end."""
        self.trace.effects |= Effect.LASTING
        if isinstance(self.slot.loan, Loan):
            self.slot.loan.reported = True

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]  # as in the base class
        """The driver's own connection; whoever has it may do anything there."""
        if self.dbapi_connection is not None:
            self.keeper.driver_of(self.dbapi_connection).expose(self.dbapi_connection)
        return super().driver_connection

    def get_connection(self) -> Any:
        """Return the connection, which the pool has just found fit; reconnect if it is gone."""
        connection = self.dbapi_connection
        return self.keeper.reconnected(self) if connection is None else connection

    def connect(self) -> None:
        """Open a connection, as SQLAlchemy does with all its events."""
        super().get_connection()

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """Return to the pool, whatever a listener or an undoing of execution options raises."""
        if self.fairy_ref is not None and not self.finalize_callback and not self.heard.checkin:
            self.fairy_ref = None
            self.give_back(self)
            return
        try:
            super().checkin(_fairy_was_created)
        except BaseException as error:
            self.keeper.give_up(self, error)
            raise

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Give the connection up; after a cancellation, have it mended instead."""
        if isinstance(e, asyncio.CancelledError) and not soft and self.keeper.mends(self):
            self._log_invalidate(e, soft)
            self.dbapi_connection = None
        else:
            try:
                super().invalidate(e, soft)
            finally:
                if self.dbapi_connection is not None:  # soft, or a listener of the event failed
                    self.keeper.ledger.retire(self.slot, CloseReason.INVALID)
                    self.keeper.carry_out()

    def shut(self, *, terminate: bool) -> None:
        """Close the connection, as SQLAlchemy does with all its events. Runs in a greenlet."""
        if self.dbapi_connection is not None:
            self._ConnectionRecord__close(terminate=terminate)  # type: ignore[attr-defined]  # its own name
