"""What the express lane does on a connection, and what it does again on another."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol, TypeVar

from penstock.context import Settings
from penstock.express.compiled import Plan
from penstock.express.translation import is_outdated, is_shutdown
from penstock.pool import PenstockPool

T = TypeVar("T")

Use = Callable[[Any, Any, str, Any], Coroutine[Any, Any, Any]]
"""Speaks to the server: given asyncpg's connection, the plan, the SQL and its values."""
Fetch = Callable[[Plan, str, Sequence[Any]], Awaitable[Any]]
"""Runs a further statement in the same transaction, and returns its answer."""
Then = Callable[[Fetch, Any], Awaitable[Any]]
"""Makes results of an answer by further statements; given what runs them, and the answer."""

_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before each further try: none first, and then what a server needs to announce its
shutdown on all connections."""


class Run(Protocol):
    """Runs a statement on a connection that is checked out already."""

    async def __call__(
        self,
        use: Use,
        plan: Any,
        sql: str,
        arguments: Any,
        *,
        apart: Settings | None = None,
        then: Then | None = None,
    ) -> Any:
        """Run it.

        Args:
            use: Sends it and returns the answer.
            plan: Passed on to ``use``.
            sql: The statement.
            arguments: Its values.
            apart: Settings that hold for this statement alone, of which nothing is left in the
                open transaction; None where the statement is a part of that.
            then: What makes the answer's results by further statements; None where it needs none.
        """
        ...


@dataclass(frozen=True)
class Work:
    """One statement, and what its results take.

    Args:
        use: Sends the statement and returns the answer.
        plan: Passed on to ``use``.
        sql: The statement, for the log and an error's text.
        arguments: Its values.
        writes: Whether the server is to let it write.
        settings: Server settings, for this statement alone.
        asked_at: When the connection counts as requested; None for now.
        then: What makes the results by further statements; None where the answer is all.
    """

    use: Use
    plan: Any
    sql: str
    arguments: Sequence[Any]
    writes: bool
    settings: Settings = field(default=(), repr=False)
    asked_at: float | None = None
    then: Then | None = None

    def on(self, driver: Any) -> Coroutine[Any, Any, Any]:
        """Send the statement.

        Args:
            driver: asyncpg's connection.
        """
        return self.use(driver, self.plan, self.sql, self.arguments)

    def may_be_sent_again(self, driver: Any, error: BaseException) -> bool:
        """Return whether an error came from an outdated plan, and nothing was written.

        Args:
            driver: asyncpg's connection.
            error: What it raised.
        """
        # Not a copy, some of whose rows were taken already.
        writes = self.writes and self.then is None  # else it was rolled back
        return isinstance(self.plan, Plan) and is_outdated(driver, error, writes=writes)


class ResultsFailed:
    """Stands for results that could not be made of an answer.

    Args:
        error: What was raised: no error of the driver, whatever its class.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error


class ConnectionLost(Exception):  # noqa: N818 - it says what happened
    """A connection ended before the server had answered.

    Args:
        error: What a session would raise.
        waited: Seconds for which the connection was waited for.
        pool: Whose connection it was.
    """

    def __init__(self, error: BaseException, waited: float, pool: PenstockPool) -> None:
        super().__init__(str(error))
        self.error = error
        self.waited = waited
        self.pool = pool


async def repeated(lost: ConnectionLost, attempt: Callable[..., Awaitable[T]]) -> T:
    """Repeat on another connection what the first one ended without an answer.

    It is repeated once, and again as long as the server says that it shuts down: then on a
    connection that is opened after that. All waits for a connection together are bounded by
    ``pool_timeout``.

    Args:
        lost: How the first attempt ended.
        attempt: Does it; takes ``asked_at``, when its connection counts as requested.

    Returns:
        What the attempt returns.

    Raises:
        sqlalchemy.exc.DBAPIError: As a session would raise it.
    """
    waited = 0.0
    for pause in _PAUSES:
        if pause:  # one connection may be ended alone, two are no chance
            if not is_shutdown(lost.error):
                break
            lost.pool.evict_all()
        await asyncio.sleep(pause)
        waited = max(waited, lost.waited) + pause
        try:
            return await attempt(asked_at=monotonic() - waited)
        except ConnectionLost as again:
            lost = again
    raise lost.error from lost
