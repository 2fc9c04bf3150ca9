from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select

from penstock import Database
from penstock.demo.users import Base, User, upgrade
from penstock.migrations import MigrationFailed


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return Database.from_url(f"sqlite:///{tmp_path / 'users.db'}", environment="testing")
    return Database.from_url(request.getfixturevalue("database_url"), environment="testing")


def differences(connection: Connection) -> object:
    # SQLite reports no default for the identity column that it does not know as such.
    options = {"compare_server_default": connection.dialect.name == "postgresql"}
    return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)


async def test_the_migrated_schema_is_the_models(database: Database) -> None:
    async with database:
        await upgrade(database)

        async with database.engine.connect() as connection:
            assert await connection.run_sync(differences) == []


async def test_the_comparison_would_see_a_difference(database: Database) -> None:
    async with database, database.engine.connect() as connection:
        assert await connection.run_sync(differences) != []


async def test_a_second_upgrade_changes_nothing(database: Database) -> None:
    async with database:
        await upgrade(database)
        async with database.write() as session:
            session.add(User(email="ada@example.com", username="ada", hashed_password="-"))

        await upgrade(database)

        async with database.read() as session:
            (user,) = (await session.scalars(select(User))).all()
    assert (user.id, user.is_active) == (1, True)
    assert user.created_at == user.updated_at


async def test_the_indexes_are_those_that_the_queries_need(database: Database) -> None:
    await upgrade(database)

    async with database, database.engine.connect() as connection:
        indexes = await connection.run_sync(lambda sync: inspect(sync).get_indexes("users"))
        unique = await connection.run_sync(
            lambda sync: inspect(sync).get_unique_constraints("users")
        )
    composite = {tuple(i["column_names"]) for i in indexes if not i["unique"]}
    assert composite == {("email", "is_active"), ("username", "is_active")}
    assert {tuple(u["column_names"]) for u in unique} == {("email",), ("username",)}


async def test_an_unreachable_server_is_named_without_the_password() -> None:
    database = Database.from_url("postgresql://ada:sesame@127.0.0.1:1/users")

    with pytest.raises(MigrationFailed) as failure:
        await upgrade(database)

    assert "127.0.0.1:1" in str(failure.value)
    assert "sesame" not in str(failure.value)
