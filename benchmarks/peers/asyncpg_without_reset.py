"""The service by hand on ``asyncpg.create_pool``, which resets no connection on its return."""

from benchmarks.peers.asyncpg_by_hand import app
from benchmarks.peers.asyncpg_pools import leave_as_it_is, pool_of_app

__all__ = ["app"]

app.router.lifespan_context = pool_of_app(reset=leave_as_it_is)
