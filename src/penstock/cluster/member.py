"""One server of a cluster: its pool, and what is known of it."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any, NamedTuple

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.cluster.position import Position
from penstock.express import Lane
from penstock.pool import PenstockPool

IS_PRIMARY = "it is the primary"
"""The trouble of a replica that was promoted, and is followed: it serves no reads as a replica."""


class Look(NamedTuple):
    """What a server says of itself.

    Args:
        is_replica: Whether it replays what another server writes.
        lsn: How far it has replayed, or written; None where it does not say.
        timeline: The history that it is known to be in.
        system: The identifier that all servers of a cluster share.
    """

    is_replica: bool
    lsn: int | None
    timeline: int | None
    system: int | None


class History:
    """When the primary was where, so that a replica's position tells how long it is behind.

    PostgreSQL's own ``now() - pg_last_xact_replay_timestamp()`` grows while nothing is written.

    Args:
        size: How many moments are kept; a replica behind them all is behind for ever.
    """

    def __init__(self, size: int = 3600) -> None:
        self._size = size
        self.clear()

    def clear(self) -> None:
        """Forget all, as when another server has become the primary."""
        self._moments: deque[float] = deque(maxlen=self._size)
        self._positions: deque[int] = deque(maxlen=self._size)

    def add(self, lsn: int, now: float) -> None:
        """Take down where the primary is."""
        if not self._positions or lsn > self._positions[-1]:
            self._moments.append(now)
            self._positions.append(lsn)

    def lag(self, lsn: int, now: float) -> float:
        """Return for how many seconds at least a position has been passed; 0 for the last one."""
        passed = bisect_right(self._positions, lsn)
        return now - self._moments[passed] if passed < len(self._moments) else 0.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is.

    Args:
        name: For messages and metrics: its host and port.
        url: For the engine, password included.
        weight: Its share of the reads, against that of others.
        reports_position: Whether what it says of its position holds for all of its connections: not
            where one address stands for several servers.
        hosts: Each host and port that the URL names.
    """

    name: str
    url: SecretStr
    weight: float = 1.0
    reports_position: bool = True
    hosts: tuple[str, ...] = ()


class Member:
    """One server: its engine and lane, and what is known of its health and position.

    It decides nothing and waits for nothing; ``Monitor`` tells it what was seen.

    Args:
        endpoint: Where it is.
        engine: Whose pool has its connections.
        lane: The express lane on that pool.

    Attributes:
        trouble: Why it serves no reads, in words; empty where it may.
        look: What it said last; None before it was first asked.
        lag: Seconds that it is behind; ``inf`` where that is not known.
        served: Reads that it was chosen for.
        wanted: Called when somebody waits for a position; set by the monitor.
    """

    def __init__(self, endpoint: Endpoint, engine: AsyncEngine, lane: Lane) -> None:
        self.endpoint = endpoint
        self.name, self.weight = endpoint.name, endpoint.weight
        self.engine = engine
        self.lane = lane
        self.trouble = "it was not asked yet"
        self.look: Look | None = None
        self.lag = inf
        self.turn = 0.0
        """Grows by ``1 / weight`` with each read: of those with equal load the lowest is next."""
        self.served = 0
        self.wanted: Callable[[], None] = lambda: None
        self.readers: set[asyncio.Task[Any]] = set()
        """Tasks of which each waits for one answer of it, which another may give."""
        self.moved: set[asyncio.Task[Any]] = set()
        """Those of them that were cancelled because it does not answer."""
        self._waiters: list[tuple[int, int, Any]] = []
        self._numbers = count()

    @property
    def lsn(self) -> int:
        """How far it is known to be; -1 where nothing is known."""
        look = self.look
        return -1 if look is None or look.lsn is None else look.lsn

    @property
    def role(self) -> str:
        """What it said that it is: ``primary`` or ``replica``; ``unknown`` before that."""
        if self.look is None:
            return "unknown"
        return "replica" if self.look.is_replica else "primary"

    @property
    def load(self) -> float:
        """Connections in use and callers in line, for each unit of its weight."""
        pool = self.engine.pool
        if not isinstance(pool, PenstockPool):
            return 0.0
        return pool.in_flight / self.weight

    def has(self, position: Position, now: float, longest_lag: float) -> bool:
        """Return whether it shows what was written up to a position.

        Args:
            position: Of a write.
            now: Seconds since the epoch.
            longest_lag: Seconds after which one that reports no position counts as there.
        """
        look = self.look
        if look is None:
            return False
        if look.lsn is None or not self.endpoint.reports_position:
            return now - position.written_at > longest_lag
        return look.lsn >= position.lsn and (look.timeline or 0) >= position.timeline

    def seen(self, look: Look, lag: float, trouble: str) -> None:
        """Take down what it said, and wake those that waited for its position.

        Args:
            look: What it said.
            lag: Seconds that it is behind.
            trouble: Why it serves no reads; empty where it may.
        """
        self.look, self.lag, self.trouble = look, lag, trouble
        while self._waiters and (trouble or self._waiters[0][0] <= self.lsn):
            _, _, waiter = heappop(self._waiters)
            if not waiter.done():
                waiter.set_result(None)

    def failed(self, why: str) -> None:
        """Leave it out until it has answered again."""
        self.trouble, self.lag = why, inf
        waiters, self._waiters = self._waiters, []
        for _, _, waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def move_readers(self) -> None:
        """Have those who wait for an answer of it ask another."""
        for task in self.readers - self.moved:
            self.moved.add(task)
            task.cancel()

    def was_moved(self, task: "asyncio.Task[Any]") -> bool:
        """Return whether a task was cancelled for that, and for nothing else."""
        if task not in self.moved:
            return False
        self.moved.discard(task)
        return task.uncancel() == 0

    def evict(self) -> None:
        """Have each of its connections replaced."""
        pool = self.engine.pool
        if isinstance(pool, PenstockPool) and not pool.has_outlived_its_loop():
            pool.evict_all()

    async def close(self, seconds: float) -> None:
        """Close its connections.

        Args:
            seconds: To wait for what is checked out.
        """
        pool = self.engine.pool
        try:
            if isinstance(pool, PenstockPool):
                await pool.drain(seconds)
        finally:
            await self.engine.dispose()

    def wait_for(self, lsn: int, waiter: Any) -> None:
        """Have a future set once a position is reached, or the server is in trouble.

        Args:
            lsn: The position.
            waiter: The future; one that is cancelled is passed over.
        """
        heappush(self._waiters, (lsn, next(self._numbers), waiter))
        self.wanted()

    def is_awaited(self) -> bool:
        """Return whether anybody waits for its position."""
        while self._waiters and self._waiters[0][2].done():
            heappop(self._waiters)
        return bool(self._waiters)
