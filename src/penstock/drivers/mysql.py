"""aiomysql and asyncmy."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects.mysql.aiomysql import AsyncAdapt_aiomysql_connection
from sqlalchemy.dialects.mysql.asyncmy import AsyncAdapt_asyncmy_connection

from penstock.drivers.driver import Driver, never, number_of

__all__ = ["Mysql"]

_ADAPTERS = (AsyncAdapt_aiomysql_connection, AsyncAdapt_asyncmy_connection)


class Mysql(Driver):
    """aiomysql and asyncmy: they close a connection whose query is cancelled."""

    def owns(self, connection: Any) -> bool:
        """As the base class says."""
        return isinstance(connection, _ADAPTERS) and hasattr(
            connection.driver_connection, "get_transaction_status"
        )

    def is_closed(self, connection: Any) -> Callable[[], bool]:
        """As the base class says."""
        transport = self._transport(connection)
        return never if transport is None else transport.is_closing

    def fileno(self, connection: Any) -> int | None:
        """As the base class says."""
        transport = self._transport(connection)
        return None if transport is None else number_of(transport)

    def is_in_transaction(self, connection: Any) -> bool:
        """As the base class says."""
        return bool(connection.driver_connection.get_transaction_status())

    @staticmethod
    def _transport(connection: Any) -> Any:
        driver = connection.driver_connection
        if (writer := getattr(driver, "_writer", None)) is not None:  # aiomysql
            return writer.transport
        return getattr(driver, "_transport", None)  # asyncmy
