"""aiomysql and asyncmy: what is known of their connections."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects.mysql.aiomysql import AsyncAdapt_aiomysql_connection
from sqlalchemy.dialects.mysql.asyncmy import AsyncAdapt_asyncmy_connection
from typing_extensions import override

from penstock.drivers.driver import Driver, never, transport_of

_ADAPTERS = (AsyncAdapt_aiomysql_connection, AsyncAdapt_asyncmy_connection)


class Mysql(Driver):
    """aiomysql and asyncmy: they close a connection whose query is cancelled."""

    @override
    def owns(self, connection: Any) -> bool:
        return isinstance(connection, _ADAPTERS) and hasattr(
            connection.driver_connection, "get_transaction_status"
        )

    @override
    def is_closed(self, connection: Any) -> Callable[[], bool]:
        transport = transport_of(connection.driver_connection)
        return never if transport is None else transport.is_closing

    @override
    def fileno(self, connection: Any) -> int | None:
        transport = transport_of(connection.driver_connection)
        return None if transport is None else transport.get_extra_info("socket").fileno()

    @override
    def is_in_transaction(self, connection: Any) -> bool:
        return bool(connection.driver_connection.get_transaction_status())
