"""What is known of the statements that sessions run."""

from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.pool.loans import STATEMENT_KEY
from penstock.telemetry.at_rest import AT_REST_KEY
from penstock.telemetry.statement_watch import StatementWatch

__all__ = ["note_statements", "watch_statements"]


def note_statements(engine: Engine) -> None:
    """Let the pool's report of a leak have the last statement, without its values.

    Args:
        engine: Whose statements; nothing has run on it yet.
    """
    # The dialect's events: with a listener to any of its own, an engine takes a slower path.
    event.listen(engine, "do_execute", _note)
    event.listen(engine, "do_executemany", _note)
    event.listen(engine, "do_execute_no_params", _note_bare)


def watch_statements(engine: AsyncEngine, watch: StatementWatch | None) -> None:
    """Time the statements of an engine, and count those of a request.

    Args:
        engine: Whose statements, and those of every engine made from it.
        watch: Who is told; it takes the place of the one before. None for nobody.
    """
    dialect: Any = engine.sync_engine.dialect
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        vars(dialect).pop(name, None)
    if watch is None:
        return
    watch.is_mysql = dialect.name in ("mysql", "mariadb")
    # In the place of the dialect's own: a listener to its events that executes a statement by
    # itself keeps all others from hearing of it.
    dialect.do_execute = _timed(dialect.do_execute, watch)
    dialect.do_executemany = _timed(dialect.do_executemany, watch)
    bare = dialect.do_execute_no_params
    timed = _timed(lambda cursor, statement, _, context: bare(cursor, statement, context), watch)
    dialect.do_execute_no_params = lambda cursor, statement, context=None: timed(
        cursor, statement, (), context
    )


def _timed(run: Callable[..., None], watch: StatementWatch) -> Callable[..., None]:
    def execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        info = _info(context)
        # The batches of one INSERT are no repetition.
        if context is None or context.execute_style is not ExecuteStyle.INSERTMANYVALUES:
            watch.count(statement)
        info[AT_REST_KEY] = inf
        began = monotonic()
        try:
            run(cursor, statement, parameters, context)
        finally:
            ended = info[AT_REST_KEY] = monotonic()
            if ended - began > watch.slow_after:
                watch.slow(statement, ended - began, _rows(cursor))

    return execute


def _info(context: Any) -> dict[Any, Any]:
    if context is None:
        return {}
    # While the dialect looks at its first connection, there is no more than the record.
    record: Any = context.root_connection.connection._connection_record  # noqa: SLF001 - set at once
    info: dict[Any, Any] = {} if record is None else record.info  # None where it was detached
    return info


def _rows(cursor: Any) -> int:
    count: int = getattr(cursor, "rowcount", -1)
    # Not every driver counts what a SELECT returns; SQLAlchemy has read it all, or it is a stream.
    return count if count >= 0 else len(getattr(cursor, "_rows", ()))


def _note(_cursor: Any, statement: str, _parameters: Any, context: Any) -> None:
    _info(context)[STATEMENT_KEY] = statement


def _note_bare(_cursor: Any, statement: str, context: Any) -> None:
    _info(context)[STATEMENT_KEY] = statement
