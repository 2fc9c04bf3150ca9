"""Sessions of a class of the application's own, and SQLModel's."""

from pathlib import Path
from typing import Any

import pytest
import sqlmodel
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession as ModelSession
from tests.eventually import eventually

from penstock import Database, PenstockError
from penstock.errors import ReadOnlyError, SessionClosed
from penstock.testing import rollback_after


class Hero(sqlmodel.SQLModel, table=True):
    __tablename__ = "heroes"
    id: int | None = sqlmodel.Field(default=None, primary_key=True)
    name: str


class CountingSync(Session):
    executed = 0

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self.executed += 1
        return super().execute(*args, **kwargs)


class Counting(AsyncSession):
    """Has an __init__ of its own, a method beside SQLAlchemy's, and a session below."""

    sync_session_class = CountingSync

    def __init__(self, bind: Any = None, **kwargs: Any) -> None:
        super().__init__(bind, **kwargs)
        self.named = "counting"

    async def count(self, table: str) -> Any:
        return await self.scalar(text(f"SELECT count(*) FROM {table}"))


@pytest.fixture(params=[None, ModelSession])
async def database(request: pytest.FixtureRequest, database_url: str) -> Any:
    database = Database.from_url(
        database_url,
        environment="testing",
        session_class=request.param,
        pool_size=1,
        max_overflow=0,
    )
    async with database:
        async with database.engine.begin() as connection:
            await connection.run_sync(sqlmodel.SQLModel.metadata.create_all)
        yield database


async def test_exec_is_there_in_every_session(database: Any) -> None:
    heroes = sqlmodel.select(Hero)
    async with database.write() as writing:
        writing.add(Hero(name="a"))
        await writing.flush()
        assert (await writing.exec(heroes)).one().name == "a"
    async with database.read() as reading:
        assert (await reading.exec(heroes)).one().name == "a"
        assert (await reading.exec(sqlmodel.select(Hero.id, Hero.name))).one() == (1, "a")


async def test_exec_of_a_reading_session_writes_nothing(database: Any) -> None:
    async with database.read() as session:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await session.exec(sqlmodel.insert(Hero).values(name="x"))
        with pytest.raises(ReadOnlyError):
            session.add(Hero(name="x"))
        await session.rollback()


async def test_exec_shares_the_one_connection_of_a_request(database: Database) -> None:
    unit: Any = database.unit()
    reader, writer = unit.reader, unit.writer
    try:
        assert (await reader.exec(sqlmodel.select(Hero))).all() == []
        writer.add(Hero(name="a"))
        await writer.flush()  # the pool has one connection
        assert (await reader.exec(sqlmodel.select(Hero))).one().name == "a"
        await unit.commit()
    finally:
        await unit.end("the test was over")
    with pytest.raises(SessionClosed):
        await writer.exec(sqlmodel.select(Hero))
    await eventually(lambda: database.pool.snapshot().checked_out == 0)


async def test_sessions_are_sqlmodels_where_that_is_asked_for(database_url: str) -> None:
    database: Any = Database.from_url(
        database_url, environment="testing", session_class=ModelSession
    )
    async with database, database.read() as reading, database.write() as writing:
        assert isinstance(reading, ModelSession)
        assert isinstance(writing, ModelSession)
        assert await writing.scalar(text("SELECT 1")) == 1


async def test_sessions_under_undone_are_of_the_class_too(database: Database) -> None:
    async with rollback_after(database):
        async with database.write() as session:
            session.add(Hero(name="a"))
        assert await database.reader.scalar(select(func.count()).select_from(Hero)) == 1


async def test_a_class_of_ones_own_keeps_its_init_its_methods_and_its_session_below(
    database_url: str,
) -> None:
    database: Any = Database.from_url(database_url, environment="testing", session_class=Counting)
    async with database:
        async with database.write() as session:
            await session.execute(text("CREATE TABLE t (id int)"))
            await session.execute(text("INSERT INTO t VALUES (1)"))
            assert isinstance(session, Counting)
            assert session.named == "counting"
            assert await session.count("t") == 1
            assert session.sync_session.executed == 2  # type: ignore[attr-defined]  # its own
        async with database.read() as reading:
            assert isinstance(reading, Counting)
            assert await reading.count("t") == 1
            with pytest.raises(DBAPIError):
                await reading.execute(text("DELETE FROM t"))
            await reading.rollback()
        with pytest.raises(SessionClosed):
            await session.count("t")


@pytest.mark.parametrize("given", [Session, "AsyncSession", 7, AsyncSession.__init__])
def test_what_is_no_session_class_is_refused(given: Any) -> None:
    with pytest.raises(PenstockError, match=r"session_class.*AsyncSession"):
        Database.from_url("postgresql://localhost/app", session_class=given)


# Closed within its unit of work.


@pytest.mark.parametrize("way", ["close", "aclose", "with"])
@pytest.mark.parametrize("opened", ["read", "write"])
async def test_a_session_that_was_closed_within_its_unit_says_what_to_do(
    database_url: str, way: str, opened: str
) -> None:
    async with Database.from_url(database_url, environment="testing") as database:
        async with getattr(database, opened)() as session:
            if way == "with":
                async with session:
                    assert await session.scalar(text("SELECT 1")) == 1
            else:
                assert await session.scalar(text("SELECT 1")) == 1
                await getattr(session, way)()
            with pytest.raises(SessionClosed, match=r"closed within its unit.*Leave that out"):
                await session.scalar(text("SELECT 2"))
        assert database.pool.snapshot().checked_out == 0


async def test_what_was_committed_by_hand_before_is_saved(database_url: str) -> None:
    async with Database.from_url(database_url, environment="testing") as database:
        async with database.write() as session:
            await session.execute(text("CREATE TABLE t (id int)"))
            await session.commit()
            await session.close()
        assert await database.reader.scalar(text("SELECT count(*) FROM t")) == 0


class OwnCommit(AsyncSession):
    async def commit(self) -> None:
        await super().commit()


async def test_a_commit_of_the_applications_own_is_timed(database_url: str, tmp_path: Path) -> None:
    database: Any = Database.from_url(
        database_url,
        environment="testing",
        session_class=OwnCommit,
        telemetry_dir=tmp_path,
    )
    async with database:
        for _ in range(2):
            async with database.write() as session:
                await session.execute(text("SELECT 1"))

        assert database.telemetry.read().histogram("commit").count == 2
