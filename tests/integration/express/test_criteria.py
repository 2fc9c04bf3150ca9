"""Criteria that instances carry on, for what is loaded later: those of their own call."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import ForeignKey, Row, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    joinedload,
    lazyload,
    mapped_column,
    relationship,
    with_loader_criteria,
)

from penstock import Database, query

pytestmark = pytest.mark.asyncio(loop_scope="module")
Make = Callable[[int], Any]


class Base(AsyncAttrs, DeclarativeBase):
    """What the tables belong to."""


class Owner(Base):
    """Has notes of several tenants."""

    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    notes: Mapped[list["Note"]] = relationship(order_by="Note.id")


class Note(Base):
    """Belongs to an owner and to a tenant."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("owners.id"))
    tenant: Mapped[int]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await database.writer.execute(insert(Owner), id=1)
        notes = [{"id": n, "owner_id": 1, "tenant": n % 3} for n in range(6)]
        await database.writer.execute_many(insert(Note), notes)
        yield database


def of_alias(tenant: int) -> Any:
    owner = aliased(Owner)
    return select(owner).options(lazyload(owner.notes.and_(Note.tenant == tenant)))


CRITERIA: dict[str, Make] = {
    "criteria": lambda n: select(Owner).options(with_loader_criteria(Note, Note.tenant == n)),
    "criteria_twice": lambda n: select(Owner).options(
        with_loader_criteria(Note, Note.tenant == n), with_loader_criteria(Note, Note.id != n)
    ),
    "criteria_in": lambda n: select(Owner).options(
        with_loader_criteria(Note, Note.tenant.in_([n, n + 1]))
    ),
    "criteria_lambda": lambda n: select(Owner).options(
        with_loader_criteria(Note, lambda cls: cls.tenant == n)
    ),
    "of_relationship": lambda n: select(Owner).options(
        lazyload(Owner.notes.and_(Note.tenant == n))
    ),
    "joined": lambda n: select(Owner).options(joinedload(Owner.notes.and_(Note.tenant == n))),
    "of_alias": of_alias,
    "with_a_column": lambda n: select(Owner, Owner.id).options(
        with_loader_criteria(Note, Note.tenant == n)
    ),
    "returning": lambda n: (
        update(Owner)
        .where(Owner.id == 1)
        .values(name=str(n))
        .returning(Owner)
        .options(with_loader_criteria(Note, Note.tenant == n))
    ),
}


async def notes_of(database: Database, owner: Any) -> list[int]:
    async with AsyncSession(database.engine) as session:
        session.add(owner)
        return [note.id for note in await owner.awaitable_attrs.notes]


async def by_session(database: Database, statement: Any) -> list[int]:
    async with AsyncSession(database.engine, expire_on_commit=False) as session:
        owner = (await session.execute(statement)).unique().scalars().first()
        session.expunge_all()
    return await notes_of(database, owner)


CASES = [
    (name, how)
    for name in CRITERIA
    for how in ("adhoc", "prepared", "snapshot", "stream")
    if (name, how) != ("joined", "stream")  # of which one instance is several rows
    and (name != "returning" or how in {"adhoc", "prepared"})
]


@pytest.mark.parametrize(("name", "how"), CASES)
async def test_what_is_loaded_later_is_of_the_calls_own_criteria(
    database: Database, name: str, how: str
) -> None:
    make = CRITERIA[name]
    for tenant in (0, 1, 2, 1):
        statement = make(tenant)
        if how == "snapshot":
            async with database.reader.snapshot() as snapshot:
                found = await snapshot.first(statement)
        elif how == "stream":
            async with database.reader.stream(statement) as rows:
                found = await anext(rows)
        else:
            lane: Any = database.writer if name == "returning" else database.reader
            found = await lane.first(query(statement) if how == "prepared" else statement)
        owner = found[0] if isinstance(found, Row) else found
        given = await notes_of(database, owner)
        assert given == await by_session(database, make(tenant))
        assert given


async def test_criteria_of_a_parameter_are_of_the_call(database: Database) -> None:
    criteria = with_loader_criteria(Note, Note.tenant == bindparam("tenant"))
    asked = query(select(Note.id).options(criteria).order_by(Note.id))
    for tenant in (0, 1, 2):
        assert await database.reader.all(asked, tenant=tenant) == [(tenant,), (tenant + 3,)]
