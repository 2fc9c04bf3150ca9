"""The one way in which a network driver opens a connection: in time, or with an error that says."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.engine.address import address_of
from penstock.pool.failure import ConnectFailed, FailureReason, let_go, reason_of
from penstock.settings import DatabaseSettings

__all__ = ["Connector", "connect_failed"]


def _as_it_is(_: dict[str, Any], __: Exception) -> None:
    return None


class Connector:
    """Opens connections for SQLAlchemy, whose dialects call it instead of the driver.

    Args:
        settings: With the limit, and what the connections are to be equipped with.
        connect: The driver's own connect.
        equip: Sets on a new connection what no argument of ``connect`` can.
        discard: Closes a connection that could not be equipped, without waiting.
        simplify: Given the arguments and the error of a connect that failed, returns other ones
            which the server may understand; None where it cannot help.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        connect: Callable[..., Awaitable[Any]],
        equip: Callable[[Any, DatabaseSettings], None],
        discard: Callable[[Any], None],
        simplify: Callable[[dict[str, Any], Exception], dict[str, Any] | None] = _as_it_is,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._equip = equip
        self._discard = discard
        self._simplify = simplify

    async def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Open one connection with the driver's arguments.

        Returns:
            The driver's connection.

        Raises:
            ConnectFailed: It took longer than ``connect_timeout``, or failed.
        """
        limit = asyncio.timeout(self._settings.connect_timeout)
        try:
            async with limit:
                return self._equipped(await self._connected(args, arguments))
        except Exception as error:
            let_go(error)
            raise connect_failed(self._settings, error, timed_out=limit.expired()) from error
        except BaseException as error:
            let_go(error)
            raise

    async def _connected(self, args: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        try:
            return await self._connect(*args, **arguments)
        except Exception as error:
            simpler = self._simplify(arguments, error)
            if simpler is None:
                raise
            let_go(error)
        return await self._connect(*args, **simpler)

    def _equipped(self, connection: Any) -> Any:
        try:
            self._equip(connection, self._settings)
        except Exception:
            self._discard(connection)
            raise
        return connection


def connect_failed(
    settings: DatabaseSettings, error: Exception, *, timed_out: bool = False
) -> ConnectFailed:
    """Put a driver's error into the words that all drivers share.

    Args:
        settings: Of the database that was to be reached.
        error: What the driver raised.
        timed_out: Whether ``connect_timeout`` had passed.

    Returns:
        The error to raise from the driver's.
    """
    attempt = f"{settings.driver} opened no connection to {address_of(settings)}"
    if timed_out:
        limit = f"within connect_timeout={settings.connect_timeout:g} s"
        why = "no answer in time (pool_timeout is another limit, on waiting for the pool)"
        return ConnectFailed(f"{attempt} {limit}: {why}", FailureReason.TIMEOUT)
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    if "unsupported startup parameter" in cause:  # PgBouncer's words, SQLSTATE 08P01
        cause += " (a pooler is in between, of which the setting proxy should tell)"
    return ConnectFailed(f"{attempt}: {cause}", reason_of(error))
