"""The connection pool and its numbers."""

from penstock.pool.snapshot import PoolSnapshot

__all__ = ["PoolSnapshot"]
