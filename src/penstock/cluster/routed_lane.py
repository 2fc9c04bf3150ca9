"""The express lane over a cluster: reads by the replicas, writes by the primary."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.cluster.cluster import Cluster
from penstock.cluster.member import Member
from penstock.cluster.position import ReadPolicy, Reads, current_reads
from penstock.context import Settings
from penstock.express import CommitOutcomeUnknown, Lane, Query
from penstock.express.lane import Batches, Copy, Extract, OpenLane
from penstock.express.query import Call
from penstock.pool import ConnectFailed, PoolTimeout
from penstock.pool.errors import chain_of

_T = TypeVar("_T")
_RECOVERY_CONFLICT = "40001"
"""On a replica: what it replays would have removed rows that the statement sees."""
_PAUSE = 0.05
"""Seconds until a write is sent again that a server has refused because it shuts down."""
_GONE = ("08", "57P01", "57P02", "57P03")


def is_left(error: Exception) -> bool:
    """Return whether a read may be made by another server: this one is gone, or in conflict.

    Args:
        error: As a session or the express lane would raise it.
    """
    if isinstance(error, ConnectFailed):
        return True
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError) and not isinstance(error, TimeoutError)
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or sqlstate.startswith((*_GONE, _RECOVERY_CONFLICT))


def is_conflict(error: Exception) -> bool:
    """Return whether what the replica replays was in the way: any other is in the same place."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == _RECOVERY_CONFLICT


def was_refused(error: BaseException) -> bool:
    """Return whether the server has ended the connection in the place of answering.

    PostgreSQL says that it shuts down (57P01) only while it waits for a message or for something
    within the statement. Once a commit is in its log it looks for nothing of the kind until it has
    answered; while it waits for a synchronous replica, it closes the connection without a word
    (syncrep.c). So what has this answer has saved nothing.

    Args:
        error: As the express lane raises it for a write.
    """
    return any(
        getattr(link, "sqlstate", None) == "57P01" for link in chain_of(error, causes_only=True)
    )


class RoutedLane:
    """Statements on the servers of a cluster.

    Args:
        cluster: Its primary writes, and whichever it chooses reads.
        reads: What reads have to see; None for what the running request or task has to.
    """

    __slots__ = ("_cluster", "_primary", "_reads")

    def __init__(self, cluster: Cluster, reads: Reads | None = None) -> None:
        self._cluster = cluster
        self._primary = cluster.primary.lane
        self._reads = reads

    def seeing(self, reads: Reads) -> "RoutedLane":
        """Return the lane whose reads have to see what is given."""
        return RoutedLane(self._cluster, reads)

    async def read(self, call: Call, extract: Extract) -> Any:
        """Read by a replica; by another, or the primary, where that one fails."""
        reads = self._reads or current_reads.get()
        tried: set[Member] = set()
        while True:
            member = self._cluster.choose(reads) or await self._cluster.chosen(reads)
            if member is self._cluster.primary or member in tried:
                break
            _served(reads, self._cluster, member)
            task: Any = asyncio.current_task()
            member.readers.add(task)
            try:
                return await member.lane.read(call, extract)
            except asyncio.CancelledError:
                if not member.was_moved(task):
                    raise
                tried.add(member)
            except Exception as error:
                if not is_left(error):
                    raise
                if is_conflict(error):
                    break
                self._cluster.unfit(member, error)
                tried.add(member)
            finally:
                member.readers.discard(task)
                member.moved.discard(task)
        _served(reads, self._cluster, self._cluster.primary)
        if not self._is_fallback(reads):
            return await self._primary.read(call, extract)
        async with self._cluster.share_of_primary():
            return await self._primary.read(call, extract)

    def _is_fallback(self, reads: Reads | None) -> bool:
        return bool(self._cluster.replicas) and (reads is None or not reads.policy.primary)

    def read_within(
        self, connection: AsyncConnection, call: Call, extract: Extract
    ) -> Coroutine[Any, Any, Any]:
        """Read on a connection that the caller holds, of whichever server."""
        return self._primary.read_within(connection, call, extract)

    @asynccontextmanager
    async def stream(self, call: Call, batch: int) -> AsyncIterator[Batches]:
        """Give results as one server makes them."""
        async with self._on_one() as lane, lane.stream(call, batch) as batches:
            yield batches

    @asynccontextmanager
    async def reading(self, call: Call) -> AsyncIterator[OpenLane]:
        """Give a lane in a transaction of one server that only reads."""
        async with self._on_one() as lane, lane.reading(call) as opened:
            yield opened

    @asynccontextmanager
    async def snapshot(self, settings: Settings = ()) -> AsyncIterator[OpenLane]:
        """Give a lane whose statements all see one server's database at one moment."""
        async with self._on_one() as lane, lane.snapshot(settings) as opened:
            yield opened

    @asynccontextmanager
    async def _on_one(self) -> AsyncIterator[Lane]:
        reads = self._reads or current_reads.get()
        async with on_one(self._cluster, reads) as member:
            yield member.lane

    def write(self, call: Call, extract: Extract) -> Coroutine[Any, Any, Any]:
        """Write by the primary."""
        return self._written(self._primary.write, call, extract)

    def execute(self, call: Call) -> Coroutine[Any, Any, int]:
        """Write by the primary, and return how many rows."""
        return self._written(self._primary.execute, call)

    def execute_many(
        self, query: Query[Any], rows: Sequence[Mapping[str, Any]], settings: Settings = ()
    ) -> Coroutine[Any, Any, None]:
        """Write several rows by the primary."""
        return self._written(self._primary.execute_many, query, rows, settings)

    async def copy(self, copy: Copy, settings: Settings = ()) -> int:
        """Write rows in bulk by the primary; sent once, for they may come from a stream."""
        try:
            return await self._primary.copy(copy, settings)
        finally:
            self._cluster.written()

    async def _written(self, method: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any) -> _T:
        until = monotonic() + self._cluster.policy.hold_writes
        while True:
            is_sent = True
            try:
                return await method(*arguments)
            except (ConnectFailed, PoolTimeout):
                is_sent = False
                raise
            except CommitOutcomeUnknown as error:
                may_repeat = was_refused(error) and self._cluster.is_direct()
                if not may_repeat or monotonic() > until:
                    raise
            finally:  # also where its outcome is not known
                if is_sent:
                    self._cluster.written()
            self._cluster.evict_primary()
            await asyncio.sleep(_PAUSE)


@asynccontextmanager
async def on_one(cluster: Cluster, reads: Reads | None) -> AsyncIterator[Member]:
    """Give the server that reads for the length of a block.

    Args:
        cluster: Which chooses.
        reads: What has to be seen.
    """
    member = await cluster.chosen(reads)
    _served(reads, cluster, member)
    is_fallback = bool(cluster.replicas) and (reads is None or not reads.policy.primary)
    if member is cluster.primary and is_fallback:
        async with cluster.share_of_primary():
            yield member
    else:
        yield member


def _served(reads: Reads | None, cluster: Cluster, member: Member) -> None:
    member.served += 1
    if reads is not None:
        reads.served_by[cluster] = member


class Route:
    """The way of one reading session to the server that it reads from.

    Args:
        cluster: Chooses the server.
        reads: What the session has to see; None for what the request or the task has to.
    """

    def __init__(self, cluster: Cluster, reads: Reads | None) -> None:
        self._cluster = cluster
        self._reads = reads
        self._chosen = AsyncExitStack()
        self._member: Member | None = None

    async def source(self) -> AsyncEngine:
        """Choose the server, and return its engine."""
        reads = self._reads or current_reads.get()
        self._member = await self._chosen.enter_async_context(on_one(self._cluster, reads))
        return self._member.engine

    def other(self, error: Exception) -> "Route | None":
        """Return the way to another server; None where this one is not left for an error."""
        member, reads = self._member, self._reads
        if member is None or member is self._cluster.primary or not is_left(error):
            return None
        if is_conflict(error):
            reads = self._cluster.reads(None, ReadPolicy(primary=True))
        else:
            self._cluster.unfit(member, error)
        return Route(self._cluster, reads)

    async def end(self) -> None:
        """Give back what the choice holds."""
        await self._chosen.aclose()
