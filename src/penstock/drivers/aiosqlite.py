"""aiosqlite: what is known of its connections."""

from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from typing_extensions import override

from penstock.drivers.driver import Driver


class Aiosqlite(Driver):
    """aiosqlite: its thread goes on with a cancelled statement, and takes the rollback after it."""

    can_recover = True

    @override
    def owns(self, connection: Any) -> bool:
        return isinstance(connection, AsyncAdapt_aiosqlite_connection) and hasattr(
            type(connection.driver_connection), "in_transaction"
        )

    @override
    def recover(self, connection: Any) -> bool:
        driver = connection.driver_connection
        # Not interrupted: while a cursor is open, SQLite would interrupt the next statement, too.
        connection.rollback()
        return not driver.in_transaction

    @override
    def is_in_transaction(self, connection: Any) -> bool:
        return bool(connection.driver_connection.in_transaction)
