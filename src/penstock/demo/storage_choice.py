"""Which database the demo uses."""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from penstock.demo.embedded_postgres import EmbeddedPostgres
from penstock.demo.own_schema import OwnSchema
from penstock.demo.postgres_programs import PostgresUnavailable
from penstock.demo.sqlite_file import sqlite_file
from penstock.demo.storage import Storage

__all__ = ["open_storage"]


async def open_storage(
    stack: AsyncExitStack, directory: Path, say: Callable[[str], None]
) -> Storage:
    """Open a schema on the server of ``DATABASE_URL``, or else an own PostgreSQL, or else SQLite.

    Args:
        stack: Puts the database away when it closes; also if this fails or is cancelled.
        directory: Where an SQLite file may go.
        say: Tells a person which database it is, and why.

    Raises:
        SettingsError: ``DATABASE_URL`` or a variable beside it is of no use.
        PenstockError: The server of ``DATABASE_URL`` cannot be reached or refuses.
    """
    if any(name.upper() == "DATABASE_URL" for name in os.environ):
        schema = OwnSchema()
        say("DATABASE_URL is set: using its server, in a schema of its own, dropped at the end")
        stack.push_async_callback(schema.stop)
        return await schema.start()
    say("Starting a PostgreSQL of its own in a temporary directory")
    server = EmbeddedPostgres()
    stack.push_async_callback(server.stop)
    try:
        return await server.start()
    except PostgresUnavailable as reason:
        say(f"The embedded PostgreSQL does not run on this machine. {reason}")
        say("Using SQLite in a temporary file instead: its figures say nothing about PostgreSQL")
        return sqlite_file(directory)
