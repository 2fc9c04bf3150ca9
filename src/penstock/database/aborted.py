"""Transactions that PostgreSQL has given up, though it answers their COMMIT without an error."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from penstock.database.unit_session import UnitSyncSession

__all__ = ["WritingSyncSession", "doubt", "note_failures"]

_FAILED_IN = "penstock_failed_in"
"""Where in a connection's ``info`` the transaction stands in which a statement has failed."""


class WritingSyncSession(UnitSyncSession):
    """The session below a writing one: it does not take a rollback for a commit."""


def note_failures(engine: Engine) -> None:
    """Have each transaction of the engine's remembered in which a statement fails."""
    event.listen(engine.dialect, "handle_error", _note)


@contextmanager
def doubt(connection: AsyncConnection) -> Iterator[None]:
    """Have the connection's transaction remembered if the block fails.

    Args:
        connection: On which the block runs something without SQLAlchemy's knowledge.
    """
    try:
        yield
    except BaseException:
        _remember(connection.sync_connection)
        raise


def _note(context: ExceptionContext) -> None:
    _remember(context.connection)


def _remember(connection: Connection | None) -> None:
    if connection is None or connection.closed or connection.invalidated:
        return
    if (transaction := connection.get_transaction()) is not None:
        connection.info[_FAILED_IN] = weakref.ref(transaction)


@event.listens_for(WritingSyncSession, "before_commit")
def _refuse_what_is_aborted(session: Session) -> None:
    """Ask the server, where a statement has failed, whether there is anything left to commit.

    It forgets the whole transaction unless the failed statement is undone to a savepoint, and
    would answer COMMIT by ROLLBACK, which no driver takes for an error.
    """
    transaction = session.get_transaction()
    for connection in transaction.connections if transaction else ():
        if connection.closed or connection.invalidated:
            continue
        failed_in = connection.info.pop(_FAILED_IN, None)
        if failed_in is not None and failed_in() is connection.get_transaction():
            try:
                connection.exec_driver_sql("SELECT 1")
            except Exception as error:
                error.add_note("A statement before it failed, and its error was passed over.")
                raise
