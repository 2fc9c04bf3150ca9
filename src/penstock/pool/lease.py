"""A lease: a checked-out connection with what is known of its checkout."""

import asyncio
import contextlib
import linecache
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import greenlet
import sqlalchemy

from penstock.drivers.sql_text import shape
from penstock.pool.events import LeakReport, LeaseLeaked, Listeners
from penstock.pool.ledger import Ledger
from penstock.pool.policy import PoolPolicy
from penstock.pool.slot import CHECKED_OUT, Slot

_logger = logging.getLogger("penstock.pool")

DEPTH = 8
"""Frames that are recorded at a checkout, from the code that awaits SQLAlchemy outwards."""

_ROOM = Path(__file__).parent
_LIBRARY_PATHS = (
    *(str(Path(module.__file__).parent) for module in (asyncio, sqlalchemy) if module.__file__),
    contextlib.__file__,
    str(_ROOM),
    str(_ROOM.parent / "express"),
)
"""Paths of frames that are left out, because they are not the application's."""

_TEXT = re.compile(r"(['\"])(?:\\.|(?!\1).)*\1?")
"""A string in a line of source, which may be a statement with its literals."""

holder_route: ContextVar[Callable[[], str] | None] = ContextVar("holder_route", default=None)
"""Returns the route of the running request; called only for a report."""

holding_tasks: ContextVar[Callable[[], Iterable[Any]] | None] = ContextVar(
    "holding_tasks", default=None
)
"""Returns the tasks that have acquired what the running request keeps until its end; a task that it
has started and awaits is not one of them."""
enclosing_tasks: ContextVar[tuple[Any, ...]] = ContextVar("enclosing_tasks", default=())
"""The tasks that have acquired what the enclosing blocks keep until they are left."""


STATEMENT_KEY = "penstock_statement"
"""The key of the last statement in a connection's ``info``, where statements are recorded."""


class Lease:
    """A checked-out connection's holder, route and stack of the checkout.

    Args:
        task: The task of the caller.
        info: The connection's; the last statement of the previous lease is removed.
    """

    __slots__ = ("frames", "reported", "route", "task")

    def __init__(self, task: "asyncio.Task[Any] | None", info: dict[Any, Any]) -> None:
        self.task = task
        info.pop(STATEMENT_KEY, None)
        self.route = holder_route.get()
        self.frames = _frames()
        self.reported = False

    def stack(self) -> str:
        """Return the stack of the checkout, formatted as a traceback."""
        return _text(reversed(self.frames))


def task_of(lease: Any) -> Any:
    """Return the task of a lease.

    Args:
        lease: A slot's: a :class:`Lease`, or the task itself where the stack is not recorded.
    """
    return lease.task if type(lease) is Lease else lease


def here() -> str:
    """Return the present stack, formatted as a traceback."""
    return _text(reversed(_frames(4 * DEPTH)))


def where(task: "asyncio.Task[Any] | None") -> str:
    """Return the stack of a task, through everything it awaits; empty where it has ended.

    Args:
        task: The task; None for none.
    """
    if task is None or task.done():
        return ""
    return _text((frame.f_code, frame.f_lineno) for frame in _awaited(task.get_coro()))


def _awaited(awaitable: Any) -> Iterator[FrameType]:
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is not None:
            yield frame
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)


def _frames(depth: int = DEPTH) -> list[tuple[CodeType, int]]:
    # SQLAlchemy's frames are inside the greenlet; the caller's are in its parent. Without a
    # greenlet the frames of the pool and the express lane come first.
    parent = greenlet.getcurrent().parent
    frame: FrameType | None = parent and parent.gr_frame
    if parent is None:
        frame, depth = sys._getframe(2), 2 * depth  # noqa: SLF001 - ten times as fast as inspect
    frames = []
    for _ in range(depth):
        if frame is None:
            break
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return frames


def _text(frames: "Iterator[tuple[CodeType, int]]") -> str:
    lines = []
    for code, number in frames:
        if code.co_filename.startswith(_LIBRARY_PATHS):
            continue
        lines.append(f'  File "{code.co_filename}", line {number}, in {code.co_name}\n')
        if source := linecache.getline(code.co_filename, number).strip():
            shown = _TEXT.sub("'...'", source)
            lines.append(f"    {shown}\n")
    return "".join(lines)


class OpenLease:
    """A block that holds a connection: a session, a stream, a snapshot.

    Args:
        end: Rolls back and releases the connection where the block cannot be left any more. It
            must not refer to the code inside the block.

    Attributes:
        is_over: Whether the block was left or ended.
    """

    __slots__ = ("_end", "_leases", "_task", "is_over")

    def __init__(self, end: Callable[[], Awaitable[None]]) -> None:
        self.is_over = False
        self._end = end
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        """The task that used it last."""
        self._leases = request_leases.get()
        if self._leases is not None:
            self._leases.add(self)

    def use(self) -> None:
        """Record that the current task uses the block."""
        self._task = asyncio.current_task()

    def leave(self) -> bool:
        """Mark the block as over; return whether it was not before."""
        if self.is_over:
            return False
        self.is_over = True
        if self._leases is not None:
            self._leases.discard(self)
        return True

    def is_abandoned(self, request: asyncio.Task[Any] | None) -> bool:
        """Return whether no running task can leave the block.

        Args:
            request: The task of the request, which has ended.
        """
        task = self._task
        return task is None or task is request or task.done()

    async def end(self) -> None:
        """Release the connection, unless the block was left meanwhile; errors are logged."""
        if self.leave():
            try:
                await self._end()
            except Exception:
                _logger.exception(
                    "A connection that a request had left open was not released without an error"
                )


request_leases: ContextVar[set[OpenLease] | None] = ContextVar("request_leases", default=None)
"""The open blocks of the running request; None outside requests."""


async def end_abandoned(leases: set[OpenLease]) -> None:
    """End the blocks that a request has left open, even if the caller is cancelled.

    An asynchronous generator that is not iterated any more is suspended inside its blocks until the
    garbage collector finds it, which may take minutes. A block that a running task has opened or
    used stays open.

    Args:
        leases: The open blocks of the request.
    """
    request = asyncio.current_task()
    await asyncio.shield(asyncio.create_task(_end_abandoned(leases, request)))


async def _end_abandoned(leases: set[OpenLease], request: asyncio.Task[Any] | None) -> None:
    await asyncio.sleep(0)  # a task that was given a block may not have begun yet
    abandoned = [lease for lease in leases if lease.is_abandoned(request)]
    await asyncio.gather(*(lease.end() for lease in abandoned))


class LeakDetector:
    """Reports leases that last for longer than ``leak_after``.

    Args:
        ledger: Has the slots.
        policy: Says after how long, and whether the connection is reclaimed.
        listeners: Are notified of each leak.
        is_mysql: Whether statements are written for MySQL or MariaDB.
        reclaim: Closes the connection under the holder; given the slot, its lease and the reason.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: PoolPolicy,
        listeners: Listeners,
        *,
        is_mysql: bool,
        reclaim: Callable[[Slot, Lease, str], None],
    ) -> None:
        self._ledger = ledger
        self._leak_after = policy.leak_after
        self._reclaims = policy.reclaim_leaks
        self._listeners = listeners
        self._is_mysql = is_mysql
        self._reclaim = reclaim

    def report(self, now: float) -> None:
        """Report each leaked lease, once.

        Args:
            now: The time.
        """
        if self._leak_after is None:
            return
        for slot in list(self._ledger):  # a listener may change it
            lease = slot.lease
            if not isinstance(lease, Lease) or lease.reported or slot.state is not CHECKED_OUT:
                continue
            if now - slot.checked_out_at >= self._leak_after:
                lease.reported = True
                self._report(slot, lease, now - slot.checked_out_at)

    def _report(self, slot: Slot, lease: Lease, seconds: float) -> None:
        statement = slot.content.info.get(STATEMENT_KEY)
        report = LeakReport(
            seconds=seconds,
            route=lease.route() if lease.route else None,
            acquired_at=lease.stack(),
            holder_at=where(lease.task),
            statement=shape(statement, is_mysql=self._is_mysql) if statement else None,
            reclaimed=self._reclaims,
        )
        _logger.warning("%s", report)
        self._listeners.notify(LeaseLeaked(report))
        if self._reclaims:
            why = f"Its connection was checked out for {seconds:.1f} s (leak_after, reclaim_leaks)"
            self._reclaim(slot, lease, why)
