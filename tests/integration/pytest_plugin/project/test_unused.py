import os
import sys


def test_nothing_is_imported_started_or_set() -> None:
    assert "pytest_penstock" in sys.modules
    heavy = {"penstock", "sqlalchemy", "asyncpg", "fastapi", "httpx", "alembic"}
    assert heavy.isdisjoint(sys.modules)
    assert "DATABASE_URL" not in os.environ
