"""The numbers of SQLAlchemy's pools, put right."""

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from penstock.pool import PenstockPool, PoolSnapshot

__all__ = ["pool_snapshot"]


def pool_snapshot(engine: AsyncEngine) -> PoolSnapshot:
    """Read the numbers of an engine's pool.

    Args:
        engine: Any engine, not only one from ``build_engine``.

    Returns:
        The numbers at this moment. All are 0 where the pool keeps no count, as in serverless
        (``NullPool``).
    """
    pool = engine.pool
    if isinstance(pool, PenstockPool):
        return pool.snapshot()
    if not isinstance(pool, QueuePool):
        return PoolSnapshot(size=0, limit=0, checked_in=0, checked_out=0, overflow=0)
    size = pool.size()
    return PoolSnapshot(
        size=size,
        limit=size + pool._max_overflow,  # noqa: SLF001 - there is no public way to ask
        checked_in=pool.checkedin(),
        checked_out=pool.checkedout(),
        # A pool that has not opened all of its connections counts the missing ones as negative.
        overflow=max(0, pool.overflow()),
    )
