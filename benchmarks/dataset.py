"""The databases that HTTP benchmarks read and write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers import users
from benchmarks.peers.httparena import items
from sqlalchemy import MetaData, create_engine, text
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
SEED_ITEMS = text("""
    INSERT INTO items
    SELECT n, 'Item ' || n, (CAST(:categories AS text[]))[1 + mod(n, 10)],
           1 + floor(random() * 500), 1 + floor(random() * 1000), random() < 0.5,
           to_jsonb((CAST(:tags AS text[]))[1 : 1 + mod(n, 4)]),
           1 + floor(random() * 50), 1 + floor(random() * 500)
    FROM setseed(0.42), generate_series(1, :items) AS n
""").bindparams(
    categories=list(items.CATEGORIES),
    tags=["compact", "eco", "fast", "popular"],
    items=items.ITEMS,
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
def items_database(server: PostgresServer) -> Iterator[str]:
    """Make a database with HttpArena's table of a hundred thousand items; yield its URL."""
    with server.database() as url:
        _fill(url, items.Model.metadata, SEED_ITEMS)
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
