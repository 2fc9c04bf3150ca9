"""Constants of a statement: given to their type at each call, as the type may look at who calls."""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Dialect, String, TypeDecorator, bindparam, delete, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column, with_loader_criteria

from penstock import Database, query

pytestmark = pytest.mark.asyncio(loop_scope="module")
tenant: ContextVar[str] = ContextVar("tenant")


class OfTenant(TypeDecorator[str]):
    """Text that is stored with the tenant who writes it, and compared so."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else f"{tenant.get()}:{value}"


class Base(DeclarativeBase):
    """What the tables belong to."""


class Note(Base):
    """With columns whose values depend on who writes."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str | None] = mapped_column(OfTenant, default="made")
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(OfTenant))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


number: Any = bindparam("number")
note = aliased(Note)
at_one = Note.id == number
WRITES: dict[str, Any] = {
    "insert": insert(Note).values(id=number, state="new"),
    "insert_default": insert(Note).values(id=number),
    "insert_array": insert(Note).values(id=number, tags=["a", "b"]),
    "insert_optional": insert(Note).values(id=number, state=bindparam("state", "new")),
    "insert_returning": insert(Note).values(id=number, state="new").returning(Note.id),
    "insert_rows": insert(Note).values([{"id": number, "state": "a"}, {"id": -1, "state": "b"}]),
    "upsert": upsert(Note)
    .values(id=number)
    .on_conflict_do_update(index_elements=["id"], set_={"state": "again"}),
    "update": update(Note).where(Note.id == number).values(state="changed"),
    "update_where": update(Note).where(Note.id == number, Note.state == "old").values(tags=["x"]),
    "delete_where": delete(Note).where(Note.id == number, Note.state == "old"),
    "delete_in": delete(Note).where(Note.id == number, Note.state.in_(["old", "older"])),
}
READS: dict[str, Any] = {
    "equal": select(Note.id).where(at_one, Note.state == "old"),
    "in": select(Note.id).where(at_one, Note.state.in_(["old"])),
    "contained": select(Note.id).where(at_one, Note.tags.contains(["old"])),
    "optional": select(Note.id).where(at_one, Note.state == bindparam("state", "old", OfTenant)),
    "aliased": select(note).where(note.id == number, note.state == "old"),
    "criteria": select(Note).where(at_one).options(with_loader_criteria(Note, Note.state == "old")),
    "subquery": select(
        select(Note.id).where(at_one, Note.state == "old").scalar_subquery().label("found")
    ),
}


async def start(database: Database) -> None:
    async with AsyncSession(database.engine) as session:
        await session.execute(delete(Note))
        for key in (1, 2, 3):
            await session.execute(insert(Note).values(id=key, state="old", tags=["old"]))
        await session.commit()


async def content(database: Database) -> Any:
    async with database.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT id, state, tags FROM notes ORDER BY id")
        return [tuple(row) for row in rows]


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_gives_constants_to_their_type_at_each_call(
    database: Database, name: str
) -> None:
    statement = WRITES[name]
    prepared = query(statement)
    for name_of_tenant in ("red", "blue", "green"):
        tenant.set(name_of_tenant)
        values = {"number": 9 if name.startswith("insert") else 2}
        await start(database)
        async with AsyncSession(database.engine) as session:
            await session.execute(statement, values, execution_options={"dml_strategy": "orm"})
            await session.commit()
        expected = await content(database)
        for asked in (prepared, statement):
            await start(database)
            await database.writer.execute(asked, values)
            assert await content(database) == expected


@pytest.mark.parametrize("name", READS)
async def test_a_read_gives_constants_to_their_type_at_each_call(
    database: Database, name: str
) -> None:
    prepared = query(READS[name])
    tenant.set("red")
    await start(database)
    for name_of_tenant, is_found in (("red", True), ("blue", False), ("red", True)):
        tenant.set(name_of_tenant)
        for asked in (prepared, READS[name]):
            found = await database.reader.all(asked, number=2)
            if name == "subquery":
                assert found == [(2 if is_found else None,)]
            else:
                assert len(found) == is_found
            assert await database.reader.exists(asked, number=2) is (is_found or name == "subquery")
