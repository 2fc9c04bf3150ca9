"""The work that the ledger orders: opening, closing and mending, each in a task of its own."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool.base import PoolResetState
from sqlalchemy.util import greenlet_spawn

from penstock.drivers.effects import Effect
from penstock.pool.closing import abandon, shut
from penstock.pool.events import (
    ConnectionClosed,
    ConnectionMended,
    ConnectionOpened,
    OpeningFailed,
)
from penstock.pool.failure import ConnectFailed, FailureReason, is_refused, is_transient, let_go
from penstock.pool.orders import Check, Close, Open
from penstock.pool.record import Record
from penstock.pool.slot import MENDING, CloseReason, Slot
from penstock.pool.standstill import ended, heed

if TYPE_CHECKING:
    from penstock.pool.keeper import Keeper

__all__ = ["Upkeep"]

_logger = logging.getLogger("penstock.pool")

MEND_TIMEOUT = 5.0
"""Seconds for the server to acknowledge a cancelled query and roll back; then it is closed."""
PREPARE_TIMEOUT = 5.0
"""Seconds for preparing a replacement's statements; what is not done then is left."""

_BROKEN = (CloseReason.DEAD, CloseReason.INVALID, CloseReason.LOST)


class Upkeep:
    """Carries out one pool's orders on its event loop, and tells the ledger what became of them.

    Args:
        keeper: Who looks after the pool.
    """

    def __init__(self, keeper: "Keeper") -> None:
        self._keeper = keeper
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._spare: list[Record] = []
        """Records that lost their connection: the next one takes over their ``record_info``."""

    def carry_out(self) -> None:
        """Start the work on every order that the ledger has given."""
        orders = self._keeper.ledger.orders
        while orders:
            match orders.popleft():
                case Open(slot):
                    task = self.start(self._open(slot), "connect")
                    self._connecting.add(task)
                    task.add_done_callback(self._connecting.discard)
                case Close(slot, why):
                    self.start(self._close(slot, why), "close")
                case Check(slot):
                    self.start(self._keeper.questions.check(slot), "ping")

    async def settled(self) -> None:
        """Wait until nothing is being closed, mended or pinged."""
        await asyncio.sleep(0)  # what was handed to the loop a moment ago begins first
        while tasks := self._tasks - self._connecting:
            await asyncio.wait(tasks)

    async def connected(self) -> None:
        """Wait until nothing is being opened."""
        while self._connecting:
            await asyncio.wait(set(self._connecting))

    def stop_connecting(self) -> None:
        """Give up whatever is still being opened."""
        for task in self._connecting:
            if not task.cancelling():
                task.cancel()

    def take_down(self, record: Record, connection: Any, *, mend: bool) -> None:
        """Close or mend a connection that was taken from its borrower.

        Its slot counts until the server is known to be rid of it, or at rest.
        """
        if not mend:
            record.repair = self.start(self._drop(record, connection), "close")
            return
        # What undoes the borrower's execution options; the record's return would throw it away.
        undo = list(reversed(record.finalize_callback))
        record.finalize_callback.clear()
        record.repair = self.start(self._mend(record, connection, undo), "mend")

    def start(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Do something in a task of its own, which is named in tracebacks and debuggers."""
        task = self._keeper.loop.create_task(work, name=f"penstock pool: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open(self, slot: Slot) -> None:
        record = self._spare.pop() if self._spare else Record(self._keeper)
        slot.content, record.slot = record, slot
        began = monotonic()
        try:
            await self.connect(record)
            if slot.replaces is not None:
                await self._prepare(record, slot.replaces.content)
        except asyncio.CancelledError as error:
            let_go(error)
            self._failed_to_open(slot, began, ConnectFailed("the attempt to connect was cancelled"))
            raise
        except BaseException as error:  # noqa: BLE001 - whoever waits for the connection raises it
            self._failed_to_open(slot, began, error)
            return
        now = monotonic()
        if self._keeper.listeners.are_there:
            self._keeper.listeners.tell(ConnectionOpened(now - began, slot.for_upkeep))
        self._keeper.ledger.opened(slot, now)
        self._keeper.carry_out()

    async def connect(self, record: Record) -> None:
        """Open the record's connection within ``connect_timeout``.

        Raises:
            ConnectFailed: It took longer.
            Exception: What the driver raised.
        """
        limit = asyncio.timeout(self._keeper.policy.connect_timeout)
        try:
            async with limit:
                await greenlet_spawn(record.connect)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ConnectFailed(
                f"{self._keeper.pool.name} opened no connection within "
                f"connect_timeout={self._keeper.policy.connect_timeout:g} s",
                FailureReason.TIMEOUT,
            ) from error
        record.reads_only = False
        self._keeper.know(record, record.dbapi_connection)

    def _failed_to_open(self, slot: Slot, began: float, error: BaseException) -> None:
        let_go(error)
        try:
            self._throw_away(slot.content)
        except Exception:
            _logger.debug("What a failed connect has left cannot be cleaned up", exc_info=True)
        now = monotonic()
        if self._keeper.listeners.are_there:
            self._keeper.listeners.tell(OpeningFailed(now - began, error))
        self._keeper.ledger.failed(
            slot, now, error, refused=is_refused(error), transient=is_transient(error)
        )
        self._keeper.carry_out()
        if self._keeper.ledger.waiters:
            self._keeper.timers.retry_in_time()

    def _throw_away(self, record: Record) -> None:
        if (connection := record.dbapi_connection) is not None:
            record.dbapi_connection = None
            abandon(self._keeper, connection)
            self._keeper.forget(record)
        self._spare.append(record)

    async def _prepare(self, record: Record, old: Record) -> None:
        keeper, connection = self._keeper, record.dbapi_connection
        if old.dbapi_connection is None:
            return
        prepare = keeper.driver_of(connection).prepare
        try:
            statements = keeper.driver_of(old.dbapi_connection).statements(old.dbapi_connection)
            async with asyncio.timeout(PREPARE_TIMEOUT):
                await greenlet_spawn(prepare, keeper.dialect, connection, statements)
        except Exception:
            _logger.debug("Not every statement was prepared on a new connection", exc_info=True)

    async def _close(self, slot: Slot, why: CloseReason) -> None:
        record: Record = slot.content
        connection = record.dbapi_connection
        self._keeper.forget(record)
        self._keeper.pool.logger.info("Connection %r is closed: %s", connection, why)
        try:
            await shut(self._keeper, connection, partial(record.shut, terminate=why in _BROKEN))
        finally:
            record.dbapi_connection = None
            self.vacate(slot, why)

    async def _drop(self, record: Record, connection: Any) -> None:
        """Close what is no longer the record's."""
        try:
            await shut(self._keeper, connection, partial(self._keeper.pool.close_now, connection))
        finally:
            record.repair = False
            if record.slot.state is MENDING:
                self.vacate(record.slot, CloseReason.INVALID)

    def vacate(self, slot: Slot, why: CloseReason) -> None:
        """Give the slot back, whose connection is closed or has gone elsewhere."""
        now = monotonic()
        if not slot.content.is_orphan:
            self._spare.append(slot.content)
        if self._keeper.listeners.are_there:
            self._keeper.listeners.tell(ConnectionClosed(why, now - slot.opened_at))
        self._keeper.ledger.vacate(slot, now)
        self._keeper.carry_out()

    async def _mend(self, record: Record, connection: Any, undo: list[Any]) -> None:
        began = monotonic()
        try:
            is_well = await self._cleaned(record, connection, undo)
            if is_well:
                self._keeper.know(record, connection)
        except Exception:
            _logger.debug("A cancelled connection could not be saved", exc_info=True)
            is_well = False
        except BaseException:
            await self._drop(record, connection)
            raise
        if not is_well:
            self._keeper.forget(record)
            await self._drop(record, connection)
            return
        self._mended(record, connection, monotonic() - began)

    async def _cleaned(self, record: Record, connection: Any, undo: list[Any]) -> bool:
        cleaning = self._keeper.loop.create_task(
            greenlet_spawn(self._clean, record, connection, undo, record.trace.effects)
        )
        cleaning.add_done_callback(heed)
        try:
            if await ended(cleaning, MEND_TIMEOUT):
                return cleaning.result()
            _logger.debug("A server did not acknowledge a cancellation in %g s", MEND_TIMEOUT)
        finally:
            cleaning.cancel()
        await asyncio.wait({cleaning})  # for a driver asks the server to cancel that, too
        return False

    def _clean(self, record: Record, connection: Any, undo: list[Any], effects: Effect) -> bool:
        keeper, driver = self._keeper, self._keeper.driver_of(connection)
        if effects & Effect.LASTING or not driver.recover(connection):
            return False
        if not keeper.is_equipped():
            if not driver.reset(connection):
                return False
        elif effects:
            return False
        elif record.reads_only:
            driver.confine(connection, to_reading=False)
        record.reads_only = False
        for step in undo:
            step(connection)
        if keeper.pool.dispatch.reset:
            state = PoolResetState(
                transaction_was_reset=False, terminate_only=False, asyncio_safe=True
            )
            keeper.pool.dispatch.reset(connection, record, state)
            keeper.dialect.do_rollback(connection)
        return True

    def _mended(self, record: Record, connection: Any, seconds: float) -> None:
        keeper = self._keeper
        record.repair = False
        if keeper.listeners.are_there:
            keeper.listeners.tell(ConnectionMended(seconds))
        if record.slot.state is MENDING:
            record.dbapi_connection = connection
            keeper.ledger.restore(record.slot, monotonic())
            self._keeper.carry_out()
        else:
            record.repaired = connection
