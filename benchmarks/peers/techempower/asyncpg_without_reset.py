"""TechEmpower's tests by hand on ``asyncpg.create_pool``, which resets no connection."""

from benchmarks.peers.asyncpg_pools import leave_as_it_is, pool_of_app
from benchmarks.peers.techempower.asyncpg_by_hand import app

__all__ = ["app"]

app.router.lifespan_context = pool_of_app(reset=leave_as_it_is)
