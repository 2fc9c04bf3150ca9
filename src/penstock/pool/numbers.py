"""The ledger's books in the terms in which others read them."""

import math

from sqlalchemy.pool import AsyncAdaptedQueuePool

from penstock.errors import SettingsError
from penstock.pool.failure import text_of
from penstock.pool.ledger import Ledger
from penstock.pool.policy import is_number
from penstock.pool.slot import CHECKING, CLOSING, IDLE, LENT, MENDING
from penstock.pool.snapshot import PoolSnapshot

__all__ = ["PoolNumbers", "check_size", "check_times", "snapshot_of"]


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
        checked_out=max(0, ledger.count(LENT) - uncollected),
        overflow=max(0, ledger.open - ledger.size),
        opening=ledger.opening,
        invalid=ledger.count(MENDING, CLOSING) + uncollected,
        waiting=len(ledger.waiters),
        suspended=ledger.suspended,
        closed=ledger.closed,
        opened_total=ledger.tally.opened,
        closed_total=ledger.tally.closed,
        open_failures_total=ledger.tally.open_failures,
        refused_total=waited.refused + waited.turned_away,
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
        """Whether the connection returned last is lent first."""
        return self._pool.uses_lifo

    def qsize(self) -> int:
        """Return the number of idle connections."""
        return self._pool.checkedin()

    def empty(self) -> bool:
        """Tell whether no connection is idle."""
        return not self.qsize()

    def full(self) -> bool:
        """Tell whether ``pool_size`` connections are idle."""
        return 0 < self.maxsize <= self.qsize()


class PoolNumbers(AsyncAdaptedQueuePool):
    """The part of a pool that tells its numbers, in SQLAlchemy's terms."""

    ledger: Ledger
    uses_lifo: bool

    def _collect(self) -> int:
        """Bring the books up to date, where they may be changed.

        Returns:
            The number of connections that have come back and are not in the books yet.
        """
        raise NotImplementedError

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers at this moment; any thread may ask."""
        return snapshot_of(self.ledger, self._collect())

    @property
    def name(self) -> str:
        """What messages call the pool."""
        return f"pool {self._orig_logging_name}" if self._orig_logging_name else "the pool"

    @property
    def not_idle(self) -> int:
        """Connections that cannot be lent at the moment; no fewer than are lent."""
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
        """Return the number of connections that are lent."""
        return self.snapshot().checked_out

    def overflow(self) -> int:
        """Return how many more connections there are than ``pool_size``; negative for fewer."""
        return self._overflow

    def resize(self, pool_size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the pool's size."""
        raise NotImplementedError

    @property
    def _overflow(self) -> int:  # type: ignore[override]  # others read it, nobody writes it
        self._collect()
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
