"""What a pool has on one event loop, and which event loop that is."""

import asyncio
import contextlib
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from random import Random
from threading import RLock, get_ident
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from penstock.drivers.driver import Driver, Trace
from penstock.pool.checkout import Checkouts
from penstock.pool.errors import LeaseReclaimed, PoolInAnotherLoop, name_of
from penstock.pool.events import Listeners, PoolSnapshot
from penstock.pool.housekeeper import INTERVAL, Housekeeper, HousekeeperPolicy
from penstock.pool.leak import LeakDetector
from penstock.pool.ledger import Ledger, unlimited
from penstock.pool.policy import PoolPolicy
from penstock.pool.queue import Rejection, RejectReason
from penstock.pool.record import ConnectionRegistry, Lease, Record
from penstock.pool.slot import (
    CHECKED_OUT,
    CHECKING,
    IDLE,
    Backoff,
    CloseReason,
    Slot,
)
from penstock.pool.worker import ConnectionWorker, Probe

TICK_INTERVAL = INTERVAL
"""Seconds between two runs of the housekeeper, at most, while the pool has connections."""


class PoolRuntime:
    """What a pool has on one event loop: its connections, and what works on them.

    Args:
        pool: SQLAlchemy's side of the pool.
        loop: The event loop of the connections.
    """

    def __init__(self, pool: "LoopBoundPool", loop: asyncio.AbstractEventLoop) -> None:
        self.ledger = ledger = pool.ledger
        policy, listeners = pool.policy, pool.listeners
        dialect: Any = pool._dialect  # noqa: SLF001 - the base class's
        self.listeners = listeners
        self.loop = loop
        self.reclaim_queue: deque[Record] = deque()
        """Records that were returned without a connection. The garbage collector returns them at
        any moment, also within the ledger or in another thread; the event loop drains the queue."""
        self._can_recover_lost: bool = dialect.has_terminate
        self.registry = ConnectionRegistry(dialect, loop)
        self.worker = ConnectionWorker(
            pool,
            loop,
            ledger=ledger,
            policy=policy,
            listeners=listeners,
            registry=self.registry,
            new_record=partial(Record, pool, self),
            close_now=pool.close_now,
        )
        self.housekeeper = Housekeeper(
            ledger, HousekeeperPolicy(policy.min_idle, policy.overflow_idle, policy.keepalive)
        )
        self._tick_timer: asyncio.TimerHandle | None = None
        self.checkouts = Checkouts(
            pool,
            loop,
            snapshot=pool.snapshot,
            ledger=ledger,
            policy=policy,
            listeners=listeners,
            registry=self.registry,
            worker=self.worker,
            evict=self.evict,
        )
        self._leak_detector = LeakDetector(
            ledger,
            policy,
            listeners,
            is_mysql=getattr(dialect, "name", "") in ("mysql", "mariadb"),
            reclaim=self._reclaim_later,
        )

    # What the records need.

    def driver_of(self, connection: Any) -> Driver:
        """Return the driver of a connection, which may be another than the dialect's."""
        return self.registry.driver_of(connection)

    def dispatch(self) -> None:
        """Start the actions that the ledger has queued."""
        self.worker.dispatch()

    def recover(self, record: Record) -> bool:
        """Recover the record's connection in the background; return False if it cannot be."""
        return self.worker.recover(record)

    def reset_session(self, record: Record) -> bool:
        """Undo session state; return whether the record has lost its connection for that."""
        return self.worker.reset_session(record)

    def reconnect(self, record: Record, asked_at: float | None = None) -> Any:
        """Return a new connection for a checked-out record. Runs in a greenlet.

        Args:
            record: Its connection is gone or being closed.
            asked_at: When ``pool_timeout`` began, on ``time.monotonic``; None for now.

        Raises:
            PoolTimeout: No connection was opened within ``pool_timeout``.
            Exception: The driver's error of the last attempt.
        """
        return self.checkouts.reconnect(record, monotonic() if asked_at is None else asked_at)

    def evict(self, record: Record, error: BaseException) -> None:
        """Take back a checked-out record whose connection is broken.

        Args:
            record: Holds the connection.
            error: Why it is broken; after a cancellation it is recovered.
        """
        try:
            record.invalidate(error)
        finally:
            self._take_back(record)
            self.dispatch()

    def returned_without_connection(self, record: Record) -> None:
        """Record a return without a connection, at any moment and from any thread."""
        if not self._can_recover_lost:
            # SQLAlchemy leaves a lost connection to its own finaliser: nothing may refer to it.
            self.registry.unregister(record)
            if not record.repair:
                record.trace = Trace()
        self.reclaim_queue.append(record)
        self.call_soon(self.drain_reclaimed)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task of the pool."""
        self.worker.start(work, "reclaim")

    # Connections that are returned without a release.

    def drain_reclaimed(self) -> None:
        """Take back the records that were returned without a connection."""
        while self.reclaim_queue:
            self._take_back(self.reclaim_queue.popleft())
        self.dispatch()

    def _take_back(self, record: Record) -> None:
        slot = record.slot
        if slot.state is not CHECKED_OUT or slot.content is not record:
            return
        slot.lease = slot.route = None
        if (returned := self.listeners.returned) is not None:
            returned(monotonic() - slot.checked_out_at)
        if record.dbapi_connection is not None:
            self.ledger.close_connection(slot, CloseReason.INVALID)
        elif record.repair:
            self.ledger.recover(slot)
        elif record.recovered is not None:
            record.dbapi_connection, record.recovered = record.recovered, None
            self.ledger.release(slot, monotonic())
        else:
            self.registry.unregister(record)
            self.worker.closed(slot, CloseReason.LOST)

    def _reclaim_later(self, slot: Slot, lease: Lease, why: str) -> None:
        self.in_background(self._reclaim_from(slot, lease, why))

    async def _reclaim_from(self, slot: Slot, lease: Lease, why: str) -> None:
        if slot.lease is lease:  # the slot may have another holder by now
            await self._reclaim(slot, why)

    async def _reclaim(self, slot: Slot, why: str) -> None:
        """Take a connection from its holder, for whom it is closed from now on."""
        if slot.state is CHECKED_OUT:
            slot.content.is_orphan = True
            await greenlet_spawn(self.evict, slot.content, LeaseReclaimed(why))

    def close_later(self, connection: Any) -> bool:
        """Close a connection in the background; return False if it is not registered."""
        record = self.registry.record_of(connection)
        if record is None or self.loop.is_closed():
            return False
        self.registry.unregister(record)
        record.repair = True
        self.call_soon(lambda: self.worker.close_later(record, connection))
        return True

    # Housekeeping.

    def start_housekeeping(self) -> None:
        """Run the housekeeper regularly from now on."""
        self.housekeeper.is_paused = self.ledger.closed
        self._tick_in(TICK_INTERVAL)

    def _tick_in(self, seconds: float) -> None:
        if self._tick_timer is None:
            self._tick_timer = self.loop.call_later(
                seconds, _tick, weakref.ref(self), context=Context()
            )

    def tick(self) -> None:
        """Run what is due, and again later while there are connections or waiters."""
        self._tick_timer = None
        try:
            self._run_jobs(monotonic())
        finally:
            if self.ledger.open or self.ledger.waiters or self.housekeeper.fills:
                self._tick_in(min(TICK_INTERVAL, self.housekeeper.interval()))

    def _run_jobs(self, now: float) -> None:
        self.ledger.evict_idle(lambda slot: not self.registry.is_alive(slot.content))
        self.dispatch()
        self.housekeeper.run(now)
        self._leak_detector.report(now)
        self.dispatch()

    def evict_older_than(self, started: float) -> None:
        """Evict every connection that was opened before the whole pool was invalidated.

        Args:
            started: When it was invalidated, on ``time.time``.
        """
        for slot in list(self.ledger):
            record: Record | None = slot.content
            if (
                slot.state in (IDLE, CHECKED_OUT, CHECKING)
                and record
                and record.starttime < started
            ):
                self.ledger.evict(slot, CloseReason.INVALID)
        self.dispatch()

    def call_soon(self, work: Callable[[], object]) -> None:
        """Call a function soon in the event loop, from any thread; never if that is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(work)

    # The operator.

    async def prefill(self) -> None:
        """Open connections until ``min_idle`` are ready, or an attempt fails."""
        self.start_housekeeping()
        failures = self.ledger.tally.open_failures
        while self.ledger.tally.open_failures == failures:
            self.housekeeper.fill(monotonic())
            if not self.ledger.actions and not self.ledger.opening:
                return
            self.dispatch()
            await self.worker.wait_connected()

    async def drain(self, seconds: float) -> None:
        """Close the pool, wait for its leases, then reclaim those that are left.

        Args:
            seconds: How long leases may last.
        """
        self.housekeeper.is_paused = True
        self.ledger.close()
        self.dispatch()
        try:
            async with asyncio.timeout(seconds):
                await self.worker.all_closed.wait()
        except TimeoutError:
            held = sum(slot.state is CHECKED_OUT for slot in self.ledger)
            _logger.warning(_HELD, seconds, held)
            await self._reclaim_all(f"The pool was drained, and waited for {seconds:g} s.")

    async def _reclaim_all(self, why: str) -> None:
        # Repeated: what was being opened may be checked out meanwhile. Each close is bounded.
        closed = self.worker.all_closed
        while not closed.is_set():
            self.ledger.waiters.reject_all(Rejection(RejectReason.CLOSED))
            self.worker.cancel_connecting()
            for slot in [slot for slot in self.ledger if slot.state is CHECKED_OUT]:
                await self._reclaim(slot, why)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), 0.05)

    def dispose(self) -> None:
        """Close idle connections now, the others on their return; in a greenlet, wait for it."""
        self.housekeeper.is_paused = True
        self.ledger.dispose()
        self.dispatch()
        if in_greenlet():
            await_(self.worker.wait_closed())
            self.ledger.dispose()  # what was opened meanwhile for waiters
            self.dispatch()


def _tick(runtime: "weakref.ref[PoolRuntime]") -> None:
    # The timer must not keep a pool alive to which nothing else refers.
    if (living := runtime()) is not None:
        living.tick()


T = TypeVar("T")

_logger = logging.getLogger("penstock.pool")
_HELD = "The pool was drained for %g s; connections still checked out, which are closed: %d"
_IN_ANOTHER_LOOP = (
    "{} belongs with {} connections to another event loop: await engine.dispose() before that "
    "loop ends, as `async with database` and `with TestClient(app)` do, or make one engine for "
    "each loop"
)


class LoopBoundPool(AsyncAdaptedQueuePool):
    """The part of a pool that binds it to an event loop and a process."""

    policy: PoolPolicy
    uses_lifo: bool

    def _set_up(self, pool_size: int, max_overflow: int) -> None:
        self.listeners = Listeners()
        self.age_limit: Callable[[], float] = unlimited
        self._new_ledger(pool_size, max_overflow)
        self._runtime: PoolRuntime | None = None
        """None until the pool is bound to an event loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._binding = RLock()
        """Held while the pool is bound: two threads may try at the same time."""
        self._thread: int | None = None
        """The thread of the loop: to compare it costs less than to ask for the running loop."""
        self._reclaim_queue: deque[Record] = deque()
        """The runtime's: records that were returned without a connection."""
        self._process = os.getpid()
        self._inherited: list[Ledger] = []
        """Ledgers of the parent process, kept so that its sockets are not closed here."""
        self._is_disposed = False
        self._suspended_before: LoopBoundPool | None = None
        """The suspended pool that this one has replaced: both are resumed together."""
        _POOLS.add(self)

    def _replace(self, pool: "LoopBoundPool") -> None:
        """Replace another pool, which only serves the callers that wait for it."""
        if pool.ledger.suspended:
            self.ledger.suspend()
            self._suspended_before = pool
        pool._in_loop(pool.ledger.shut_down)  # noqa: SLF001 - of the same class

    def _resume(self) -> None:
        self.ledger.resume(monotonic())
        self._dispatch()
        if (before := self._suspended_before) is not None:
            self._suspended_before = None
            before._resume()  # noqa: SLF001 - of the same class

    def _new_ledger(self, size: int, overflow: int) -> None:
        random = Random()  # noqa: S311 - jitter, no secret
        self.ledger = Ledger(
            size,
            overflow,
            recycle=self._recycle,
            random=random,
            backoff=Backoff(random, self._timeout),
            admission=self.policy.admission,
            lifo=self.uses_lifo,
            connects_at_once=self.policy.connects_at_once,
            age_limit=self.age_limit,
        )
        # Looked up once: each lease needs them.
        self._acquire, self._release = self.ledger.acquire, self.ledger.release
        self._actions = self.ledger.actions

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        if self._runtime is None or not self._runtime.close_later(connection):
            self.close_now(connection, terminate=terminate)

    def close_now(self, connection: Any, *, terminate: bool = True) -> None:
        """Close a connection at once, as SQLAlchemy does. Runs in a greenlet.

        Args:
            connection: SQLAlchemy's adapter around the driver's connection.
            terminate: Whether the socket is dropped without a message to the server.
        """
        super()._close_connection(connection, terminate=terminate)

    async def run_probe(self, probe: Probe[T], seconds: float) -> T | None:
        """Run a probe on an idle connection, which is not checked out for it.

        Args:
            probe: Given the driver's connection; if it raises, that connection is closed.
            seconds: The timeout.

        Returns:
            Its answer; None where no connection was idle.
        """
        if not self._is_bound():
            return None
        return await self._bound_runtime.worker.run_probe(probe, seconds)

    @property
    def _bound_runtime(self) -> PoolRuntime:
        if self._runtime is None:
            self.bind_to_loop()
        assert self._runtime is not None  # noqa: S101 - just made
        return self._runtime

    def leave_to_parent(self) -> None:
        """Record that this process was forked: the open connections belong to its parent."""
        self._thread = None
        self._binding = RLock()  # another thread of the parent may have held it

    def _is_bound(self) -> bool:
        return get_ident() == self._thread and _running_loop() is self._loop

    def bind_to_loop(self) -> None:
        """Bind the pool to the running event loop, unless it is already.

        Raises:
            PoolInAnotherLoop: It has connections in another loop, or another thread runs its loop.
        """
        with self._binding:
            if not self._is_bound():
                loop = asyncio.get_running_loop()
                self._leave_loop()
                self._join(loop)

    def has_outlived_its_loop(self) -> bool:
        """Return whether the event loop of the pool is closed."""
        return self._loop is not None and self._loop.is_closed()

    def _runs_elsewhere(self) -> bool:
        """Return whether another thread of this process runs the event loop."""
        return self._loop is not None and self._loop.is_running() and self._process == os.getpid()

    def _leave_loop(self) -> None:
        if self._runtime is None or self._loop is None:
            return
        if self._process != os.getpid():
            self._inherited.append(self.ledger)
            self._new_ledger(self.ledger.size, self.ledger.overflow)
        elif self.ledger.open or self._runs_elsewhere():
            raise PoolInAnotherLoop(_IN_ANOTHER_LOOP.format(name_of(self), self.ledger.open))

    def _join(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process = os.getpid()
        self._loop = loop
        self._thread = get_ident()
        self._runtime = runtime = PoolRuntime(self, loop)
        # Looked up once: each lease needs them.
        self._reclaim_queue = runtime.reclaim_queue
        self._socket_monitor = runtime.registry.socket_monitor

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers at this moment, from any thread."""
        return self.ledger.snapshot(self._drain_reclaimed())

    def _drain_reclaimed(self) -> int:
        """Report returns without a connection; return how many another thread has to report."""
        if self._reclaim_queue and self._is_bound():
            self._bound_runtime.drain_reclaimed()
        return len(self._reclaim_queue)

    def _dispatch(self) -> None:
        if self._runtime is not None:
            self._runtime.dispatch()

    def _in_loop(self, work: Callable[[], object]) -> None:
        """Change the ledger: now, or soon in the event loop that another thread runs."""
        if self._runtime is None or self._is_bound() or not self._runs_elsewhere():
            work()
        else:
            self._runtime.call_soon(work)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


# A fork within a task leaves the child in what looks like the parent's task: only the fork knows.
_POOLS: "weakref.WeakSet[LoopBoundPool]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    for pool in list(_POOLS):
        pool.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
