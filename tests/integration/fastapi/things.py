"""Things with every constraint, and an application's routes for them."""

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import CheckConstraint, ForeignKey, String, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import query
from penstock.fastapi import Reader, ReadSession, Writer, WriteSession


class Base(DeclarativeBase):
    """The registry of the tables below."""


class Parent(Base):
    """What a thing refers to."""

    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)


class Thing(Base):
    """What has columns of bounded types and constraints."""

    __tablename__ = "things"
    __table_args__ = (CheckConstraint("number <> 13", name="no_thirteen"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    short: Mapped[str] = mapped_column(String(5))
    long: Mapped[str | None] = mapped_column(unique=True)
    number: Mapped[int | None]
    data: Mapped[Any] = mapped_column(JSONB, nullable=True)
    parent: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - as SQLAlchemy has it


class ThingIn(BaseModel):
    """A thing as a client has it, checked by nobody but the database."""

    short: str | None = "a"
    long: str | None = None
    number: int | None = None
    data: Any = None
    parent: int | None = None


by_id = query(select(Thing).where(Thing.id == bindparam("thing_id")))
insert_short = query(text("INSERT INTO things (short, version) VALUES (:short, 1)"))


def add_routes(app: FastAPI) -> None:
    """Add routes that read, and routes that write."""
    add_reading_routes(app)
    add_writing_routes(app)


def add_reading_routes(app: FastAPI) -> None:
    """Add routes that read by each lane."""

    @app.get("/reader/{thing_id}")
    async def by_reader(thing_id: int, reader: Reader) -> str:
        return (await reader.one(by_id, thing_id=thing_id)).short

    @app.get("/session/{thing_id}")
    async def by_session(thing_id: int, session: ReadSession) -> str:
        return (await session.get_one(Thing, thing_id)).short

    @app.get("/text/{short}")
    async def by_text(short: str, session: ReadSession) -> int:
        return (await session.scalars(select(Thing.id).where(Thing.short == short))).one()

    @app.get("/page")
    async def page(session: ReadSession, limit: int = 1, offset: int = 0) -> int:
        rows = await session.scalars(select(Thing).limit(limit).offset(offset))
        return len(rows.all())

    @app.get("/ask")
    async def ask(session: ReadSession, statement: str) -> Any:
        return await session.scalar(text(statement))


def add_writing_routes(app: FastAPI) -> None:
    """Add routes that write by each lane."""

    @app.post("/flushed")
    async def flushed(thing: ThingIn, session: WriteSession) -> None:
        session.add(Thing(**thing.model_dump(exclude_unset=True)))
        await session.flush()

    @app.post("/committed")
    async def committed(thing: ThingIn, session: WriteSession) -> None:
        session.add(Thing(**thing.model_dump(exclude_unset=True)))

    @app.post("/writer")
    async def by_writer(thing: ThingIn, writer: Writer) -> None:
        await writer.execute(insert_short, short=thing.short)

    @app.put("/things/{thing_id}")
    async def update(thing_id: int, number: int, session: WriteSession) -> None:
        thing = await session.get_one(Thing, thing_id)
        await asyncio.sleep(0.1)
        thing.number = number

    @app.post("/locked")
    async def locked(session: WriteSession) -> None:
        await session.execute(select(Thing).with_for_update(nowait=True))
        await asyncio.sleep(0.2)
