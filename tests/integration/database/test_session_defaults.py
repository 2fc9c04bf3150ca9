"""Settings of sessions: their isolation level, and whether they flush before they read."""

from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database
from penstock.settings import IsolationLevel

SHOW = text("SELECT current_setting('transaction_isolation')")


class Model(DeclarativeBase): ...


class Thing(Model):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)


async def levels(database: Database, **arguments: Any) -> set[str]:
    found = set()
    async with database:
        for opened in (database.read, database.write):
            async with opened(**arguments) as session:
                found.add(await session.scalar(SHOW))
        if not arguments:
            found.add(await database.reader.scalar(SHOW))
            found.add(await database.writer.scalar(SHOW))
            async with database.connection() as connection:
                found.add(await connection.scalar(SHOW))
    return found


@pytest.mark.parametrize("level", IsolationLevel)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("environment", ["testing", "serverless"])
async def test_the_isolation_level_is_in_force_on_every_way_to_the_database(
    database_url: str, driver: str, level: IsolationLevel, environment: str
) -> None:
    url = database_url.replace("asyncpg", driver)
    database = Database.from_url(url, environment=environment, isolation_level=level)

    assert await levels(database) == {level.value.lower()}


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_transaction_that_asks_for_another_level_has_it(
    database_url: str, driver: str
) -> None:
    url = database_url.replace("asyncpg", driver)
    database = Database.from_url(url, environment="testing", isolation_level="SERIALIZABLE")

    assert await levels(database, isolation_level="REPEATABLE READ") == {"repeatable read"}


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
async def test_the_isolation_level_is_mysqls_as_well(mariadb_url: str, driver: str) -> None:
    url = mariadb_url.replace("asyncmy", driver)
    database = Database.from_url(url, environment="testing", isolation_level="READ COMMITTED")

    async with database, database.write() as session:
        shown = await session.scalar(text("SELECT @@session.tx_isolation"))
    assert shown == "READ-COMMITTED"


@pytest.mark.parametrize(("autoflush", "seen"), [(True, 1), (False, 0), (None, 0)])
async def test_a_session_flushes_before_it_reads_where_that_is_set(
    database_url: str, autoflush: bool | None, seen: int
) -> None:
    given: dict[str, Any] = {} if autoflush is None else {"autoflush": autoflush}
    async with Database.from_url(database_url, environment="testing", **given) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Model.metadata.create_all)
        async with database.write() as session:
            session.add(Thing(id=1))
            assert await session.scalar(select(func.count()).select_from(Thing)) == seen


async def test_a_pool_that_never_recycles_has_sqlalchemys_number(database_url: str) -> None:
    database = Database.from_url(database_url, environment="testing", pool_recycle=-1)
    async with database:
        assert await database.reader.scalar(text("SELECT 1")) == 1
    assert database.settings.pool_recycle == -1
