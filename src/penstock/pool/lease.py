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

__all__ = [
    "STATEMENT_KEY",
    "LeakDetector",
    "Lease",
    "OpenLease",
    "enclosing_tasks",
    "end_abandoned",
    "here",
    "holder_route",
    "holding_tasks",
    "request_leases",
    "task_of",
    "where",
]

_logger = logging.getLogger("penstock.pool")

DEPTH = 8
"""Frames that are noted at a checkout, from the code that awaits SQLAlchemy outwards."""

_ROOM = Path(__file__).parent
_NOT_THE_CALLERS = (
    *(str(Path(module.__file__).parent) for module in (asyncio, sqlalchemy) if module.__file__),
    contextlib.__file__,
    str(_ROOM),
    str(_ROOM.parent / "express"),
)
"""Where frames come from that tell nobody where the mistake is."""

_TEXT = re.compile(r"(['\"])(?:\\.|(?!\1).)*\1?")
"""A text in a line of source, which may hold a statement with its literals."""

holder_route: ContextVar[Callable[[], str] | None] = ContextVar("holder_route", default=None)
"""Who asks, in words, such as a request's route; called only when there is something to report."""

holding_tasks: ContextVar[Callable[[], Iterable[Any]] | None] = ContextVar(
    "holding_tasks", default=None
)
"""Returns the tasks that have acquired what the running request keeps until its end: a task that it
has started and waits for is none of them."""
enclosing_tasks: ContextVar[tuple[Any, ...]] = ContextVar("enclosing_tasks", default=())
"""The tasks that have acquired what is kept until a block is left in which the code runs."""


STATEMENT_KEY = "penstock_statement"
"""Where in a connection's ``info`` its last statement stands, if somebody notes it."""


class Lease:
    """A checkout that was noted: by whom, for what, and from where.

    Args:
        task: Who asked.
        info: Of the connection, which forgets the last statement of the holder before.
    """

    __slots__ = ("frames", "reported", "route", "task")

    def __init__(self, task: "asyncio.Task[Any] | None", info: dict[Any, Any]) -> None:
        self.task = task
        info.pop(STATEMENT_KEY, None)
        self.route = holder_route.get()
        self.frames = _frames()
        self.reported = False

    def stack(self) -> str:
        """Return where the checkout was, as a traceback has it."""
        return _text(reversed(self.frames))


def task_of(lease: Any) -> Any:
    """Return the task of a checkout, whether it was noted or not."""
    return lease.task if type(lease) is Lease else lease


def here() -> str:
    """Return where the running code is, as a traceback has it."""
    return _text(reversed(_frames(4 * DEPTH)))


def where(task: "asyncio.Task[Any] | None") -> str:
    """Return where a task is now, through everything it awaits; empty where it has ended."""
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
    # Inside a greenlet are SQLAlchemy's own frames; the caller's are those of the one around it.
    # Where there is none, the pool's and the express lane's come first.
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
        if code.co_filename.startswith(_NOT_THE_CALLERS):
            continue
        lines.append(f'  File "{code.co_filename}", line {number}, in {code.co_name}\n')
        if source := linecache.getline(code.co_filename, number).strip():
            shown = _TEXT.sub("'...'", source)
            lines.append(f"    {shown}\n")
    return "".join(lines)


class OpenLease:
    """A block of its own that holds a connection: a session, a stream, a snapshot.

    Args:
        end: Rolls back and returns the connection, if the block cannot be left any more. It must
            not lead to the code inside the block, whose end is to be noticed.

    Attributes:
        is_over: Whether the block was left, or its request has ended it.
    """

    __slots__ = ("_end", "_leases", "_task", "is_over")

    def __init__(self, end: Callable[[], Awaitable[None]]) -> None:
        self.is_over = False
        self._end = end
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        """The task that has used it last."""
        self._leases = request_leases.get()
        if self._leases is not None:
            self._leases.add(self)

    def use(self) -> None:
        """Record that the current task uses it."""
        self._task = asyncio.current_task()

    def leave(self) -> bool:
        """Return whether the caller is the one to end it: once, whoever comes first."""
        if self.is_over:
            return False
        self.is_over = True
        if self._leases is not None:
            self._leases.discard(self)
        return True

    def is_abandoned(self, request: asyncio.Task[Any] | None) -> bool:
        """Return whether no task is left that could leave the block.

        Args:
            request: The task of the request, which is over.
        """
        task = self._task
        return task is None or task is request or task.done()

    async def end(self) -> None:
        """End it in place of its block, unless that was left meanwhile. It raises nothing."""
        if self.leave():
            try:
                await self._end()
            except Exception:
                _logger.exception("What a request left open could not be ended in good order")


request_leases: ContextVar[set[OpenLease] | None] = ContextVar("request_leases", default=None)
"""What the request that is running has opened and not left yet; None outside requests."""


async def end_abandoned(leases: set[OpenLease]) -> None:
    """End what a request that is over has left open, even if the caller is cancelled.

    An asynchronous generator that nobody iterates any more is suspended inside its blocks until the
    garbage collector finds it, which may take minutes. What a task that is still running has
    opened, or was given and has used, stays open.

    Args:
        leases: Of the request.
    """
    request = asyncio.current_task()
    await asyncio.shield(asyncio.create_task(_end_abandoned(leases, request)))


async def _end_abandoned(leases: set[OpenLease], request: asyncio.Task[Any] | None) -> None:
    await asyncio.sleep(0)  # a task that was given one may not have begun yet
    abandoned = [lease for lease in leases if lease.is_abandoned(request)]
    await asyncio.gather(*(lease.end() for lease in abandoned))


class LeakDetector:
    """Reports leases that last for longer than ``leak_after``.

    Args:
        ledger: Has the slots.
        policy: Says after how long, and whether the connection is reclaimed.
        listeners: Are told of each leak.
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
        self._listeners.tell(LeaseLeaked(report))
        if self._reclaims:
            why = f"Its connection was checked out for {seconds:.1f} s (leak_after, reclaim_leaks)"
            self._reclaim(slot, lease, why)
