"""What clients of a pooler leave on the server connections that they share."""

import asyncio
from contextlib import ExitStack

import psycopg
from sqlalchemy import make_url

SERVERS = 4
"""Server connections of each pooler in these tests."""

# Without those settings that PgBouncer itself keeps for each client.
ASK = """
SELECT pg_backend_pid(),
    ARRAY(SELECT 'prepared ' || statement FROM pg_prepared_statements)
    || ARRAY(SELECT 'cursor ' || name FROM pg_cursors WHERE name <> '')
    || ARRAY(SELECT locktype || ' lock' FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype = 'advisory')
    || ARRAY(SELECT name || ' = ' || setting FROM pg_settings
        WHERE name = 'transaction_read_only' AND setting <> 'off' OR source = 'session'
        AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'IntervalStyle',
            'TimeZone', 'standard_conforming_strings'))
"""
CLEAN: list[list[str]] = [[]] * SERVERS


async def leftovers(url: str) -> list[list[str]]:
    """Say what is left on each of the server connections, as another client of theirs finds it.

    Args:
        url: Of the database, for the role whose connections they are, through the pooler.
    """
    # In a thread: the pool of the test may have something to clean up at this very moment.
    return await asyncio.to_thread(_ask_all, url)


def _ask_all(url: str) -> list[list[str]]:
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with ExitStack() as clients:
        # None of them ends its transaction, so that each has a server connection of its own.
        answers = [
            clients.enter_context(psycopg.connect(address)).execute(ASK).fetchone()
            for _ in range(SERVERS)
        ]
    assert len({answer[0] for answer in answers if answer}) == SERVERS
    return [answer[1] for answer in answers if answer]
