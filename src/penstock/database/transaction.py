"""A transaction or a savepoint that is begun by hand, as operations of the session that writes."""

from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from penstock.database.commit import committing
from penstock.database.unit_session import UnitSession, operation

__all__ = ["WritingTransaction"]


_Step: TypeAlias = Callable[..., Awaitable[Any]]


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
        await _as_operation(self.session, self._committing, super().commit)

    async def rollback(self) -> None:
        """Roll back, to the savepoint if it is one."""
        await _as_rollback(self.session, super().rollback)

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Commit; after an error roll back, unless the unit of work has done so already."""
        leave = super().__aexit__
        if error is None:
            await _as_operation(self.session, self._committing, leave, kind, error, traceback)
        elif not self.session.is_over:
            await _as_rollback(self.session, leave, kind, error, traceback)

    async def _committing(self, step: _Step, *arguments: Any) -> Any:
        if self.nested:
            return await step(*arguments)
        if self.is_active:
            await AsyncSession.flush(self.session)  # a failure of which is none of the COMMIT
        with committing():
            return await step(*arguments)


async def _step(_session: UnitSession, step: _Step, *arguments: Any) -> Any:
    return await step(*arguments)


_as_operation = operation(_step)
_as_rollback = operation(_step, is_bounded=False)
