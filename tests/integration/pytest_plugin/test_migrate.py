"""Migrations of a test run, whose files name other databases."""

from pathlib import Path

import pytest
from tests.integration.migrations.project import Project
from tests.servers.postgres import PostgresServer

from pytest_penstock.migrate import OnTestDatabase

ELSEWHERE = "postgresql://user:password@127.0.0.1:1/production"
BY_ALEMBIC = """
import asyncio
from alembic import context
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def main(url):
    async with create_async_engine(url, poolclass=NullPool).begin() as connection:
        await connection.run_sync(migrate)

asyncio.run(main(context.config.get_main_option("sqlalchemy.url")))
"""
BY_SETTINGS = f"""
from sqlalchemy import MetaData
from penstock.migrations import run
from penstock.settings import DatabaseSettings
run(MetaData(), DatabaseSettings.of("{ELSEWHERE}"))
"""
BY_ENVIRONMENT = """
from sqlalchemy import MetaData
from penstock.migrations import run
run(MetaData())
"""


WAYS = {
    "its template": (BY_ALEMBIC, "postgresql+asyncpg"),
    "its template, psycopg": (BY_ALEMBIC, "postgresql+psycopg"),
    "its template, as it comes": (BY_ALEMBIC, "driver"),
    "own settings": (BY_SETTINGS, "postgresql"),
    "the environment": (BY_ENVIRONMENT, "postgresql"),
}


@pytest.mark.parametrize("way", WAYS)
def test_they_run_on_the_test_database(
    tmp_path: Path,
    postgres: PostgresServer,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    env, driver = WAYS[way]
    monkeypatch.setenv("DATABASE_URL", ELSEWHERE)
    project = Project(tmp_path, database_url)
    project.add("op.create_table('words', sa.Column('id', sa.Integer))")
    (tmp_path / "env.py").write_text(env)
    named = ELSEWHERE.replace("postgresql", driver)
    (tmp_path / "alembic.ini").write_text(
        f"[alembic]\nscript_location = {tmp_path}\npath_separator = os\nsqlalchemy.url = {named}"
    )

    arguments = ["--config", str(tmp_path / "alembic.ini"), "upgrade", "heads"]
    OnTestDatabase(database_url).main(arguments)

    found = postgres.execute("SELECT to_regclass('words')::text", database_url.rpartition("/")[2])
    assert found == [("words",)]
