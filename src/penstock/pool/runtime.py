"""What goes on behind a pool on its event loop: which connection is whose, and what is due."""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from penstock.drivers.capabilities import driver_of
from penstock.drivers.driver import Driver, Trace
from penstock.drivers.effects import Effect
from penstock.log_limit import LogLimit
from penstock.pool.errors import (
    LeaseReclaimed,
    PoolClosed,
    PoolTimeout,
    is_transient,
    refusal_error,
)
from penstock.pool.events import CheckoutRejected
from penstock.pool.housekeeper import Housekeeper
from penstock.pool.liveness import Pinger, SocketMonitor
from penstock.pool.queue import Rejection, RejectReason
from penstock.pool.record import Record
from penstock.pool.slot import CHECKED_OUT, CHECKING, IDLE, CloseReason, Slot
from penstock.pool.worker import ConnectionWorker, Timers

if TYPE_CHECKING:
    from penstock.pool.binding import LoopBoundPool

__all__ = ["PoolRuntime"]

_UNKNOWN = Driver()
"""Of connections that a creator or a ``do_connect`` listener has brought from elsewhere."""


class PoolRuntime:
    """Looks after the connections of one pool on one event loop.

    Args:
        pool: Whose connections they are.
        loop: To which they belong.
    """

    def __init__(self, pool: "LoopBoundPool", loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.ledger = pool.ledger
        self.policy = pool.policy
        self.listeners = pool.listeners
        self.dialect = pool._dialect  # noqa: SLF001 - the base class's
        self.pre_pings = pool._pre_ping  # noqa: SLF001 - as above
        self._driver = driver_of(self.dialect)
        self.socket_monitor = SocketMonitor()
        self.worker = ConnectionWorker(self)
        self.pinger = Pinger(self)
        self.nested_log_limit = LogLimit()
        self.reclaim_queue: deque[Record] = deque()
        """Returned without a connection: the garbage collector may do that at any moment, during
        the ledger's own work or in another thread, so that it is looked at later."""
        self._housekeeper = Housekeeper(self.ledger, self.policy.worker)
        self.timers = Timers(self, self._housekeeper)
        self._records: dict[int, Record] = {}
        """By the identity of the connection, of which the record keeps a reference."""
        self._drained = asyncio.Event()

    # Which connection is whose.

    def driver_of(self, connection: Any) -> Driver:
        """Return what is known of a connection's driver, which may be none of the dialect's."""
        return self._driver if self._driver.owns(connection) else _UNKNOWN

    def know(self, record: Record, connection: Any) -> None:
        """Remember that the record holds the connection."""
        driver = self.driver_of(connection)
        record.known = connection
        record.is_closed = driver.is_closed(connection)
        record.trace = driver.trace(connection)
        record.trace.effects = Effect.NONE  # what `connect` listeners have set is there to stay
        self.socket_monitor.watch(record, driver.fileno(connection))
        self._records[id(connection)] = record

    def forget(self, record: Record) -> None:
        """Forget the record's connection, which is no longer the pool's."""
        self._records.pop(id(record.known), None)
        record.known = None
        record.is_closed = _not_to_be_used
        self.socket_monitor.forget(record)

    def lives(self, record: Record) -> bool:
        """Tell without a round trip whether the record's connection is still open."""
        self.socket_monitor.poll(monotonic())
        return not (record.peer_closed or record.is_closed())

    def close_later(self, connection: Any) -> bool:
        """Have a connection closed whose slot counts until then; False if it is not known."""
        record = self._records.get(id(connection))
        if record is None or self.loop.is_closed():
            return False
        self.forget(record)
        record.repair = True
        self.in_loop(lambda: self.worker.tear_down(record, connection, recover=False))
        return True

    def recovers(self, record: Record) -> bool:
        """Have the record's connection recovered after a cancellation; False if it cannot be."""
        connection = record.dbapi_connection
        if record.known is not connection or not self.lives(record):
            return False
        if not self.driver_of(connection).can_recover:
            return False
        self.forget(record)
        self.worker.tear_down(record, connection, recover=True)
        return True

    def undo(self, record: Record) -> bool:
        """Have the server forget what a lease has left in its session, before the next lease.

        Returns:
            Whether the connection was taken from the record for that, because it has to wait.
        """
        connection = record.dbapi_connection
        driver = self.driver_of(connection)
        effects = driver.take_effects(connection)
        leaves_open = driver.is_in_transaction(connection)
        if not leaves_open and not effects & (Effect.SESSION | Effect.LASTING):
            return False
        if leaves_open or effects & Effect.LASTING or self.is_equipped():
            self.ledger.retire(record.slot, CloseReason.STATE)
        elif _resets_pipelined(driver, connection, effects):
            driver.reset_pipelined(connection)
            record.reads_only = False
        elif self.recovers(record):
            record.dbapi_connection = None
            return True
        else:
            self.ledger.retire(record.slot, CloseReason.STATE)
        return False

    def is_equipped(self) -> bool:
        """Return whether ``connect`` listeners may set session state, which a reset would undo."""
        return not all(map(_is_own, self.pool.dispatch.connect))

    def retire_older_than(self, started: float) -> None:
        """Hand out no connection again that was opened before the whole pool was invalidated.

        Args:
            started: That moment by the wall clock, as SQLAlchemy notes it.
        """
        for slot in list(self.ledger):
            record: Record | None = slot.content
            if (
                slot.state in (IDLE, CHECKED_OUT, CHECKING)
                and record
                and record.starttime < started
            ):
                self.ledger.retire(slot, CloseReason.INVALID)
        self.dispatch()

    def evict_stale_idle(self) -> None:
        """Close what has been idle for so long that it would be pinged: one was found silent.

        Each of them could cost the caller another ``ping_timeout``.
        """
        long_ago = monotonic() - self.policy.idle_before_ping
        self._retire_idle(lambda slot: slot.since <= long_ago)

    def retire_dead(self) -> None:
        """Close what is idle and has been closed by the server, before anybody asks for it."""
        self._retire_idle(lambda slot: not self.lives(slot.content))

    def _retire_idle(self, is_unfit: Callable[[Slot], bool]) -> None:
        for slot in list(self.ledger):
            if slot.state is IDLE and is_unfit(slot):
                self.ledger.retire(slot, CloseReason.DEAD)
        self.dispatch()

    def retry_for(self, timeout: float | None) -> float:
        """Return for how many seconds a failed connect is tried again for one caller.

        Args:
            timeout: Its ``pool_timeout``: without one it waits for others as long as it takes,
                and not so for a server that may never come; 0 is not to wait at all.
        """
        if timeout is None:
            return self.policy.connect_timeout
        return math.inf if timeout else 0.0

    def reconnected(self, record: Record, asked_at: float | None = None) -> Any:
        """Return a connection for a checked out record that has lost its own. Runs in a greenlet.

        Args:
            record: Whose connection is gone, or about to be closed.
            asked_at: When its holder asked for it, on ``time.monotonic``: from then on
                ``pool_timeout`` counts; None for now.

        Raises:
            PoolTimeout: There was none within ``pool_timeout``.
            Exception: What the driver raised, within that time or last.
        """
        return await_(self._reconnected(record, monotonic() if asked_at is None else asked_at))

    async def _reconnected(self, record: Record, asked_at: float) -> Any:
        timeout = self.pool.timeout()
        limit = asyncio.timeout(asked_at + timeout - monotonic() if timeout else None)
        try:
            async with limit:
                return await self._reconnect(record, asked_at + self.retry_for(timeout))
        except TimeoutError as error:
            if not limit.expired():
                raise
            backoff, waited = self.ledger.backoff, monotonic() - asked_at
            why = RejectReason.FAILED if asked_at < backoff.until else RejectReason.CONNECTING
            self.listeners.tell(CheckoutRejected(why, waited))
            if why is RejectReason.FAILED and backoff.last_error is not None:
                raise backoff.last_error.with_traceback(None) from None
            raise self.refusal(why, waited) from error

    async def _reconnect(self, record: Record, retry_until: float) -> Any:
        # The old connection goes first, so that there are never two for one slot.
        while record.repair:
            await asyncio.sleep(0)
            if isinstance(record.repair, asyncio.Task):
                await asyncio.wait({record.repair})
        if record.repaired is not None:
            record.dbapi_connection, record.repaired = record.repaired, None
        else:
            await self._connect(record, retry_until)
            self.ledger.renew(record.slot, monotonic())
        return record.dbapi_connection

    async def _connect(self, record: Record, retry_until: float) -> None:
        backoff = self.ledger.backoff
        while True:
            try:
                return await self.worker.connect(record)
            except Exception as error:
                now = monotonic()
                if not is_transient(error) or self.ledger.closed or now >= retry_until:
                    raise
                backoff.failed(now, error, refused=False)
            await asyncio.sleep(max(0.0, backoff.until - monotonic()))

    def refusal(
        self, why: RejectReason, waited: float, limit: str = ""
    ) -> PoolTimeout | PoolClosed:
        """Make the error for a caller who gets no connection.

        Args:
            why: The phase.
            waited: Seconds that it waited.
            limit: What bounded its wait more closely than ``pool_timeout``; empty for nothing.
        """
        pool = self.pool
        return refusal_error(
            why,
            pool=pool.name,
            timeout=pool.timeout(),
            waited=waited,
            snapshot=pool.snapshot(),
            limit=limit,
        )

    # What comes back without a connection.

    def evict(self, record: Record, error: BaseException) -> None:
        """Take back a checked out record whose connection turned out to be broken."""
        try:
            record.invalidate(error)
        finally:
            self._take_back(record)
            self.dispatch()

    async def reclaim(self, slot: Slot, why: str) -> None:
        """Take a connection from its holder, who finds it closed at the next use."""
        if slot.state is CHECKED_OUT:
            slot.content.is_orphan = True
            await greenlet_spawn(self.evict, slot.content, LeaseReclaimed(why))

    def returned_without_connection(self, record: Record) -> None:
        """Note a return without a connection, at any moment and from any thread."""
        if not self.dialect.has_terminate:
            # SQLAlchemy leaves a lost one to its own finaliser: nothing may hold it.
            self.forget(record)
            if not record.repair:
                record.trace = Trace()
        self.reclaim_queue.append(record)
        self.in_loop(self.drain_reclaimed)

    def drain_reclaimed(self) -> None:
        """Look at what came back without a connection."""
        while self.reclaim_queue:
            self._take_back(self.reclaim_queue.popleft())
        self.dispatch()

    def _take_back(self, record: Record) -> None:
        slot = record.slot
        if slot.state is not CHECKED_OUT or slot.content is not record:
            return
        slot.lease = slot.route = None
        if self.listeners.are_there:
            self.listeners.returned(monotonic() - slot.checked_out_at)
        if record.dbapi_connection is not None:
            self.ledger.discard(slot, CloseReason.INVALID)
        elif record.repair:
            self.ledger.recover(slot)
        elif record.repaired is not None:
            record.dbapi_connection, record.repaired = record.repaired, None
            self.ledger.release(slot, monotonic())
        else:
            self.forget(record)
            self.worker.vacate(slot, CloseReason.LOST)

    # What is due.

    def dispatch(self) -> None:
        """Start the work that the ledger has ordered."""
        if self.ledger.actions:
            self.worker.dispatch()
        if self.ledger.closed and not self.ledger.open:
            self._drained.set()

    def in_loop(self, work: Callable[[], object]) -> None:
        """Have something done by the loop soon, from any thread; nothing if it has ended."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(work)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done in a task of its own."""
        self.worker.start(work, "reclaim")

    # The operator.

    async def prefill(self) -> None:
        """Open connections until ``min_idle`` are ready, or an attempt fails."""
        self.timers.wake()
        failures = self.ledger.tally.open_failures
        while self.ledger.tally.open_failures == failures:
            self._housekeeper.fill(monotonic())
            if not self.ledger.actions and not self.ledger.opening:
                return
            self.dispatch()
            await self.worker.connected()

    async def drain(self, seconds: float) -> None:
        """Stop checkouts, wait for what is checked out, then take it back by force."""
        self._housekeeper.resting = True
        self.ledger.close()
        self.dispatch()
        try:
            async with asyncio.timeout(seconds):
                await self._drained.wait()
        except TimeoutError:
            await self._take_back_all(f"The pool was drained, and waited for {seconds:g} s.")

    async def _take_back_all(self, why: str) -> None:
        # Again and again, for what was being opened may be checked out meanwhile; each close is
        # bounded.
        while not self._drained.is_set():
            self.ledger.waiters.refuse_all(Rejection(RejectReason.CLOSED))
            self.worker.stop_connecting()
            for slot in [slot for slot in self.ledger if slot.state is CHECKED_OUT]:
                await self.reclaim(slot, why)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), 0.05)

    def dispose(self) -> None:
        """Close what is idle, and the rest when it comes back; in a greenlet, wait for it."""
        self._housekeeper.resting = True
        self.ledger.dispose()
        self.dispatch()
        if in_greenlet():
            await_(self.worker.settled())
            self.ledger.dispose()  # what was opened meanwhile for those who waited
            self.dispatch()

    def abandon_all(self) -> None:
        """Drop every connection: their loop is gone or not running."""
        for record in list(self._records.values()):
            with contextlib.suppress(Exception):
                self.driver_of(record.known).abandon(self.dialect, record.known)


def _resets_pipelined(driver: Driver, connection: Any, effects: Effect) -> bool:
    # Of who had the driver's own connection it is not known what has to be undone.
    return driver.resets_pipelined and not (
        effects & Effect.DRIVER or driver.is_shared(connection) or driver.is_cancelling(connection)
    )


def _not_to_be_used() -> bool:
    return True


def _is_own(listener: Any) -> bool:
    """Return whether a ``connect`` listener is SQLAlchemy's or ours, and sets nothing there."""
    module: str = getattr(listener, "__module__", None) or ""
    return module.startswith(("sqlalchemy.", "penstock."))
