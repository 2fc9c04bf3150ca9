"""Where a driver lacks what is relied on, its public parts alone do the work."""

from collections.abc import AsyncIterator
from contextlib import nullcontext

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database
from penstock.drivers import capabilities
from penstock.drivers.capabilities import Part
from penstock.errors import ContextError
from penstock.express import SqlalchemyLane
from penstock.testing import rollback_after

GONE = (Part("asyncpg", "Connection", "gone"),)


class Base(DeclarativeBase): ...


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@pytest.fixture(params=["asyncpg", "sqlalchemy"])
async def database(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> AsyncIterator[Database]:
    if request.param == "asyncpg":
        monkeypatch.setitem(capabilities._REQUIREMENTS, "asyncpg", GONE)
    else:
        monkeypatch.setattr(capabilities, "EXPRESS", GONE)
    capabilities._kind_of.cache_clear()
    capabilities._has_internals.cache_clear()
    try:
        async with Database.from_url(database_url) as database:
            async with database.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            yield database
    finally:
        capabilities._kind_of.cache_clear()
        capabilities._has_internals.cache_clear()


async def test_sessions_and_the_express_lane_read_and_write(database: Database) -> None:
    assert isinstance(database.lane, SqlalchemyLane)
    async with database.write() as session:
        session.add(Note(text="a"))
    await database.writer.execute(insert(Note).values(text="b"))

    found = await database.reader.all(select(Note.text).order_by(Note.text))
    assert [row.text for row in found] == ["a", "b"]
    async with database.reader.snapshot() as reader:
        assert len(await reader.all(select(Note))) == 2


async def test_what_reads_is_still_refused_to_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match="read-only transaction"):
        async with database.read() as session:
            await session.execute(text("INSERT INTO notes (text) VALUES ('a')"))

    assert await database.reader.all(select(Note)) == []


async def test_an_isolation_level_is_that_of_the_transaction(database: Database) -> None:
    level = text("SHOW transaction_isolation")
    async with database.write(isolation_level="SERIALIZABLE") as session:
        written = await session.scalar(level)
    async with database.read(isolation_level="REPEATABLE READ") as session:
        read = await session.scalar(select(func.current_setting("transaction_isolation")))
    async with database.reader.snapshot() as snapshot:
        seen = await snapshot.scalar(level)

    assert (written, read, seen) == ("serializable", "repeatable read", "repeatable read")


async def test_a_role_or_a_setting_is_in_force_or_refused(
    database: Database, request: pytest.FixtureRequest
) -> None:
    setting = text("SELECT current_setting('app.tenant')")
    reader = database.reader.with_context(settings={"app.tenant": "7"})

    for block in (nullcontext(), rollback_after(database)):
        async with block:
            if request.node.callspec.params["database"] == "asyncpg":
                with pytest.raises(ContextError, match="no settings"):
                    await reader.scalar(setting)
            else:
                assert await reader.scalar(setting) == "7"
