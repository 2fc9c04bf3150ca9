"""Databases that last for a whole module, so that its tables are made once."""

from collections.abc import Iterator

import pytest
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="module")
def module_url(postgres: PostgresServer) -> Iterator[str]:
    """The ``postgresql+asyncpg://`` URL of a database that the module's tests share."""
    with postgres.database() as url:
        yield url
