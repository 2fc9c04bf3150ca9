"""The work of a pool in the background: opening, closing, recovering, and its timers."""

import asyncio
import logging
import math
import weakref
from collections.abc import Coroutine
from contextvars import Context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool.base import PoolResetState
from sqlalchemy.util import greenlet_spawn

from penstock.drivers.effects import Effect
from penstock.pool.errors import (
    ConnectFailed,
    FailureReason,
    clear_traceback,
    is_refused,
    is_transient,
)
from penstock.pool.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRecovered,
    OpeningFailed,
)
from penstock.pool.housekeeper import INTERVAL, Housekeeper
from penstock.pool.leaks import report_leaks
from penstock.pool.ledger import Check, Close, Open
from penstock.pool.liveness import abandon, retrieve_exception, shut, wait_done
from penstock.pool.queue import Waiter
from penstock.pool.record import Record
from penstock.pool.slot import RECOVERING, CloseReason, Slot

if TYPE_CHECKING:
    from penstock.pool.runtime import PoolRuntime

__all__ = ["ConnectionWorker", "Timers"]

_logger = logging.getLogger("penstock.pool")

RECOVER_TIMEOUT = 5.0
"""Seconds for the server to acknowledge a cancelled query and roll back; then it is closed."""
PREPARE_TIMEOUT = 5.0
"""Seconds for preparing a replacement's statements; what is not done then is left."""

_BROKEN = (CloseReason.DEAD, CloseReason.INVALID, CloseReason.LOST)


class ConnectionWorker:
    """Carries out one pool's orders on its event loop, and tells the ledger what became of them.

    Args:
        runtime: Who looks after the pool.
    """

    def __init__(self, runtime: "PoolRuntime") -> None:
        self._runtime = runtime
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._spare: list[Record] = []
        """Records that lost their connection: the next one takes over their ``record_info``."""

    def dispatch(self) -> None:
        """Start the work on every order that the ledger has given."""
        actions = self._runtime.ledger.actions
        while actions:
            match actions.popleft():
                case Open(slot):
                    task = self.start(self._open(slot), "connect")
                    self._connecting.add(task)
                    task.add_done_callback(self._connecting.discard)
                case Close(slot, why):
                    self.start(self._close(slot, why), "close")
                case Check(slot):
                    self.start(self._runtime.pinger.check(slot), "ping")

    async def settled(self) -> None:
        """Wait until nothing is being closed, recovered or pinged."""
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

    def tear_down(self, record: Record, connection: Any, *, recover: bool) -> None:
        """Close or recover a connection that was taken from its holder.

        Its slot counts until the server is known to be rid of it, or at rest.
        """
        if not recover:
            record.repair = self.start(self._drop(record, connection), "close")
            return
        # What undoes the holder's execution options; the record's return would throw it away.
        undo = list(reversed(record.finalize_callback))
        record.finalize_callback.clear()
        record.repair = self.start(self._recover(record, connection, undo), "recover")

    def start(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Do something in a task of its own, which is named in tracebacks and debuggers."""
        task = self._runtime.loop.create_task(work, name=f"penstock pool: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open(self, slot: Slot) -> None:
        record = self._spare.pop() if self._spare else Record(self._runtime)
        slot.content, record.slot = record, slot
        began = monotonic()
        try:
            await self.connect(record)
            if slot.replaces is not None:
                await self._prepare(record, slot.replaces.content)
        except asyncio.CancelledError as error:
            clear_traceback(error)
            self._failed_to_open(slot, began, ConnectFailed("the attempt to connect was cancelled"))
            raise
        except BaseException as error:  # noqa: BLE001 - whoever waits for the connection raises it
            self._failed_to_open(slot, began, error)
            return
        now = monotonic()
        if self._runtime.listeners.are_there:
            self._runtime.listeners.tell(ConnectionOpened(now - began, slot.for_housekeeping))
        self._runtime.ledger.opened(slot, now)
        self._runtime.dispatch()

    async def connect(self, record: Record) -> None:
        """Open the record's connection within ``connect_timeout``.

        Raises:
            ConnectFailed: It took longer.
            Exception: What the driver raised.
        """
        limit = asyncio.timeout(self._runtime.policy.connect_timeout)
        try:
            async with limit:
                await greenlet_spawn(record.connect)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ConnectFailed(
                f"{self._runtime.pool.name} opened no connection within "
                f"connect_timeout={self._runtime.policy.connect_timeout:g} s",
                FailureReason.TIMEOUT,
            ) from error
        record.reads_only = False
        self._runtime.know(record, record.dbapi_connection)

    def _failed_to_open(self, slot: Slot, began: float, error: BaseException) -> None:
        clear_traceback(error)
        try:
            self._throw_away(slot.content)
        except Exception:
            _logger.debug("What a failed connect has left cannot be cleaned up", exc_info=True)
        now = monotonic()
        if self._runtime.listeners.are_there:
            self._runtime.listeners.tell(OpeningFailed(now - began, error))
        self._runtime.ledger.failed(
            slot, now, error, refused=is_refused(error), transient=is_transient(error)
        )
        self._runtime.dispatch()
        if self._runtime.ledger.waiters:
            self._runtime.timers.retry_in_time()

    def _throw_away(self, record: Record) -> None:
        if (connection := record.dbapi_connection) is not None:
            record.dbapi_connection = None
            abandon(self._runtime, connection)
            self._runtime.forget(record)
        self._spare.append(record)

    async def _prepare(self, record: Record, old: Record) -> None:
        runtime, connection = self._runtime, record.dbapi_connection
        if old.dbapi_connection is None:
            return
        prepare = runtime.driver_of(connection).prepare
        try:
            statements = runtime.driver_of(old.dbapi_connection).statements(old.dbapi_connection)
            async with asyncio.timeout(PREPARE_TIMEOUT):
                await greenlet_spawn(prepare, runtime.dialect, connection, statements)
        except Exception:
            _logger.debug("Not every statement was prepared on a new connection", exc_info=True)

    async def _close(self, slot: Slot, why: CloseReason) -> None:
        record: Record = slot.content
        connection = record.dbapi_connection
        self._runtime.forget(record)
        self._runtime.pool.logger.info("Connection %r is closed: %s", connection, why)
        try:
            await shut(self._runtime, connection, partial(record.shut, terminate=why in _BROKEN))
        finally:
            record.dbapi_connection = None
            self.vacate(slot, why)

    async def _drop(self, record: Record, connection: Any) -> None:
        """Close what is no longer the record's."""
        try:
            await shut(self._runtime, connection, partial(self._runtime.pool.close_now, connection))
        finally:
            record.repair = False
            if record.slot.state is RECOVERING:
                self.vacate(record.slot, CloseReason.INVALID)

    def vacate(self, slot: Slot, why: CloseReason) -> None:
        """Give the slot back, whose connection is closed or has gone elsewhere."""
        now = monotonic()
        if not slot.content.is_orphan:
            self._spare.append(slot.content)
        if self._runtime.listeners.are_there:
            self._runtime.listeners.tell(ConnectionClosed(why, now - slot.opened_at))
        self._runtime.ledger.vacate(slot, now)
        self._runtime.dispatch()

    async def _recover(self, record: Record, connection: Any, undo: list[Any]) -> None:
        began = monotonic()
        try:
            is_well = await self._cleaned(record, connection, undo)
            if is_well:
                self._runtime.know(record, connection)
        except Exception:
            _logger.debug("A cancelled connection could not be saved", exc_info=True)
            is_well = False
        except BaseException:
            await self._drop(record, connection)
            raise
        if not is_well:
            self._runtime.forget(record)
            await self._drop(record, connection)
            return
        self._recovered(record, connection, monotonic() - began)

    async def _cleaned(self, record: Record, connection: Any, undo: list[Any]) -> bool:
        cleaning = self._runtime.loop.create_task(
            greenlet_spawn(self._clean, record, connection, undo, record.trace.effects)
        )
        cleaning.add_done_callback(retrieve_exception)
        try:
            if await wait_done(cleaning, RECOVER_TIMEOUT):
                return cleaning.result()
            _logger.debug("A server did not acknowledge a cancellation in %g s", RECOVER_TIMEOUT)
        finally:
            cleaning.cancel()
        await asyncio.wait({cleaning})  # for a driver asks the server to cancel that, too
        return False

    def _clean(self, record: Record, connection: Any, undo: list[Any], effects: Effect) -> bool:
        runtime, driver = self._runtime, self._runtime.driver_of(connection)
        if effects & Effect.LASTING or not driver.recover(connection):
            return False
        if not runtime.is_equipped():
            if not driver.reset(connection):
                return False
        elif effects:
            return False
        elif record.reads_only:
            driver.set_read_only(connection, to_reading=False)
        record.reads_only = False
        for step in undo:
            step(connection)
        if runtime.pool.dispatch.reset:
            state = PoolResetState(
                transaction_was_reset=False, terminate_only=False, asyncio_safe=True
            )
            runtime.pool.dispatch.reset(connection, record, state)
            runtime.dialect.do_rollback(connection)
        return True

    def _recovered(self, record: Record, connection: Any, seconds: float) -> None:
        runtime = self._runtime
        record.repair = False
        if runtime.listeners.are_there:
            runtime.listeners.tell(ConnectionRecovered(seconds))
        if record.slot.state is RECOVERING:
            record.dbapi_connection = connection
            runtime.ledger.restore(record.slot, monotonic())
            self._runtime.dispatch()
        else:
            record.repaired = connection


TICK_INTERVAL = INTERVAL
"""Seconds between two looks at what housekeeping is due, at most, while there is anything to look
after."""
EXPIRE_EVERY = 0.01
"""Seconds between two looks at whose deadline has passed, at least: so late may be who is told,
and so little does it cost where thousands wait."""


class Timers:
    """The timers of one pool; they run in no request's context.

    Args:
        runtime: Who looks after the pool.
        housekeeper: What is due.
    """

    def __init__(self, runtime: "PoolRuntime", housekeeper: Housekeeper) -> None:
        self._runtime = runtime
        self._housekeeper = housekeeper
        self._tick_timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._heartbeat_interval = runtime.policy.admission.heartbeat_interval
        self._expires_at = math.inf

    def wake(self) -> None:
        """See to it that housekeeping is looked at regularly."""
        self._housekeeper.resting = self._runtime.ledger.closed
        self._set()

    def _set(self) -> None:
        if self._tick_timer is None:
            self._tick_timer = self._runtime.loop.call_later(
                min(TICK_INTERVAL, self._housekeeper.interval()),
                _tick,
                weakref.ref(self),
                context=Context(),
            )

    def tick(self) -> None:
        """Do what is due, and come again while there is anything to look after."""
        self._tick_timer = None
        runtime, now = self._runtime, monotonic()
        try:
            runtime.retire_dead()
            self._housekeeper.run(now)
            report_leaks(runtime, now)
            runtime.dispatch()
        finally:
            fills = runtime.policy.min_idle and not self._housekeeper.resting
            if runtime.ledger.open or runtime.ledger.waiters or fills:
                self._set()

    def answer_in_time(self, waiter: Waiter, now: float) -> None:
        """See to it that somebody who has queued up is answered by its deadline.

        There is one timer for all who wait: most are served before, and one for each would cost
        more than the queue itself.
        """
        self._retry_in_time(now)
        self._beat_later()
        if waiter.deadline < self._expires_at:
            self._expire_at(waiter.deadline, now)

    def _beat_later(self) -> None:
        if self._heartbeat_timer is None:
            self._heartbeat_timer = self._runtime.loop.call_later(
                self._heartbeat_interval, _beat, weakref.ref(self), context=Context()
            )

    def beat(self) -> None:
        """Report that the event loop runs, and come again while anybody waits."""
        self._heartbeat_timer = None
        waiters = self._runtime.ledger.waiters
        if waiters:
            waiters.heartbeat(monotonic())
            self._beat_later()

    def _expire_at(self, when: float, now: float) -> None:
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        self._expires_at = when
        self._expiry_timer = self._runtime.loop.call_later(
            when - now, _expire, weakref.ref(self), context=Context()
        )

    def expire(self) -> None:
        """Answer all whose deadline has passed, and come again for the next."""
        ledger, now = self._runtime.ledger, monotonic()
        self._expiry_timer, self._expires_at = None, math.inf
        for waiter in [each for each in ledger.waiters.queue if each.deadline <= now]:
            ledger.expire(waiter)
        following = min((each.deadline for each in ledger.waiters.queue), default=math.inf)
        if following < math.inf:
            self._expire_at(max(following, now + EXPIRE_EVERY), now)

    def retry_in_time(self) -> None:
        """See to it that those who wait are served when the next attempt to connect may be made."""
        self._retry_in_time(monotonic())

    def _retry_in_time(self, now: float) -> None:
        delay = self._runtime.ledger.backoff.until - now
        if delay > 0 and self._retry_timer is None:
            self._retry_timer = self._runtime.loop.call_later(delay, self._retry, context=Context())

    def _retry(self) -> None:
        self._retry_timer = None
        self._runtime.ledger.open_for_waiters(monotonic())
        self._runtime.dispatch()
        if self._runtime.ledger.waiters:
            self.retry_in_time()


# Only these timers are left when nobody uses the pool any more: they must not keep it alive.


def _tick(timers: "weakref.ref[Timers]") -> None:
    if (living := timers()) is not None:
        living.tick()


def _beat(timers: "weakref.ref[Timers]") -> None:
    if (living := timers()) is not None:
        living.beat()


def _expire(timers: "weakref.ref[Timers]") -> None:
    if (living := timers()) is not None:
        living.expire()
