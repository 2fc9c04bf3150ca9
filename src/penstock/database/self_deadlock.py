"""Statements that wait for a lock which a session of their own request holds."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from itertools import chain, repeat
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from penstock.database.errors import SelfDeadlock
from penstock.database.unit import UnitOfWork
from penstock.database.unit_session import UnitSession
from penstock.pool.loans import task_of
from penstock.pool.record import Record
from penstock.pool.slot import LENT

__all__ = ["refuse_self_deadlock"]

_SQL = text(files("penstock.database").joinpath("self_deadlock.sql").read_text())
_LOOKS = (0.1, 0.2, 0.4, 0.8)
"""Seconds until each of the first looks; most statements are done before."""
_LOOK_EVERY = 1.0
"""Seconds between two later ones."""

_CANCELED = "57014"
"""The SQLSTATE of a statement that was cancelled on request."""

_MESSAGE = (
    "A statement of the express lane waited for a lock that a session of its own request holds. "
    "The session's transaction ends only after it, so it would have waited for ever. The server "
    "has cancelled it, and it has written nothing. Use the session, or commit that first (await "
    "session.commit())."
)


@asynccontextmanager
async def refuse_self_deadlock(unit: UnitOfWork) -> AsyncIterator[None]:
    """Have the server cancel what the block waits for if that is a lock of the unit's own sessions.

    On PostgreSQL, where no pooler is in between, which makes up the numbers of processes.

    Args:
        unit: Whose sessions hold a connection; the block runs statements on another one.

    Raises:
        SelfDeadlock: It was.
    """
    over = asyncio.Event()
    watch = asyncio.create_task(_watch(unit, asyncio.current_task(), over))
    try:
        yield
    except DBAPIError as error:
        over.set()
        is_cancelled = getattr(error.orig, "sqlstate", None) == _CANCELED
        if is_cancelled and await asyncio.shield(watch):
            raise SelfDeadlock(_MESSAGE) from error
        raise
    finally:
        over.set()  # what is being asked on the session's connection is not cancelled


async def _watch(unit: UnitOfWork, task: "asyncio.Task[Any] | None", over: asyncio.Event) -> bool:
    """Return whether the task waited for the unit and was cancelled on the server for that."""
    for pause in chain(_LOOKS, repeat(_LOOK_EVERY)):
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), pause)
        leases = [] if over.is_set() else list(unit.leases())
        pids = list(_processes(leases, task))
        for session, record in leases if pids else ():
            if not over.is_set() and await _cancel_what_waits(session, record, pids):
                return True
        if over.is_set():
            return False
    return False  # never: the last pause is repeated


def _processes(
    leases: list[tuple[UnitSession, Record]], task: "asyncio.Task[Any] | None"
) -> Iterator[int]:
    """Return the server's processes of the connections that the task has besides."""
    held = {record.slot for _, record in leases}
    for keeper in {record.keeper for _, record in leases}:
        for slot in keeper.ledger:
            if slot.state is LENT and slot not in held and task_of(slot.loan) is task:
                connection = slot.content.dbapi_connection
                pid = keeper.driver_of(connection).server_pid(connection)
                if pid is not None:
                    yield pid


async def _cancel_what_waits(session: UnitSession, record: Record, pids: list[int]) -> bool:
    """Cancel what waits for a session; return whether anything did."""
    connection = session.open_connection()
    own = record.keeper.driver_of(record.dbapi_connection).server_pid(record.dbapi_connection)
    if connection is None or session.turns.are_taken:
        return False
    async with session.turn(object()):
        try:
            return bool(await connection.scalar(_SQL, {"pids": pids, "own": own}))
        except SQLAlchemyError:
            return False  # its transaction has failed and holds nothing any more
