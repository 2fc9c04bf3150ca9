"""What the code of a request opens by itself, and ends at the latest with the request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

__all__ = ["OpenLease", "end_abandoned", "request_leases"]

_logger = logging.getLogger(__name__)


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
