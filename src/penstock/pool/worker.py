"""The background work of a pool: opening, closing, pinging and recovering connections."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import PoolResetState
from sqlalchemy.util import greenlet_spawn

from penstock.drivers.effects import Effect
from penstock.pool.errors import (
    ConnectFailed,
    FailureReason,
    clear_traceback,
    is_refused,
    is_transient,
    name_of,
)
from penstock.pool.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRecovered,
    Listeners,
    OpeningFailed,
    Pinged,
    PoolEvent,
)
from penstock.pool.ledger import Ledger
from penstock.pool.policy import PoolPolicy
from penstock.pool.record import ConnectionRegistry, Record
from penstock.pool.slot import RECOVERING, Close, CloseReason, Open, Ping, Slot

_logger = logging.getLogger("penstock.pool")

RECOVER_TIMEOUT = 5.0
"""Seconds for the server to acknowledge a cancelled query and roll back; then the connection is
closed."""

SLICES = 5
"""Parts of a timeout."""

_BROKEN = (CloseReason.DEAD, CloseReason.INVALID, CloseReason.LOST)


async def wait_done(task: "asyncio.Task[Any]", seconds: float) -> bool:
    """Wait until a task is done; return whether it is.

    While the event loop is blocked by a handler, or paused with its machine, an answer may have
    arrived that was not read. So the time is taken in slices: a stall of any length uses up one.

    Args:
        task: The task, which is not cancelled.
        seconds: The timeout, while the loop runs.
    """
    for _ in range(SLICES):
        done, _ = await asyncio.wait({task}, timeout=seconds / SLICES)
        if done:
            return True
    return False


def retrieve_exception(task: "asyncio.Task[Any]") -> None:
    """Retrieve the exception of a task that is no longer awaited, so that asyncio does not warn."""
    if not task.cancelled():
        task.exception()


T = TypeVar("T")
Probe = Callable[[Any], Awaitable[T]]
"""Queries the server; given the driver's connection."""


class ConnectionWorker:
    """Carries out the ledger's actions on the event loop, and reports their results to the ledger.

    Args:
        pool: SQLAlchemy's side of the pool: its name, log and event listeners.
        loop: The event loop of the connections.
        ledger: Gives the actions.
        policy: Has the timeouts.
        listeners: Are notified of each result.
        registry: The open connections.
        new_record: Makes a record for a new connection.
        close_now: Closes a connection as SQLAlchemy does. Runs in a greenlet.

    Attributes:
        all_closed: Set once the pool is closed and holds no connection any more.
    """

    def __init__(
        self,
        pool: Pool,
        loop: asyncio.AbstractEventLoop,
        *,
        ledger: Ledger,
        policy: PoolPolicy,
        listeners: Listeners,
        registry: ConnectionRegistry,
        new_record: Callable[[], Record],
        close_now: Callable[[Any], None],
    ) -> None:
        self._pool = pool
        self._loop = loop
        self._ledger = ledger
        self._listeners = listeners
        self._registry = registry
        self._new_record = new_record
        self._close_now = close_now
        self._connect_timeout = policy.connect_timeout
        self._ping_timeout = policy.ping_timeout
        self.all_closed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._unused: list[Record] = []
        """Records without a connection: the next connection takes over their ``record_info``."""

    def dispatch(self) -> None:
        """Start the actions that the ledger has queued."""
        actions = self._ledger.actions
        while actions:
            match actions.popleft():
                case Open(slot):
                    task = self.start(self._open(slot), "connect")
                    self._connecting.add(task)
                    task.add_done_callback(self._connecting.discard)
                case Close(slot, why):
                    self.start(self._close(slot, why), "close")
                case Ping(slot):
                    self.start(self._check(slot), "ping")
        if self._ledger.closed and not self._ledger.open:
            self.all_closed.set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run a coroutine in a task of the pool.

        Args:
            work: The coroutine.
            name: Names the task in tracebacks and debuggers.
        """
        task = self._loop.create_task(work, name=f"penstock pool: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait_closed(self) -> None:
        """Wait until no connection is being closed, recovered or pinged."""
        await asyncio.sleep(0)  # what was handed to the loop a moment ago begins first
        while tasks := self._tasks - self._connecting:
            await asyncio.wait(tasks)

    async def wait_connected(self) -> None:
        """Wait until no connection is being opened."""
        while self._connecting:
            await asyncio.wait(set(self._connecting))

    def cancel_connecting(self) -> None:
        """Cancel the attempts to connect that are under way."""
        for task in self._connecting:
            if not task.cancelling():
                task.cancel()

    # Opening.

    async def _open(self, slot: Slot) -> None:
        record = self._unused.pop() if self._unused else self._new_record()
        slot.content, record.slot = record, slot
        began = monotonic()
        try:
            await self.connect(record)
            if slot.replaces is not None:
                await self._registry.prepare(record, slot.replaces.content)
        except asyncio.CancelledError as error:
            clear_traceback(error)
            self._open_failed(slot, began, ConnectFailed("the attempt to connect was cancelled"))
            raise
        except BaseException as error:  # noqa: BLE001 - the waiter raises it
            self._open_failed(slot, began, error)
            return
        now = monotonic()
        self._notify(ConnectionOpened(now - began, slot.for_housekeeping))
        self._ledger.opened(slot, now)
        self.dispatch()

    async def connect(self, record: Record) -> None:
        """Open the record's connection within ``connect_timeout``.

        Args:
            record: Has no connection.

        Raises:
            ConnectFailed: The attempt timed out.
            Exception: The driver's error.
        """
        limit = asyncio.timeout(self._connect_timeout)
        try:
            async with limit:
                await greenlet_spawn(record.connect)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ConnectFailed(
                f"{name_of(self._pool)} opened no connection within "
                f"connect_timeout={self._connect_timeout:g} s",
                FailureReason.TIMEOUT,
            ) from error
        record.reads_only = False
        self._registry.register(record, record.dbapi_connection)

    def _open_failed(self, slot: Slot, began: float, error: BaseException) -> None:
        clear_traceback(error)
        try:
            self._abandon(slot.content)
        except Exception:
            _logger.debug("What a failed connect has left was not cleaned up", exc_info=True)
        now = monotonic()
        self._notify(OpeningFailed(now - began, error))
        self._ledger.failed(
            slot, now, error, refused=is_refused(error), transient=is_transient(error)
        )
        self.dispatch()
        if self._ledger.waiters:
            self.retry_later(now)

    def _abandon(self, record: Record) -> None:
        if (connection := record.dbapi_connection) is not None:
            record.dbapi_connection = None
            self._registry.abandon(connection)
            self._registry.unregister(record)
        self._unused.append(record)

    def retry_later(self, now: float) -> None:
        """Open connections for the waiters once the backoff allows it."""
        delay = self._ledger.backoff.until - now
        if delay > 0 and self._retry_timer is None:
            self._retry_timer = self._loop.call_later(delay, self._retry, context=Context())

    def _retry(self) -> None:
        self._retry_timer = None
        now = monotonic()
        self._ledger.open_for_waiters(now)
        self.dispatch()
        if self._ledger.waiters:
            self.retry_later(now)

    # Closing.

    async def _close(self, slot: Slot, why: CloseReason) -> None:
        record: Record = slot.content
        connection = record.dbapi_connection
        self._registry.unregister(record)
        self._pool.logger.info("Connection %r is being closed: %s", connection, why)
        try:
            await self._registry.close(connection, partial(record.shut, terminate=why in _BROKEN))
        finally:
            record.dbapi_connection = None
            self.closed(slot, why)

    def close_later(self, record: Record, connection: Any) -> None:
        """Close a connection that was taken from its record; the slot counts until it is closed."""
        record.repair = self.start(self._drop(record, connection), "close")

    async def _drop(self, record: Record, connection: Any) -> None:
        try:
            await self._registry.close(connection, partial(self._close_now, connection))
        finally:
            record.repair = False
            if record.slot.state is RECOVERING:
                self.closed(record.slot, CloseReason.INVALID)

    def closed(self, slot: Slot, why: CloseReason) -> None:
        """Free a slot whose connection is closed or no longer the pool's."""
        now = monotonic()
        if not slot.content.is_orphan:
            self._unused.append(slot.content)
        self._notify(ConnectionClosed(why, now - slot.opened_at))
        self._ledger.remove(slot, now)
        self.dispatch()

    # Pinging.

    async def run_probe(self, probe: Probe[T], seconds: float) -> T | None:
        """Run a probe on an idle connection, which is not checked out for it.

        Args:
            probe: Given the driver's connection; if it raises, that connection is closed.
            seconds: The timeout.

        Returns:
            Its answer; None where no connection was idle.
        """
        if (slot := self._ledger.take_idle()) is None:
            return None
        is_alive = False
        try:
            async with asyncio.timeout(seconds):
                answer = await probe(slot.content.dbapi_connection)
            is_alive = self._registry.is_alive(slot.content)
        finally:
            self._checked(slot, is_alive=is_alive)
        return answer

    async def _check(self, slot: Slot) -> None:
        is_alive = False
        try:
            is_alive = await self.ping(slot.content, self._ping_timeout)
        except Exception:
            _logger.debug("A ping failed", exc_info=True)
        finally:
            self._checked(slot, is_alive=is_alive)

    def _checked(self, slot: Slot, *, is_alive: bool) -> None:
        if is_alive:
            self._ledger.restore(slot, monotonic())
        else:
            self._ledger.close_connection(slot, CloseReason.DEAD)
        self.dispatch()

    async def ping(self, record: Record, seconds: float) -> bool:
        """Make one round trip.

        Args:
            record: Holds the connection.
            seconds: The timeout.

        Returns:
            Whether the server answered in time.
        """
        began = monotonic()
        is_alive = await self._answers(record.dbapi_connection, seconds)
        self._notify(Pinged(monotonic() - began, is_alive))
        return is_alive

    async def _answers(self, connection: Any, seconds: float) -> bool:
        registry = self._registry
        driver = registry.driver_of(connection)
        ping = self._loop.create_task(greenlet_spawn(driver.ping, registry.dialect, connection))
        ping.add_done_callback(retrieve_exception)
        try:
            answered = await wait_done(ping, seconds)
        except BaseException:
            ping.cancel()
            raise
        if answered:
            with suppress(TimeoutError):  # the driver's own limit, where that is shorter
                return ping.result()
        # First: a cancelled driver would ask the silent server to cancel the ping, and wait.
        registry.abandon(connection)
        ping.cancel()
        return False

    # Recovering after a cancellation, and resetting session state.

    def recover(self, record: Record) -> bool:
        """Recover the record's connection in the background.

        Args:
            record: Holds the connection; its slot counts until the connection is idle or closed.

        Returns:
            False where it cannot be recovered.
        """
        connection, registry = record.dbapi_connection, self._registry
        if record.registered is not connection or not registry.is_alive(record):
            return False
        if not registry.driver_of(connection).can_recover:
            return False
        registry.unregister(record)
        # These undo the holder's execution options; the record's return would drop them.
        undo = list(reversed(record.finalize_callback))
        record.finalize_callback.clear()
        record.repair = self.start(self._recover(record, connection, undo), "recover")
        return True

    async def _recover(self, record: Record, connection: Any, undo: list[Any]) -> None:
        began = monotonic()
        try:
            is_clean = await self._cleaned(record, connection, undo)
            if is_clean:
                self._registry.register(record, connection)
        except Exception:
            _logger.debug("A connection was not recovered after a cancellation", exc_info=True)
            is_clean = False
        except BaseException:
            await self._drop(record, connection)
            raise
        if not is_clean:
            self._registry.unregister(record)
            await self._drop(record, connection)
            return
        self._recovered(record, connection, monotonic() - began)

    async def _cleaned(self, record: Record, connection: Any, undo: list[Any]) -> bool:
        cleaning = self._loop.create_task(
            greenlet_spawn(self._clean, record, connection, undo, record.trace.effects)
        )
        cleaning.add_done_callback(retrieve_exception)
        try:
            if await wait_done(cleaning, RECOVER_TIMEOUT):
                return cleaning.result()
            _logger.debug("The server did not acknowledge a cancel in %g s", RECOVER_TIMEOUT)
        finally:
            cleaning.cancel()
        await asyncio.wait({cleaning})  # a driver asks the server to cancel that as well
        return False

    def _clean(self, record: Record, connection: Any, undo: list[Any], effects: Effect) -> bool:
        driver, dialect = self._registry.driver_of(connection), self._registry.dialect
        if effects & Effect.LASTING or not driver.recover(connection):
            return False
        is_as_at_first = driver.is_as_at_first(connection, effects)
        if is_as_at_first is not None:
            if not is_as_at_first:
                return False
        elif not self._has_connect_listeners():
            if not driver.reset(connection):
                return False
        elif effects:
            return False
        elif record.reads_only:
            driver.set_read_only(connection, to_reading=False)
        record.reads_only = False
        for step in undo:
            step(connection)
        if self._pool.dispatch.reset:
            state = PoolResetState(
                transaction_was_reset=False, terminate_only=False, asyncio_safe=True
            )
            self._pool.dispatch.reset(connection, record, state)
            dialect.do_rollback(connection)
        return True

    def _recovered(self, record: Record, connection: Any, seconds: float) -> None:
        record.repair = False
        self._notify(ConnectionRecovered(seconds))
        if record.slot.state is RECOVERING:
            record.dbapi_connection = connection
            self._ledger.restore(record.slot, monotonic())
            self.dispatch()
        else:
            record.recovered = connection

    def reset_session(self, record: Record) -> bool:
        """Undo what a lease has left in the server's session, before the next lease.

        Args:
            record: Returns from the lease.

        Returns:
            Whether the connection was taken from the record because the reset takes a round trip.
        """
        connection = record.dbapi_connection
        driver = self._registry.driver_of(connection)
        effects = driver.take_effects(connection)
        leaves_open = driver.is_in_transaction(connection)
        if not leaves_open and not effects & (Effect.SESSION | Effect.LASTING):
            return False
        is_as_at_first = driver.is_as_at_first(connection, effects)
        if is_as_at_first and not leaves_open:
            return False
        is_lost = leaves_open or effects & Effect.LASTING or is_as_at_first is False
        if is_lost or self._has_connect_listeners():
            self._ledger.evict(record.slot, CloseReason.STATE)
        elif driver.may_reset_pipelined(connection, effects):
            driver.reset_pipelined(connection)
            record.reads_only = False
        elif self.recover(record):
            record.dbapi_connection = None
            return True
        else:
            self._ledger.evict(record.slot, CloseReason.STATE)
        return False

    def _has_connect_listeners(self) -> bool:
        """Return whether a ``connect`` listener of others may have set what a reset would undo."""
        modules = (getattr(each, "__module__", None) or "" for each in self._pool.dispatch.connect)
        return not all(module.startswith(("sqlalchemy.", "penstock.")) for module in modules)

    def _notify(self, event: PoolEvent) -> None:
        if self._listeners.active:
            self._listeners.notify(event)
