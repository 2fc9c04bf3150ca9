"""What is attached to an engine: read-only connections, statement times, the pool's numbers."""

import logging
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import await_

from penstock.drivers.capabilities import driver_of
from penstock.drivers.sqlalchemy_internals import max_overflow, record_of
from penstock.engine.connect_arguments import POOLERS
from penstock.pool import PenstockPool, PoolSnapshot
from penstock.pool.lease import STATEMENT_KEY
from penstock.settings import DatabaseSettings
from penstock.telemetry.leases import IDLE_IN_TRANSACTION_KEY
from penstock.telemetry.statement_watch import StatementWatch

_logger = logging.getLogger("penstock.engine")


class ReadOnlyConnections:
    """Whether connections may be kept read-only by a setting of their server session.

    They may on asyncpg, with a :class:`PenstockPool`, and where each connection has a server
    session to itself: a pooler would give a session that is kept read-only to a client that writes.
    The first connection shows whether a pooler is in between, which makes up the process that it
    names.

    Args:
        engine: Not connected yet.
        settings: Its database's; a ``proxy`` that pools rules it out.

    Attributes:
        are_possible: Whether they may; False before the first connection is open.
    """

    def __init__(self, engine: AsyncEngine, settings: DatabaseSettings) -> None:
        self.are_possible = False
        if settings.driver != "asyncpg" or not isinstance(engine.pool, PenstockPool):
            return
        if settings.proxy not in POOLERS:
            event.listen(engine.sync_engine, "first_connect", self._look)
        if driver_of(engine.dialect).is_pipelined:
            event.listen(engine.sync_engine, "connect", self._mark)

    def _mark(self, connection: Any, _: Any) -> None:
        connection.is_shared = not self.are_possible

    def _look(self, connection: Any, _: Any) -> None:
        driver = connection.driver_connection
        process = await_(driver.fetchval("SELECT pg_backend_pid()"))
        self.are_possible = process == driver.get_server_pid()
        if not self.are_possible:
            _logger.warning(
                "A pooler stands between this service and PostgreSQL, and the setting proxy does "
                "not say so: set it (proxy='pgbouncer', ...), or prepared statements will fail."
            )


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
        limit=size + max_overflow(pool),
        checked_in=pool.checkedin(),
        checked_out=pool.checkedout(),
        # A pool that has not opened all of its connections counts the missing ones as negative.
        overflow=max(0, pool.overflow()),
    )


def record_statements(engine: Engine) -> None:
    """Give the pool's report of a leak the last statement, without its values.

    Args:
        engine: Whose statements; nothing has run on it yet.
    """
    # The dialect's events: with a listener to one of the engine's, it takes a slower path.
    event.listen(engine, "do_execute", _record)
    event.listen(engine, "do_executemany", _record)
    event.listen(engine, "do_execute_no_params", _record_without_parameters)


def watch_statements(engine: AsyncEngine, watch: StatementWatch | None) -> None:
    """Time the statements of an engine, and count those of a request.

    Args:
        engine: Whose statements, and those of every engine made from it.
        watch: Counts and times statements, in place of the one before; None for none.
    """
    dialect: Any = engine.sync_engine.dialect
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        vars(dialect).pop(name, None)
    if watch is None:
        return
    watch.is_mysql = dialect.name in ("mysql", "mariadb")
    # In the place of the dialect's own: a listener to its events that executes a statement by
    # itself keeps it from all others.
    dialect.do_execute = _timed(dialect.do_execute, watch)
    dialect.do_executemany = _timed(dialect.do_executemany, watch)
    untimed = dialect.do_execute_no_params
    timed = _timed(lambda cursor, statement, _, context: untimed(cursor, statement, context), watch)
    dialect.do_execute_no_params = lambda cursor, statement, context=None: timed(
        cursor, statement, (), context
    )


def _timed(run: Callable[..., None], watch: StatementWatch) -> Callable[..., None]:
    def execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        info = _info(context)
        # The batches of one INSERT are no repetition.
        if context is None or context.execute_style is not ExecuteStyle.INSERTMANYVALUES:
            watch.count(statement)
        info[IDLE_IN_TRANSACTION_KEY] = inf
        began = monotonic()
        try:
            run(cursor, statement, parameters, context)
        finally:
            ended = info[IDLE_IN_TRANSACTION_KEY] = monotonic()
            if ended - began > watch.slow_after:
                watch.slow(statement, ended - began, _rows(cursor))

    return execute


def _info(context: Any) -> dict[Any, Any]:
    if context is None:
        return {}
    # While the dialect looks at its first connection, there is no more than the record.
    record: Any = record_of(context.root_connection.connection)
    info: dict[Any, Any] = {} if record is None else record.info  # None where it was detached
    return info


def _rows(cursor: Any) -> int:
    count: int = getattr(cursor, "rowcount", -1)
    # Not every driver counts what a SELECT returns; SQLAlchemy has read it all, or it is a stream.
    return count if count >= 0 else len(getattr(cursor, "_rows", ()))


def _record(_cursor: Any, statement: str, _parameters: Any, context: Any) -> None:
    _info(context)[STATEMENT_KEY] = statement


def _record_without_parameters(_cursor: Any, statement: str, context: Any) -> None:
    _info(context)[STATEMENT_KEY] = statement
