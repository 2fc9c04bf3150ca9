"""The databases that HTTP benchmarks read and write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers import users
from benchmarks.peers.techempower import worlds
from sqlalchemy import MetaData, create_engine, insert, text
from sqlalchemy.sql import Executable
from tests.servers.postgres import (
    PostgresServer,
    own_postgres,
    postgres_programs,
    postgres_server,
)

USERS = 10_000
SETTINGS = {
    # Every peer keeps its connections while the others have their turns.
    "max_connections": "600",
    # Its runs would fall on whoever has a turn just then.
    "autovacuum": "off",
}
SEED_USERS = text("""
    INSERT INTO users (email, username, created_at)
    SELECT 'user' || n || '@example.com', 'user' || n,
           timestamptz '2025-01-01 00:00+00' + n * interval '1 minute'
    FROM generate_series(1, :users) AS n
""").bindparams(users=USERS)
SEED_WORLDS = text("""
    INSERT INTO world (id, randomnumber)
    SELECT n, 1 + floor(random() * :worlds) FROM generate_series(1, :worlds) AS n
""").bindparams(worlds=worlds.WORLDS)
FORTUNES = (
    "An index that nobody reads is still written.",
    "Be kind to the one who is on call: it may be you.",
    "Count the round trips before you count the cores.",
    "Every queue is empty until it is needed.",
    "Measure it twice & change it once.",
    "No plan survives the statistics of last year.",
    "Retry what is safe to repeat, and nothing else.",
    "The fastest query is the one that is not sent.",
    "The lock you forget is the lock you wait for.",
    "Who caches must also forget.",
    '<script>alert("This must be shown, not run.");</script>',
    "急がば回れ",
)
SEED_FORTUNES = insert(worlds.Fortune).values(
    [{"id": number, "message": message} for number, message in enumerate(FORTUNES, 1)]
)


@contextmanager
def roomy_server() -> Iterator[PostgresServer]:
    """Give the server of ``TEST_DATABASE_URL``, else an own one that has room for all peers."""
    programs = None if "TEST_DATABASE_URL" in os.environ else postgres_programs()
    with postgres_server() if programs is None else own_postgres(programs, SETTINGS) as server:
        yield server


@contextmanager
def users_database(server: PostgresServer) -> Iterator[str]:
    """Make a database with ten thousand active users, whose ids begin at 1; yield its URL."""
    with server.database() as url:
        _fill(url, users.Model.metadata, SEED_USERS)
        yield url


@contextmanager
def worlds_database(server: PostgresServer) -> Iterator[str]:
    """Make a database with TechEmpower's tables; yield its URL."""
    with server.database() as url:
        _fill(url, worlds.Model.metadata, SEED_WORLDS, SEED_FORTUNES)
        yield url


def _fill(url: str, tables: MetaData, *statements: Executable) -> None:
    engine = create_engine(url.replace("+asyncpg", "+psycopg"))
    with engine.begin() as connection:
        tables.create_all(connection)
        for statement in statements:
            connection.execute(statement)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
