"""The event loop and the process to which a pool's connections belong."""

import asyncio
import math
import os
import weakref
from collections import deque
from collections.abc import Callable
from random import Random
from threading import RLock, get_ident
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy.pool import AsyncAdaptedQueuePool

from penstock.errors import SettingsError
from penstock.pool.errors import PoolInAnotherLoop, text_of
from penstock.pool.events import Listeners
from penstock.pool.ledger import Ledger
from penstock.pool.liveness import Probe
from penstock.pool.policy import PoolPolicy, is_number
from penstock.pool.record import Record
from penstock.pool.runtime import PoolRuntime
from penstock.pool.slot import CHECKED_OUT, CHECKING, CLOSING, IDLE, RECOVERING, Backoff, Lifetime
from penstock.pool.snapshot import PoolSnapshot

__all__ = ["LoopBoundPool", "PoolNumbers", "check_size", "check_times", "snapshot_of"]


def snapshot_of(ledger: Ledger, uncollected: int = 0) -> PoolSnapshot:
    """Read the books, from any thread.

    Args:
        ledger: Whose books they are.
        uncollected: Connections that have come back, of which the ledger does not know yet.
    """
    error = ledger.backoff.last_error if ledger.backoff.until > -math.inf else None
    waited = ledger.waiters.tally
    return PoolSnapshot(
        size=ledger.size,
        limit=0 if ledger.limit == math.inf else int(ledger.limit),
        checked_in=ledger.count(IDLE, CHECKING),
        checked_out=max(0, ledger.count(CHECKED_OUT) - uncollected),
        overflow=max(0, ledger.open - ledger.size),
        opening=ledger.opening,
        invalid=ledger.count(RECOVERING, CLOSING) + uncollected,
        waiting=len(ledger.waiters),
        suspended=ledger.suspended,
        closed=ledger.closed,
        opened_total=ledger.tally.opened,
        closed_total=ledger.tally.closed,
        open_failures_total=ledger.tally.open_failures,
        rejected_total=waited.refused + waited.rejected,
        last_open_error=f"{type(error).__name__}: {text_of(error)}" if error else None,
    )


def check_size(pool_size: int, max_overflow: int) -> None:
    """Refuse what cannot be the size of a pool.

    Raises:
        SettingsError: A value is out of its range.
    """
    if not (is_number(pool_size) and pool_size >= 0):
        raise SettingsError(f"pool_size={pool_size!r}: 0 (no limit) or more is accepted")
    if not (is_number(max_overflow) and max_overflow >= -1):
        raise SettingsError(f"max_overflow={max_overflow!r}: -1 (no limit) or more is accepted")


def check_times(timeout: float | None, recycle: float) -> None:
    """Refuse what cannot be a pool's ``pool_timeout`` or ``pool_recycle``.

    Raises:
        SettingsError: A value is no number, as one from the environment, or out of its range.
    """
    if timeout is not None and not (is_number(timeout) and timeout >= 0):
        raise SettingsError(f"pool_timeout={timeout!r}: None (no limit) or 0 or more is accepted")
    if not is_number(recycle):
        raise SettingsError(f"pool_recycle={recycle!r}: a number is accepted, -1 for never")


class IdleQueue:
    """What others read of the queue that SQLAlchemy's own pool keeps its idle connections in.

    Args:
        pool: Whose idle connections they are.
    """

    __slots__ = ("_pool",)

    def __init__(self, pool: "PoolNumbers") -> None:
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
        """Whether the connection returned last is checked out first."""
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


class PoolNumbers(AsyncAdaptedQueuePool):
    """The part of a pool that tells its numbers, in SQLAlchemy's terms."""

    ledger: Ledger
    uses_lifo: bool

    def _drain_reclaimed(self) -> int:
        """Bring the books up to date, where they may be changed.

        Returns:
            The number of connections that have come back and are not in the books yet.
        """
        raise NotImplementedError

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers at this moment; any thread may ask."""
        return snapshot_of(self.ledger, self._drain_reclaimed())

    @property
    def name(self) -> str:
        """What messages call the pool."""
        return f"pool {self._orig_logging_name}" if self._orig_logging_name else "the pool"

    @property
    def not_idle(self) -> int:
        """Connections that cannot be checked out at the moment; no fewer than are checked out."""
        return self.ledger.open - self.ledger.idle

    def size(self) -> int:
        """Return ``pool_size``."""
        return self.ledger.size

    def timeout(self) -> float | None:  # type: ignore[override]  # None is accepted there, too
        """Return ``pool_timeout`` in seconds; None for no limit."""
        return self._timeout

    def checkedin(self) -> int:
        """Return the number of connections that wait in the pool."""
        return self.snapshot().checked_in

    def checkedout(self) -> int:
        """Return the number of connections that are checked out."""
        return self.snapshot().checked_out

    def overflow(self) -> int:
        """Return how many more connections there are than ``pool_size``; negative for fewer."""
        return self._overflow

    def resize(self, pool_size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the pool's size."""
        raise NotImplementedError

    @property
    def _overflow(self) -> int:  # type: ignore[override]  # others read it, nobody writes it
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


T = TypeVar("T")

_IN_ANOTHER_LOOP = (
    "{} belongs with {} connections to another event loop: await engine.dispose() before that "
    "loop ends, as `async with database` and `with TestClient(app)` do, or make one engine for "
    "each loop"
)


class LoopBoundPool(PoolNumbers):
    """The part of a pool that knows where its connections belong, and who looks after them."""

    policy: PoolPolicy

    def _set_up(self, pool_size: int, max_overflow: int) -> None:
        self.listeners = Listeners()
        self._keep_books(pool_size, max_overflow)
        self._runtime: PoolRuntime | None = None
        """Whoever looks after the connections, once they belong to an event loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._binding = RLock()
        """Whoever binds it to an event loop: two threads may try at the same time."""
        self._thread: int | None = None
        """Where the loop runs: to compare it costs less than to ask which loop is running."""
        self._reclaim_queue: deque[Record] = deque()
        """The keeper's: what came back without a connection and is to be looked at."""
        self._process = os.getpid()
        self._inherited: list[Ledger] = []
        """Of the process that forked this one: kept, so that nobody closes its sockets."""
        self._is_disposed = False
        self._suspended_before: LoopBoundPool | None = None
        """Whose place it took while that was suspended, and who is to resume with it."""
        _LIVING.add(self)

    def _take_over(self, pool: "LoopBoundPool") -> None:
        """Go on in the place of another pool, which only serves those who wait for it still."""
        if pool.ledger.suspended:
            self.ledger.suspend()
            self._suspended_before = pool
        pool._in_loop(pool.ledger.shut_down)  # noqa: SLF001 - of the same class

    def _lend_again(self) -> None:
        self.ledger.resume(monotonic())
        self._dispatch()
        if (before := self._suspended_before) is not None:
            self._suspended_before = None
            before._lend_again()  # noqa: SLF001 - of the same class

    def _keep_books(self, size: int, overflow: int) -> None:
        random = Random()  # noqa: S311 - jitter, no secret
        self.ledger = Ledger(
            size,
            overflow,
            lifetime=Lifetime(self._recycle, random),
            backoff=Backoff(random, self._timeout),
            admission=self.policy.admission,
            lifo=self.uses_lifo,
            connects_at_once=self.policy.connects_at_once,
        )
        # Looked up once: each lease needs them.
        self._acquire, self._release = self.ledger.acquire, self.ledger.release
        self._actions = self.ledger.actions

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        if self._runtime is None or not self._runtime.close_later(connection):
            self.close_now(connection, terminate=terminate)

    def close_now(self, connection: Any, *, terminate: bool = True) -> None:
        """Close a connection here and now, as SQLAlchemy does. Runs in a greenlet."""
        super()._close_connection(connection, terminate=terminate)

    async def ask(self, probe: Probe[T], seconds: float) -> T | None:
        """Put a question to the server on an idle connection, which counts as no lease.

        Args:
            probe: Given the driver's connection; what it raises costs that connection.
            seconds: The bound.

        Returns:
            Its answer; None where no connection was idle.
        """
        return await self._bound_runtime.pinger.ask(probe, seconds) if self._is_bound() else None

    @property
    def _bound_runtime(self) -> PoolRuntime:
        if self._runtime is None:
            self.bind_to_loop()
        assert self._runtime is not None  # noqa: S101 - just made
        return self._runtime

    def leave_to_parent(self) -> None:
        """Note that this process was forked: what is open belongs to the one that forked it."""
        self._thread = None
        self._binding = RLock()  # which another thread of the parent may have held

    def _is_bound(self) -> bool:
        return get_ident() == self._thread and _running_loop() is self._loop

    def bind_to_loop(self) -> None:
        """Make the running event loop the pool's, unless it is already.

        Raises:
            PoolInAnotherLoop: It has connections in another, or another thread runs its loop.
        """
        with self._binding:
            if not self._is_bound():
                loop = asyncio.get_running_loop()
                self._leave_loop()
                self._join(loop)

    def has_outlived_its_loop(self) -> bool:
        """Return whether it belongs to an event loop that is closed."""
        return self._loop is not None and self._loop.is_closed()

    def _is_served_elsewhere(self) -> bool:
        """Return whether another thread runs the event loop; not one of the parent process."""
        return self._loop is not None and self._loop.is_running() and self._process == os.getpid()

    def _leave_loop(self) -> None:
        if self._runtime is None or self._loop is None:
            return
        if self._process != os.getpid():
            self._inherited.append(self.ledger)
            self._keep_books(self.ledger.size, self.ledger.overflow)
        elif self.ledger.open or self._is_served_elsewhere():
            raise PoolInAnotherLoop(_IN_ANOTHER_LOOP.format(self.name, self.ledger.open))

    def _join(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process = os.getpid()
        self._loop = loop
        self._thread = get_ident()
        self._runtime = PoolRuntime(self, loop)
        # Looked up once, as above.
        self._reclaim_queue = self._runtime.reclaim_queue
        self._socket_monitor = self._runtime.socket_monitor

    def _drain_reclaimed(self) -> int:
        if self._reclaim_queue and self._is_bound():
            self._bound_runtime.drain_reclaimed()
        return len(self._reclaim_queue)

    def _dispatch(self) -> None:
        if self._runtime is not None:
            self._runtime.dispatch()

    def _in_loop(self, work: Callable[[], object]) -> None:
        """Change the books: now, or soon in the event loop that another thread runs."""
        if self._runtime is None or self._is_bound() or not self._is_served_elsewhere():
            work()
        else:
            self._runtime.in_loop(work)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


# A fork within a task leaves the child in what looks like the parent's task: only the fork knows.
_LIVING: "weakref.WeakSet[LoopBoundPool]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    for pool in list(_LIVING):
        pool.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
