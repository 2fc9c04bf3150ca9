"""The server's own count of a database's connections, taken every ten milliseconds."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from sqlalchemy import make_url

EVERY = 0.01
QUERY = """
    SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%%')
    FROM pg_stat_activity
    WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@dataclass
class BackendCount:
    """What was seen so far."""

    most: int = 0
    now: int = 0
    idle_in_transaction: int = 0
    samples: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


@contextmanager
def counting_backends(database_url: str) -> Iterator[BackendCount]:
    """Count the server processes of a database in a thread of its own."""
    count = BackendCount()
    thread = threading.Thread(target=_sample, args=(database_url, count))
    thread.start()
    try:
        yield count
    finally:
        count.stop.set()
        thread.join()


def _sample(database_url: str, count: BackendCount) -> None:
    url = make_url(database_url)
    with psycopg.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        while not count.stop.wait(EVERY):
            row = connection.execute(QUERY, (url.database,)).fetchone()
            assert row is not None
            count.now, count.idle_in_transaction = row
            count.most = max(count.most, count.now)
            count.samples += 1
