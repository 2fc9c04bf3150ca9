"""A server that is tuned as the project proposes, and one on which everything is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.doctor.provocations import WRONG_SETTINGS
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer, own_postgres, postgres_programs

TUNED = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "64MB",
    "checkpoint_completion_target": "0.9",
    "wal_buffers": "16MB",
    "default_statistics_target": "100",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "work_mem": "4MB",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
"""A machine of 4 GB; the last three undo what the tests' other servers gain speed by."""

PROVOKED = {
    **TUNED,
    "max_connections": "20",
    "shared_buffers": "128MB",
    "min_wal_size": "80MB",
    "wal_level": "logical",
    "max_prepared_transactions": "5",
    "archive_mode": "on",
    "deadlock_timeout": "10ms",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.max": "100",
    # Nothing may repair meanwhile what a test has broken.
    "autovacuum_naptime": "1h",
}
UNTUNED = {each.name: each.value for each in WRONG_SETTINGS if each.value} | {
    "wal_buffers": "32kB",
}


def programs() -> Path:
    """The programs that run the tests' servers."""
    found = postgres_programs()
    require_part("PostgreSQL", present=found, remedy="set TEST_POSTGRES_BIN")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def tuned() -> Iterator[PostgresServer]:
    """A fresh server with the proposed settings."""
    with own_postgres(programs(), TUNED) as server:
        yield server


@pytest.fixture(scope="module")
def provoked() -> Iterator[PostgresServer]:
    """A small server on which each test breaks one thing and mends it."""
    with own_postgres(programs(), PROVOKED) as server:
        yield server


@pytest.fixture(scope="module")
def untuned() -> Iterator[PostgresServer]:
    """A server with bad values of what only a restart would change."""
    with own_postgres(programs(), UNTUNED) as server:
        yield server
