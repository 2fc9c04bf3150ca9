"""The numbers of a pool, at one moment and in SQLAlchemy's terms."""

import math
from dataclasses import dataclass

from sqlalchemy.pool import AsyncAdaptedQueuePool

from penstock.pool.ledger import Ledger
from penstock.pool.slot import CHECKED_OUT, CHECKING, CLOSING, IDLE, RECOVERING

__all__ = ["PoolNumbers", "PoolSnapshot", "snapshot_of", "text_of"]


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """An immutable reading of one pool.

    Args:
        size: Connections that the pool keeps (``pool_size``).
        limit: Connections that it may have open at once (``pool_size + max_overflow``);
            0 where the pool keeps none and sets no limit (serverless).
        checked_in: Open connections that wait in the pool.
        checked_out: Connections that are checked out.
        overflow: Checked out or open connections above ``size``; never negative.
        opening: Connections that are being opened.
        invalid: Connections that are being closed, or cleaned up after a cancelled query.
        waiting: Callers that wait for a connection.
        suspended: Whether checkout is suspended.
        closed: Whether the pool hands out nothing any more.
        opened_total: Connections opened so far.
        closed_total: Connections closed so far.
        open_failures_total: Connections that could not be opened so far.
        rejected_total: Callers that got no connection so far.
        last_open_error: What the newest failure to open a connection was, while it lasts.
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
        """Share of ``limit`` that is checked out, from 0.0 to 1.0; 0.0 where there is no limit."""
        return self.checked_out / self.limit if self.limit else 0.0

    def __str__(self) -> str:
        text = (
            f"{self.checked_out} of {self.limit or 'any number'} connections checked out, "
            f"{self.checked_in} idle, {self.opening} opening, {self.invalid} being closed or "
            f"cleaned up, {self.waiting} waiting"
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
