"""The event loop and the process to which a pool's connections belong."""

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable
from random import Random
from threading import RLock, get_ident
from time import monotonic
from typing import Any, TypeVar

from penstock.pool.errors import PoolInAnotherLoop
from penstock.pool.events import Listeners
from penstock.pool.keeper import Keeper
from penstock.pool.ledger import Ledger
from penstock.pool.lifetime import Backoff, Lifetime
from penstock.pool.numbers import PoolNumbers
from penstock.pool.policy import PoolPolicy
from penstock.pool.questions import Question
from penstock.pool.record import Record

__all__ = ["LoopBoundPool"]

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
        self._keeper: Keeper | None = None
        """Whoever looks after the connections, once they belong to an event loop."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._binding = RLock()
        """Whoever binds it to an event loop: two threads may try at the same time."""
        self._thread: int | None = None
        """Where the loop runs: to compare it costs less than to ask which loop is running."""
        self._lost: deque[Record] = deque()
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
        pool._in_loop(pool.ledger.wind_up)  # noqa: SLF001 - of the same class

    def _lend_again(self) -> None:
        self.ledger.resume(monotonic())
        self._carry_out()
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
        # Looked up once: each loan needs them.
        self._borrow, self._give_back = self.ledger.borrow, self.ledger.give_back
        self._orders = self.ledger.orders

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        if self._keeper is None or not self._keeper.close_later(connection):
            self.close_now(connection, terminate=terminate)

    def close_now(self, connection: Any, *, terminate: bool = True) -> None:
        """Close a connection here and now, as SQLAlchemy does. Runs in a greenlet."""
        super()._close_connection(connection, terminate=terminate)

    async def ask(self, question: Question[T], seconds: float) -> T | None:
        """Put a question to the server on an idle connection, which counts as no loan.

        Args:
            question: Given the driver's connection; what it raises costs that connection.
            seconds: The bound.

        Returns:
            Its answer; None where no connection was idle.
        """
        return await self._here.questions.ask(question, seconds) if self._is_here() else None

    @property
    def _here(self) -> Keeper:
        if self._keeper is None:
            self.bind_to_loop()
        assert self._keeper is not None  # noqa: S101 - just made
        return self._keeper

    def leave_to_parent(self) -> None:
        """Note that this process was forked: what is open belongs to the one that forked it."""
        self._thread = None
        self._binding = RLock()  # which another thread of the parent may have held

    def _is_here(self) -> bool:
        return get_ident() == self._thread and _running_loop() is self._loop

    def bind_to_loop(self) -> None:
        """Make the running event loop the pool's, unless it is already.

        Raises:
            PoolInAnotherLoop: It has connections in another, or another thread runs its loop.
        """
        with self._binding:
            if not self._is_here():
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
        if self._keeper is None or self._loop is None:
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
        self._keeper = Keeper(self, loop)
        # Looked up once, as above.
        self._lost = self._keeper.lost
        self._hangups = self._keeper.hangups

    def _collect(self) -> int:
        if self._lost and self._is_here():
            self._here.collect()
        return len(self._lost)

    def _carry_out(self) -> None:
        if self._keeper is not None:
            self._keeper.carry_out()

    def _in_loop(self, work: Callable[[], object]) -> None:
        """Change the books: now, or soon in the event loop that another thread runs."""
        if self._keeper is None or self._is_here() or not self._is_served_elsewhere():
            work()
        else:
            self._keeper.in_loop(work)


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
