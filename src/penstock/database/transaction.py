"""A transaction or a savepoint that is begun by hand, as operations of the session that writes."""

from collections.abc import Awaitable, Callable
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncSessionTransaction

from penstock.database.unit_session import UnitSession, operation

__all__ = ["WritingTransaction"]


class WritingTransaction(AsyncSessionTransaction):
    """What ``begin()`` and ``begin_nested()`` return: to begin and to end may flush and commit."""

    __slots__ = ()

    session: UnitSession

    async def start(self, is_ctxmanager: bool = False) -> Self:
        """Begin."""
        await _as_operation(self.session, super().start, is_ctxmanager)
        return self

    async def commit(self) -> None:
        """Commit, or release the savepoint."""
        await _as_operation(self.session, super().commit)

    async def rollback(self) -> None:
        """Roll back, to the savepoint if it is one."""
        await _as_operation(self.session, super().rollback)

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Commit; after an error roll back, unless the unit of work has done so already."""
        if error is None or not self.session.is_over:
            await _as_operation(self.session, super().__aexit__, kind, error, traceback)


@operation
async def _as_operation(
    _session: UnitSession, step: Callable[..., Awaitable[Any]], *arguments: Any
) -> Any:
    return await step(*arguments)
