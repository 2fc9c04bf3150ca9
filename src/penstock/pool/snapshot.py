"""The pool's numbers at one moment, in SQLAlchemy's terms."""

from dataclasses import dataclass

__all__ = ["PoolSnapshot"]


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """An immutable reading of one pool.

    Args:
        size: Connections that the pool keeps (``pool_size``).
        limit: Connections that it may have open at once (``pool_size + max_overflow``);
            0 where the pool keeps none and sets no limit (serverless).
        checked_in: Open connections that wait in the pool.
        checked_out: Connections that are lent.
        overflow: Lent or open connections above ``size``; never negative.
    """

    size: int
    limit: int
    checked_in: int
    checked_out: int
    overflow: int

    @property
    def utilisation(self) -> float:
        """Share of ``limit`` that is lent, from 0.0 to 1.0; 0.0 where there is no limit."""
        return self.checked_out / self.limit if self.limit else 0.0
