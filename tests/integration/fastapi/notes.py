"""The tables that the tests of sessions write to, and looks at them from outside the pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Model(DeclarativeBase):
    """The registry of the tables below."""


class Note(Model):
    """Something to write; its text is unique."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String, unique=True)
    replies: Mapped[list["Reply"]] = relationship(viewonly=True)


class Reply(Model):
    """Refers to a note, which is checked only at COMMIT."""

    __tablename__ = "replies"
    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int] = mapped_column(
        ForeignKey("notes.id", deferrable=True, initially="DEFERRED")
    )


class Onlooker:
    """A connection of its own, which sees what is committed and what the pool's backends do."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def texts(self) -> list[str]:
        """The committed notes."""
        rows = await self._connection.fetch("SELECT text FROM notes ORDER BY id")
        return [row["text"] for row in rows]

    async def backends(self, state: str | None = None) -> int:
        """How many other connections this database has, all or those in ``state``."""
        count: int = await self._connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND ($1::text IS NULL OR state = $1)",
            state,
        )
        return count

    async def waiters(self) -> int:
        """How many connections of this database wait for a lock."""
        count: int = await self._connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        )
        return count

    async def terminate_others(self) -> None:
        """End every other backend of this database."""
        await self._connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    async def execute(self, statement: str) -> None:
        """Run a statement."""
        await self._connection.execute(statement)


@asynccontextmanager
async def out_of_service(url: str) -> AsyncIterator[None]:
    """Let the database behind ``url`` end its connections and accept no other, for a block."""
    server, _, name = url.rpartition("/")
    connection = await look_at(f"{server}/postgres")
    try:
        await connection.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
        )
        yield
        await connection.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')
    finally:
        await connection.close()


async def look_at(url: str) -> Any:
    """Connect to the database behind ``url``."""
    return await asyncpg.connect(url.replace("+asyncpg", ""))
