"""Results one after another, as the server makes them."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from penstock.context import Settings
from penstock.express.errors import ExpressError
from penstock.express.lanes import Batches, Call, ReadingLane

__all__ = ["Stream"]

_T = TypeVar("_T")

BATCH = 500
"""Rows that a stream asks the server for at a time."""


class Stream(Generic[_T]):
    """A statement's results, while they come; an ``async with``, or an ``async for``.

    Args:
        lane: How the statement is run.
        call: The statement and its values.
        settings: Gives those of the statement's transaction.
    """

    def __init__(
        self,
        lane: ReadingLane,
        call: Call,
        settings: Callable[[], Awaitable[Settings]],
    ) -> None:
        self._lane = lane
        self._call = call
        self._batch = BATCH
        self._settings = settings
        self._opened: AbstractAsyncContextManager[Batches] | None = None

    def yield_per(self, count: int) -> Self:
        """Return the same stream, which asks the server for so many rows at a time.

        Args:
            count: Above 0; no more rows are kept in memory.

        Raises:
            ExpressError: It is below 1.
        """
        if count < 1:
            raise ExpressError(f"yield_per({count!r}): rows above 0 are accepted.")
        self._batch = count
        return self

    async def __aenter__(self) -> AsyncIterator[_T]:
        self._call.settings = await self._settings()
        self._opened = self._lane.stream(self._call, self._batch)
        return _flat(await self._opened.__aenter__())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.__aexit__(kind, error, traceback)

    async def __aiter__(self) -> AsyncGenerator[_T, None]:
        async with self as results:
            async for result in results:
                yield result


async def _flat(batches: Batches) -> AsyncGenerator[Any, None]:
    async for batch in batches:
        for result in batch:
            yield result
