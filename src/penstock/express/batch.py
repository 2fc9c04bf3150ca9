"""Reads of one statement that leave together, because others of it are under way already."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

from asyncpg.pgproto import pgproto

from penstock.context import Settings
from penstock.deadlines import Limits, current_limits
from penstock.drivers.asyncpg import StatementNotKept, fetch_each
from penstock.drivers.row_counter import RowCounter
from penstock.express.compiled import Plan
from penstock.express.execution import Observer
from penstock.express.pace import FIRST, MOST_BYTES
from penstock.express.work import ConnectionLost, Work, repeated
from penstock.pool import holds_connection

WORTH = 2
"""Reads under way from which on a further one waits for the rest of the event loop's turn, to leave
with those that arrive in it: with fewer, a batch costs as much as it saves."""
MOST_PASSED = 64
"""Reads that leave at once, however many are under way, after several in a row had no company."""
BATCH_TIMEOUT = 0.1
"""Seconds after which a batch without an answer is cancelled, and each of its reads sent alone: one
that waits for a lock does not hold up the others."""
SPARE = 4 * BATCH_TIMEOUT
"""Seconds that a caller has to have left for a read that may lose ``BATCH_TIMEOUT`` to others'."""
_EXACT = frozenset({bool, bytes, int, str, pgproto.UUID, UUID, type(None)})
"""Types whose equal values are the same to the server, and cannot be changed."""

MOST_GROUPS = 1000
"""Statements and contexts that are kept in mind beside those that are under way."""

_Together = Callable[[Work], Awaitable[Any]]
_Answer = asyncio.Future[Any]
"""The records; None where the read is to be sent alone."""
_Key = tuple[Plan, str, Settings, float | None]
"""The statement and its text, and the server's settings and the statement timeout it runs with."""


class _NobodyWaits(Exception):  # noqa: N818 - it says what happened
    """All callers have gone: what was sent in front, as settings, is to be of no other's lease."""


class _Batch:
    """Reads that leave together.

    Args:
        loop: In which their callers run.

    Attributes:
        loop: The same.
        task: Sends them.
        departed: Set when they are sent, or will not be.
        began: When they were sent; None before.
        seconds: What the answer took, or what was waited for it.
    """

    __slots__ = (
        "_answers",
        "_arguments",
        "_living",
        "began",
        "departed",
        "loop",
        "seconds",
        "task",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task: asyncio.Task[None] | None = None
        self.departed = asyncio.Event()
        self.began: float | None = None
        self.seconds = 0.0
        self._arguments: list[Sequence[Any]] = []
        self._answers: list[_Answer] = []
        self._living = 0

    @property
    def size(self) -> int:
        """How many reads it has."""
        return len(self._arguments)

    @property
    def living(self) -> int:
        """How many callers have not gone."""
        return self._living

    def add(self, arguments: Sequence[Any]) -> _Answer:
        """Add a read, and return its answer to be.

        Args:
            arguments: Of the statement.
        """
        answer = self.loop.create_future()
        self._arguments.append(arguments)
        self._answers.append(answer)
        self._living += 1
        return answer

    def leave(self) -> None:
        """Have one caller less; without any, it wants no connection, and the server is to stop."""
        self._living -= 1
        if not self._living and self.task is not None:
            self.task.cancel()

    def distinct(self, *, may_share: bool) -> dict[Any, tuple[Sequence[Any], list[_Answer]]]:
        """Return the arguments of those who still wait, each with all who wait for it.

        Args:
            may_share: Whether equal arguments are sent once.
        """
        reads: dict[Any, tuple[Sequence[Any], list[_Answer]]] = {}
        for number, (arguments, answer) in enumerate(
            zip(self._arguments, self._answers, strict=True)
        ):
            if answer.done():
                continue
            types = tuple(map(type, arguments))
            key = (types, *arguments) if may_share and _EXACT.issuperset(types) else number
            reads.setdefault(key, (arguments, []))[1].append(answer)
        return reads

    def send_alone(self) -> None:
        """Tell those who still wait that each is to be sent alone."""
        if self.began is not None:
            self.seconds = monotonic() - self.began
        for answer in self._answers:
            _answer(answer, None)


def _answer(answer: _Answer, records: Sequence[Any] | None) -> None:
    if not answer.done():
        answer.set_result(records)


class Group:
    """The reads that may leave together: of one statement, in one context.

    Args:
        key: What they have in common.
        together: Sends a batch on a connection of its own.
        observer: Is told of each read that was sent with others.

    Attributes:
        under_way: How many reads were sent and are not answered.
    """

    __slots__ = (
        "_crowd",
        "_gathering",
        "_observer",
        "_passing",
        "_pause",
        "_plan",
        "_settings",
        "_sql",
        "_statement_timeout",
        "_together",
        "under_way",
    )

    def __init__(self, key: _Key, together: _Together, observer: Observer) -> None:
        self._plan, self._sql, self._settings, self._statement_timeout = key
        self._together = together
        self._observer = observer
        self._gathering: _Batch | None = None
        """The batch that has no connection yet."""
        self._crowd = 0
        """How many were under way or gathered at once, of late."""
        self._passing = 0
        """How many of the next reads leave at once, as the latest had no company."""
        self._pause = 1
        """How many those were the last time."""
        self.under_way = 0

    @property
    def is_idle(self) -> bool:
        """Whether no read is under way or waits for a connection."""
        return not self.under_way and self._gathering is None

    async def read(self, arguments: Sequence[Any], send: Callable[..., Awaitable[Any]]) -> Any:
        """Run the statement, with others if some are under way.

        Args:
            arguments: Of the statement.
            send: Sends it alone; takes ``asked_at``, when its connection counts as requested.

        Returns:
            The records, or what ``send`` returns.
        """
        asked_at = None
        if self._passing:
            self._passing -= 1
        elif max(self._crowd, self.under_way) >= WORTH:
            most = self._plan.pace.most()
            if most > 1 and not holds_connection():
                asked_at, batch = monotonic(), self._batch(most)
                records = await self._join(batch, arguments)
                if records is not None:
                    return records
                asked_at += batch.seconds  # in which it waited for no connection
        self.under_way += 1
        try:
            return await send(asked_at=asked_at)
        except ConnectionLost as lost:
            return await repeated(lost, send)
        finally:
            self.under_way -= 1

    def _batch(self, most: int) -> _Batch:
        """Return the batch that gathers reads; a new one if it has so many."""
        loop = asyncio.get_running_loop()
        batch = self._gathering
        most = min(most, max(FIRST, self._crowd // 2))  # two, for the server answers while we work
        if batch is None or batch.size >= most or batch.loop is not loop:
            return self._begin(loop)
        return batch

    async def _join(self, batch: _Batch, arguments: Sequence[Any]) -> Any:
        answer = batch.add(arguments)
        self._crowd = max(self._crowd, self.under_way + batch.size)
        try:
            records = await self._await(batch, answer)
        except asyncio.CancelledError:
            answer.cancel()
            batch.leave()
            raise
        if records is not None:
            self._observer.count(self._sql)
            self._observer.report_slow(self._sql, batch.seconds, records)
        return records

    async def _await(self, batch: _Batch, answer: _Answer) -> Any:
        if not self._observer.spans:
            return await answer

        async def answered(*_: Any) -> Any:
            return await answer

        await batch.departed.wait()
        if answer.done() and answer.result() is None:
            return None
        return await self._observer.traced(answered)(None, self._plan, self._sql, ())

    def _begin(self, loop: asyncio.AbstractEventLoop) -> _Batch:
        self._gathering = batch = _Batch(loop)
        # Nothing of the first caller's: neither its limits nor its spans.
        context = Context()
        if self._statement_timeout is not None:
            context.run(current_limits.set, Limits(self._statement_timeout))
        # No task factory's, which may be eager: it would begin before the first read is added.
        batch.task = asyncio.Task(self._run(batch), loop=loop, context=context)
        batch.task.add_done_callback(lambda _: self._end(batch))  # which may not even have begun
        return batch

    async def _run(self, batch: _Batch) -> None:
        self._crowd = max(batch.living, self._crowd - 1 - self._crowd // 8)
        if batch.living <= 1:
            self._passing = self._pause = min(MOST_PASSED, 2 * self._pause)
            return
        self._pause = 1
        send = partial(self._send, batch)
        work = Work(send, self._plan, self._sql, (), writes=False, settings=self._settings)
        try:
            await self._together(work)
        except StatementNotKept:
            self._plan.pace.is_kept = False
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whom it concerns meets it alone
            if batch.living:
                self._plan.pace.rest()

    def _end(self, batch: _Batch) -> None:
        self._depart(batch)
        batch.send_alone()

    def _depart(self, batch: _Batch) -> None:
        batch.departed.set()
        if self._gathering is batch:
            self._gathering = None

    async def _send(self, batch: _Batch, driver: Any, _: Any, sql: str, __: Any) -> None:
        self._depart(batch)
        reads = batch.distinct(may_share=self._plan.may_share)
        if not reads:
            raise _NobodyWaits
        count, batch.began = batch.size, monotonic()
        self.under_way += count
        with _limited(batch) as counter:
            arguments = [each for each, _ in reads.values()]
            try:
                answers = await fetch_each(driver, sql, arguments, counter)
            finally:
                self.under_way -= count
        batch.seconds = monotonic() - batch.began
        self._plan.pace.note_batch(batch.seconds, len(reads), counter.received)
        for (_, waiting), records in zip(reads.values(), answers, strict=True):
            for answer in waiting:
                _answer(answer, records)


@contextmanager
def _limited(batch: _Batch) -> Iterator[RowCounter]:
    """Cancel a batch that takes too long, or whose answers are too large."""
    task: Any = batch.task
    timer = asyncio.get_running_loop().call_later(BATCH_TIMEOUT, task.cancel)
    try:
        yield RowCounter(MOST_BYTES, task.cancel)
    finally:
        timer.cancel()


class Batching:
    """Finds the group of each read.

    Args:
        together: Sends a batch on a connection of its own.
        observer: Is told of each read that was sent with others.
    """

    def __init__(self, together: _Together, observer: Observer) -> None:
        self._groups: dict[_Key, Group] = {}
        self._together = together
        self._observer = observer

    def group(self, plan: Plan, sql: str, settings: Settings) -> Group | None:
        """Return the group of a read; None where it has too little time for others.

        Args:
            plan: The statement's.
            sql: Its text.
            settings: Of the server, for this read.
        """
        limits = current_limits.get()
        key: _Key
        if limits is None:
            key = (plan, sql, settings, None)
        elif _leaves_little(limits):
            return None
        else:
            key = (plan, sql, settings, limits.statement_timeout)
        return self._groups.get(key) or self._new(key)

    def _new(self, key: _Key) -> Group:
        if len(self._groups) >= MOST_GROUPS:
            self._groups = {k: group for k, group in self._groups.items() if not group.is_idle}
        self._groups[key] = group = Group(key, self._together, self._observer)
        return group


def _leaves_little(limits: Limits) -> bool:
    statement_timeout, deadline = limits.statement_timeout, limits.deadline
    if statement_timeout is not None and statement_timeout < SPARE:
        return True
    return deadline is not None and deadline.at - monotonic() < SPARE
