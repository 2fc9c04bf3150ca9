"""The numbers of a pool, at one moment and in SQLAlchemy's terms."""

import math
from dataclasses import dataclass

from sqlalchemy.pool import AsyncAdaptedQueuePool

from penstock.pool.ledger import Ledger
from penstock.pool.slot import CHECKED_OUT, CHECKING, CLOSING, IDLE, RECOVERING


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The numbers of one pool at one moment.

    Args:
        size: Connections that the pool keeps (``pool_size``).
        limit: Connections that it may have open at once (``pool_size + max_overflow``);
            0 for no limit.
        checked_in: Connections that are idle in the pool.
        checked_out: Connections that are checked out.
        overflow: Open connections above ``size``; never negative.
        opening: Connections that are being opened.
        invalid: Connections that are being closed, or recovered after a cancelled query.
        waiting: Callers that wait for a connection.
        suspended: Whether checkout is suspended.
        closed: Whether the pool is closed.
        opened_total: Connections opened since the pool was made.
        closed_total: Connections closed since then.
        open_failures_total: Attempts to connect that failed since then.
        rejected_total: Callers rejected since then.
        last_open_error: The error of the last attempt to connect; None after a success.
    """

    size: int
    limit: int
    checked_in: int
    checked_out: int
    overflow: int
    opening: int = 0
    invalid: int = 0
    waiting: int = 0
    suspended: bool = False
    closed: bool = False
    opened_total: int = 0
    closed_total: int = 0
    open_failures_total: int = 0
    rejected_total: int = 0
    last_open_error: str | None = None

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is checked out, from 0.0 to 1.0; 0.0 without a limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    def __str__(self) -> str:
        text = (
            f"{self.checked_out} of {self.limit or 'any number'} connections checked out, "
            f"{self.checked_in} idle, {self.opening} opening, {self.invalid} being closed or "
            f"recovered, {self.waiting} waiting"
        )
        if self.last_open_error:
            text += f"; the last attempt to connect failed: {self.last_open_error}"
        return text


def text_of(error: BaseException) -> str:
    """Return the text of an error; the name of its class where it has none."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - any class may be raised
        return type(error).__name__


def snapshot_of(ledger: Ledger, unclaimed: int = 0) -> PoolSnapshot:
    """Return the numbers of a ledger, from any thread.

    Args:
        ledger: The ledger.
        unclaimed: Connections that were returned and that the ledger does not know of yet.
    """
    error = ledger.backoff.last_error if ledger.backoff.until > -math.inf else None
    waiters = ledger.waiters.tally
    return PoolSnapshot(
        size=ledger.size,
        limit=0 if ledger.limit == math.inf else int(ledger.limit),
        checked_in=ledger.count(IDLE, CHECKING),
        checked_out=max(0, ledger.count(CHECKED_OUT) - unclaimed),
        overflow=max(0, ledger.open - ledger.size),
        opening=ledger.opening,
        invalid=ledger.count(RECOVERING, CLOSING) + unclaimed,
        waiting=len(ledger.waiters),
        suspended=ledger.suspended,
        closed=ledger.closed,
        opened_total=ledger.tally.opened,
        closed_total=ledger.tally.closed,
        open_failures_total=ledger.tally.open_failures,
        rejected_total=waiters.rejected + waiters.not_admitted,
        last_open_error=f"{type(error).__name__}: {text_of(error)}" if error else None,
    )


class IdleQueue:
    """What other code reads of the queue in which SQLAlchemy's pool keeps idle connections.

    Args:
        pool: The pool.
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


class PoolNumbers(AsyncAdaptedQueuePool):
    """The part of a pool that returns its numbers, in SQLAlchemy's terms."""

    ledger: Ledger
    uses_lifo: bool

    def _drain_reclaimed(self) -> int:
        """Report returns without a connection to the ledger, in the pool's event loop.

        Returns:
            The number of returns that are not reported yet.
        """
        raise NotImplementedError

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers at this moment, from any thread."""
        return snapshot_of(self.ledger, self._drain_reclaimed())

    @property
    def name(self) -> str:
        """The pool's name in messages."""
        return f"pool {self._orig_logging_name}" if self._orig_logging_name else "the pool"

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

    def resize(self, pool_size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the pool's size.

        Args:
            pool_size: Connections that are kept; None to leave it.
            max_overflow: Connections above that; None to leave it.
        """
        raise NotImplementedError

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
