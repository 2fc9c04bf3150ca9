"""aiosqlite."""

from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection

from penstock.drivers.driver import Driver

__all__ = ["Aiosqlite"]


class Aiosqlite(Driver):
    """aiosqlite: its thread goes on with a cancelled statement, and takes the rollback after it."""

    can_recover = True

    def owns(self, connection: Any) -> bool:
        """As the base class says."""
        return isinstance(connection, AsyncAdapt_aiosqlite_connection) and hasattr(
            type(connection.driver_connection), "in_transaction"
        )

    def recover(self, connection: Any) -> bool:
        """As the base class says."""
        driver = connection.driver_connection
        # Not interrupted: while a cursor is open, SQLite would interrupt the next statement, too.
        connection.rollback()
        return not driver.in_transaction

    def is_in_transaction(self, connection: Any) -> bool:
        """As the base class says."""
        return bool(connection.driver_connection.in_transaction)
