"""The connection pool, as SQLAlchemy calls it."""

import asyncio
from asyncio import current_task
from collections.abc import Callable, Coroutine
from threading import get_ident
from time import monotonic, time
from typing import Any, Self

from sqlalchemy import Engine
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool, PoolProxiedConnection
from sqlalchemy.pool.base import reset_none
from sqlalchemy.util import await_

from penstock.drivers.capabilities import driver_of
from penstock.pool.checkout import CheckoutLimits
from penstock.pool.errors import name_of
from penstock.pool.policy import (
    PoolPolicy,
    boolean,
    check_size,
    check_times,
    from_text,
    nested_checkout_policy,
)
from penstock.pool.record import POLL_INTERVAL, Lease, Record, current_holder, current_route
from penstock.pool.runtime import LoopBoundPool
from penstock.pool.slot import CHECKED_OUT, Slot


class PenstockPool(LoopBoundPool):
    """A connection pool for ``create_async_engine(url, poolclass=PenstockPool, ...)``.

    It keeps the contract of SQLAlchemy's ``AsyncAdaptedQueuePool``, whose arguments have the same
    meaning here; ``docs/pool.md`` lists the differences. ``create_async_engine`` takes every
    argument as well, SQLAlchemy's with the prefix ``pool_``. All times are in seconds. From
    ``async_engine_from_config`` the values may be texts.

    Args:
        creator: Opens a connection; an engine provides it.
        pool_size: Connections that are kept; 0 for no limit.
        max_overflow: Connections above that; -1 for no limit.
        timeout: Time that a caller waits, connecting included; None for no limit, 0 for no wait.
        use_lifo: Whether the connection released last is checked out first.
        min_idle: Connections that are kept ready, up to ``pool_size``.
        max_waiting: Callers that may wait at once; None for no limit.
        codel_target: Wait that every caller of a ``codel_interval`` has to exceed before waiters
            are shed; None to shed none.
        codel_interval: Time over which the wait is measured.
        overflow_idle: Time after which connections above ``pool_size`` that were not needed are
            closed.
        keepalive: Idleness after which a connection is pinged in the background; 0 for never.
        idle_before_ping: Idleness after which a connection is pinged before it is checked out.
        ping_timeout: Time for the server to answer a ping.
        connect_timeout: Time for each attempt to connect.
        connects_at_once: Connections opened in parallel at most.
        connect_retry: Seconds for which a failed connect is tried again for a caller that waits;
            None for as long as it waits.
        leak_after: Time after which a lease is reported as a possible leak; None for never.
        reclaim_leaks: Whether the connection of a reported lease is closed under its holder.
        nested_checkout: What happens to a task that would wait for itself: ``refuse``, ``warn``
            or ``allow``.
        **kw: Arguments of SQLAlchemy's ``Pool``: ``recycle``, ``pre_ping``, ``reset_on_return`` ...

    Raises:
        SettingsError: A value is out of its range.
    """

    def __init__(  # noqa: PLR0917 - SQLAlchemy passes on positional arguments only
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        min_idle: int = 0,
        max_waiting: int | None = None,
        codel_target: float | None = None,
        codel_interval: float = 0.1,
        overflow_idle: float = 60.0,
        keepalive: float = 120.0,
        idle_before_ping: float = 30.0,
        ping_timeout: float = 2.0,
        connect_timeout: float = 60.0,
        connects_at_once: int = 4,
        connect_retry: float | None = None,
        leak_after: float | None = None,
        reclaim_leaks: bool = False,
        nested_checkout: str = "warn",
        **kw: Any,
    ) -> None:
        if "pre_ping" in kw:
            kw["pre_ping"] = boolean("pre_ping", kw["pre_ping"])
        Pool.__init__(self, creator, **kw)
        own: dict[str, Any] = {
            "min_idle": min_idle,
            "max_waiting": max_waiting,
            "codel_target": codel_target,
            "codel_interval": codel_interval,
            "overflow_idle": overflow_idle,
            "keepalive": keepalive,
            "idle_before_ping": idle_before_ping,
            "ping_timeout": ping_timeout,
            "connect_timeout": connect_timeout,
            "connects_at_once": connects_at_once,
            "connect_retry": connect_retry,
            "leak_after": leak_after,
            "reclaim_leaks": reclaim_leaks,
        }
        self.policy = PoolPolicy(
            **{name: from_text(name, value) for name, value in own.items()},
            nested_checkout=nested_checkout_policy(nested_checkout),
        )
        check_size(pool_size, max_overflow)
        check_times(timeout, self._recycle)
        self._timeout = timeout  # type: ignore[assignment]  # None is accepted there, too
        self.uses_lifo = boolean("use_lifo", use_lifo)
        self._set_up(pool_size, max_overflow)
        self._resets = self._reset_on_return is not reset_none
        """Whether session state is reset after each lease; not with ``reset_on_return=None``."""
        invoke = self._invoke_creator
        self._invoke_creator = lambda record: driver_of(self._dialect).adapt(invoke(record))
        self._records_checkouts = self.policy.records_checkouts
        self._ping_after = -1.0 if self._pre_ping else self.policy.idle_before_ping
        """Seconds of idleness after which a connection is pinged before it is checked out."""

    _sqla_logger_namespace = "sqlalchemy.pool.PenstockPool"
    """A child of the logger whose level SQLAlchemy's documentation sets."""

    @classmethod
    def of(cls, engine: AsyncEngine | Engine) -> Self:
        """Return the pool of an engine, with its type.

        Args:
            engine: An engine made with ``poolclass=PenstockPool``, or a database's.

        Raises:
            TypeError: It has another pool.
        """
        pool = engine.pool
        if not isinstance(pool, cls):
            raise TypeError(f"{engine!r} has a {type(pool).__name__}, not a {cls.__name__}")
        return pool

    # Called by SQLAlchemy.

    def connect(self) -> PoolProxiedConnection:
        """Check out a connection; its ``close()`` releases it. Runs in a greenlet."""
        if self.dispatch.checkout or self._pre_ping:
            lease: Any = super().connect()
        else:
            lease = Record.checkout(self)  # as the base class does, without its events
            lease._counter = 1  # noqa: SLF001 - the base class's
        record = lease._connection_record  # noqa: SLF001 - the base class's
        if record.reads_only:
            record.set_read_only(to_reading=False)
        return lease  # type: ignore[no-any-return]  # the base class's

    def checkout(
        self, *, records_checkout: bool = True, asked_at: float | None = None
    ) -> "Record | Coroutine[Any, Any, Record]":
        """Check out a connection without a greenlet and without SQLAlchemy's pool events.

        :meth:`release` returns it. Where :meth:`has_checkout_listeners`, use :meth:`connect`.

        Args:
            records_checkout: Whether it is reported as a leak after ``leak_after``; False for a
                single statement.
            asked_at: When the caller asked for a connection that was broken, on
                ``time.monotonic``; None otherwise. The caller waits in front of all, and
                ``pool_timeout`` counts from then.

        Returns:
            The connection's record, or an awaitable of it where no connection was idle.

        Raises:
            PoolTimeout: No connection came within ``pool_timeout``; raised by the awaitable.
            PoolClosed: The pool is closed; raised by the awaitable.
            Exception: The driver's error of a failed connect; raised by the awaitable.
        """
        return self._do_get(_unawaited, records_checkout, asked_at)

    def evict_all(self, *, opened_before: float | None = None) -> None:
        """Evict every connection that is open now, as the server is ending them.

        Args:
            opened_before: Seconds since the epoch, to evict the older ones only; None for all.
        """
        self._bound_runtime.evict_older_than(time() if opened_before is None else opened_before)

    def limit_age(self, limit: Callable[[], float]) -> None:
        """Limit the age of connections besides ``pool_recycle``.

        Args:
            limit: Asked for each new connection how long it is used at most, in seconds; ``inf``
                for no limit.
        """
        self.age_limit = self.ledger.age_limit = limit

    @property
    def in_flight(self) -> int:
        """Connections in use, and callers in line for one."""
        ledger = self.ledger
        return ledger.open - ledger.idle + len(ledger.waiters.queue)

    def has_checkout_listeners(self) -> bool:
        """Return whether a listener is registered for SQLAlchemy's checkout, checkin or reset."""
        events = self.dispatch
        return bool(events.checkout or events.checkin or events.reset)

    def _do_get(
        self,
        wait: Callable[[Coroutine[Any, Any, Record]], Any] = await_,
        records_checkout: bool = True,
        asked_at: float | None = None,
    ) -> Record:
        task = current_task(self._loop)
        if task is None or get_ident() != self._thread:
            self.bind_to_loop()
            task = current_task(self._loop)
        if self._reclaim_queue:
            self._bound_runtime.drain_reclaimed()
        now = monotonic()
        slot = self._acquire(now)
        if slot is not None:
            record: Record = slot.content
            socket_monitor = self._socket_monitor
            if now - socket_monitor.polled_at > POLL_INTERVAL:
                socket_monitor.poll(now)
            is_fresh = now - slot.since < self._ping_after
            if is_fresh and not record.peer_closed and not record.is_closed():
                slot.lease = (
                    Lease(task, record.info)
                    if self._records_checkouts and records_checkout
                    else task
                )
                holder = current_holder.get()
                slot.route = None if holder is None else holder.route
                if self.listeners.all:
                    self.listeners.checked_out_at_once()
                return record
        try:
            limits = self._bound_runtime.checkouts.limits(now, asked_at)
            return wait(self._get_slowly(slot, limits, task, records_checkout))  # type: ignore[no-any-return]  # above
        except MissingGreenlet:
            if slot is not None and slot.state is CHECKED_OUT:
                self._release(slot, now)
            raise

    async def _get_slowly(
        self,
        slot: Slot | None,
        limits: CheckoutLimits,
        task: "asyncio.Task[Any] | None",
        records_checkout: bool,
    ) -> Record:
        runtime = self._bound_runtime
        runtime.start_housekeeping()
        slot = await runtime.checkouts.slot(slot, limits)
        record: Record = slot.content
        waited = monotonic() - limits.asked_at
        slot.waited_before = (slot.checked_out_at, waited)
        slot.lease = (
            Lease(task, record.info) if self._records_checkouts and records_checkout else task
        )
        slot.route = current_route()
        if self.listeners.active:
            self.listeners.waited(waited)
        return record

    def _do_return_conn(self, record: Record) -> None:  # type: ignore[override]  # all are ours
        if record.dbapi_connection is None:
            record.runtime.returned_without_connection(record)
            return
        trace = record.trace
        trace.lease_options = None
        if trace.effects and self._resets and record.runtime.reset_session(record):
            record.runtime.returned_without_connection(record)
            return
        now = monotonic()
        slot = record.slot
        slot.lease = slot.route = None
        if (returned := self.listeners.returned) is not None:
            returned(now - slot.checked_out_at)
        self._release(slot, now)
        if self._actions:
            record.runtime.dispatch()

    _return_conn = release = _do_return_conn  # type: ignore[assignment]  # all records are ours

    def dispose(self) -> None:
        """Close the idle connections now, and each of the others when it is released.

        The pool that :meth:`recreate` makes next replaces this one. Where another thread runs the
        pool's event loop, the connections are closed there.
        """
        if self._runtime is not None:
            if self._is_bound():
                self._runtime.dispose()
            elif self._runs_elsewhere():
                self._runtime.call_soon(self._runtime.dispose)
            else:
                self._runtime.registry.abandon_all()
        self._is_disposed = True
        self.logger.info("Pool disposed. %s", self.status())

    def recreate(self) -> "PenstockPool":
        """Return a new pool with the settings, listeners and present size of this one.

        If this one was disposed, the new one replaces it: this one serves its waiters only, and
        the new one is suspended while this one is.
        """
        self.logger.info("Pool recreating")
        arguments: dict[str, Any] = self.policy.as_arguments()
        pool = self.__class__(
            self._creator,
            pool_size=self.ledger.size,
            max_overflow=self.ledger.overflow,
            timeout=self._timeout,
            use_lifo=self.uses_lifo,
            recycle=self._recycle,
            pre_ping=self._pre_ping,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            dialect=self._dialect,
            _dispatch=self.dispatch,
            **arguments,
        )
        pool.listeners = self.listeners
        pool.limit_age(self.age_limit)
        if self._is_disposed:
            pool._replace(self)
        return pool

    def _invalidate(
        self,
        connection: PoolProxiedConnection,
        exception: BaseException | None = None,
        _checkin: bool = True,
    ) -> None:
        super()._invalidate(connection, exception, _checkin)
        self._bound_runtime.evict_older_than(self._invalidate_time)

    # The operator.

    def resize(self, pool_size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the pool's size: surplus idle connections are closed now, the others on release.

        Called in another thread, it changes the size in the pool's event loop.

        Args:
            pool_size: Connections that are kept; None to leave it.
            max_overflow: Connections above that; None to leave it.

        Raises:
            SettingsError: A value is out of its range.
        """
        size = self.ledger.size if pool_size is None else pool_size
        overflow = self.ledger.overflow if max_overflow is None else max_overflow
        check_size(size, overflow)
        self._in_loop(lambda: self._set_limits(size, overflow))

    def _set_limits(self, size: int, overflow: int) -> None:
        self.ledger.resize(size, overflow, monotonic())
        self._dispatch()

    def suspend(self) -> None:
        """Check out no connection until :meth:`resume`: callers wait, up to ``pool_timeout``.

        Called in another thread, it suspends checkout in the pool's event loop.
        """
        self._in_loop(self.ledger.suspend)

    def resume(self) -> None:
        """Check out connections again, to the oldest waiter first.

        Called in another thread, it resumes checkout in the pool's event loop.
        """
        self._in_loop(self._resume)

    async def prefill(self) -> None:
        """Open connections until ``min_idle`` are ready, or an attempt fails."""
        if not self._is_bound():
            self.bind_to_loop()
        await self._bound_runtime.prefill()

    async def drain(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - as in psycopg_pool and asyncpg
        """Close the pool: reject new callers, serve the waiters, close each connection on release.

        Args:
            timeout: Seconds after which checked-out connections are closed under their holders, and
                attempts to connect are cancelled.
        """
        if not self._is_bound():
            self.bind_to_loop()
        await self._bound_runtime.drain(timeout)

    @property
    def name(self) -> str:
        """The pool's name in messages."""
        return name_of(self)

    # The numbers, in SQLAlchemy's terms.

    def size(self) -> int:
        """Return ``pool_size``."""
        return self.ledger.size

    def timeout(self) -> float | None:  # type: ignore[override]  # None is accepted there, too
        """Return ``pool_timeout`` in seconds; None for no limit."""
        return self._timeout

    def checkedin(self) -> int:
        """Return the number of connections that are idle in the pool."""
        return self.snapshot().checked_in

    def checkedout(self) -> int:
        """Return the number of connections that are checked out."""
        return self.snapshot().checked_out

    def overflow(self) -> int:
        """Return the number of connections above ``pool_size``; negative where there are fewer."""
        return self._overflow

    @property
    def _overflow(self) -> int:  # type: ignore[override]  # other code reads it, none writes it
        self._drain_reclaimed()
        return self.ledger.open - self.ledger.size if self.ledger.size else 0

    @property
    def _max_overflow(self) -> int:
        return self.ledger.overflow

    @_max_overflow.setter
    def _max_overflow(self, max_overflow: int) -> None:
        self.resize(max_overflow=max_overflow)

    @property
    def _pool(self) -> "IdleQueue":  # type: ignore[override]  # no queue of its own
        return IdleQueue(self)


class IdleQueue:
    """What other code reads of the queue in which SQLAlchemy's pool keeps idle connections.

    Args:
        pool: The pool.
    """

    __slots__ = ("_pool",)

    def __init__(self, pool: "PenstockPool") -> None:
        self._pool = pool

    @property
    def maxsize(self) -> int:
        """``pool_size``."""
        return self._pool.size()

    @maxsize.setter
    def maxsize(self, pool_size: int) -> None:
        self._pool.resize(pool_size)

    @property
    def use_lifo(self) -> bool:
        """Whether the connection released last is checked out first."""
        return self._pool.uses_lifo

    def qsize(self) -> int:
        """Return the number of idle connections."""
        return self._pool.checkedin()

    def empty(self) -> bool:
        """Return whether no connection is idle."""
        return not self.qsize()

    def full(self) -> bool:
        """Return whether ``pool_size`` connections are idle."""
        return 0 < self.maxsize <= self.qsize()


def _unawaited(work: Coroutine[Any, Any, Record]) -> Coroutine[Any, Any, Record]:
    return work
