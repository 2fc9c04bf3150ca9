"""Statements that wait for a lock which a session of their own request holds."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from itertools import chain, repeat
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

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

_MESSAGE = (
    "A statement of the writer waited for a lock that a session of its own request holds. The "
    "session's transaction ends only after it, so it would have waited for ever. It was cancelled "
    "and has written nothing. Write by the session, or commit that first (await session.commit())."
)


@asynccontextmanager
async def refuse_self_deadlock(unit: UnitOfWork) -> AsyncIterator[None]:
    """Cancel what the block waits for if that is a lock of the unit's own sessions.

    On PostgreSQL, where no pooler is in between, which makes up the numbers of processes.

    Args:
        unit: Whose sessions hold a connection; the block runs statements on another one.

    Raises:
        SelfDeadlock: It was.
    """
    task, over = asyncio.current_task(), asyncio.Event()
    watch = asyncio.create_task(_watch(unit, task, over))
    try:
        yield
    except asyncio.CancelledError as error:
        if not watch.done() or task is None or task.uncancel() > 0:
            raise
        raise SelfDeadlock(_MESSAGE) from error
    finally:
        over.set()  # a look in progress is not cancelled: it is on the session's connection


async def _watch(unit: UnitOfWork, task: "asyncio.Task[Any] | None", over: asyncio.Event) -> None:
    """Return once the task was cancelled because it waits for the unit, or all is over."""
    for pause in chain(_LOOKS, repeat(_LOOK_EVERY)):
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), pause)
        leases = list(unit.leases())
        pids = list(_processes(leases, task))
        for session, record in leases if pids else ():
            if not over.is_set() and await _blocks(session, record, pids) and not over.is_set():
                assert task is not None  # noqa: S101 - it has other connections
                task.cancel()
                return
        if over.is_set():
            return


def _processes(
    leases: list[tuple[UnitSession, Record]], task: "asyncio.Task[Any] | None"
) -> Iterator[int]:
    """Return the server's processes of the connections that the task has besides."""
    held = {record.slot for _, record in leases}
    for keeper in {record.keeper for _, record in leases}:
        for slot in keeper.ledger:
            if slot.state is LENT and slot not in held and task_of(slot.loan) is task:
                pid = keeper.driver.server_pid(slot.content.dbapi_connection)
                if pid is not None:
                    yield pid


async def _blocks(session: UnitSession, record: Record, pids: list[int]) -> bool:
    """Return whether processes wait for the session's; False where it is at work itself."""
    connection = session.open_connection()
    if connection is None or session.turns.are_taken:
        return False
    async with session.turn(object()):
        try:
            pid, blocks = (await connection.execute(_SQL, {"pids": pids})).one()
        except SQLAlchemyError:
            return False  # its transaction has failed and holds nothing any more
    return bool(blocks) and pid == record.keeper.driver.server_pid(record.dbapi_connection)
