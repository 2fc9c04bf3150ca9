import asyncio
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import bindparam, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database, query
from penstock.fastapi import Reader, ReadSession, WriteSession, install


class Model(DeclarativeBase): ...


class Note(Model):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


class NoteIn(BaseModel):
    text: str


class NoteOut(NoteIn):
    model_config = ConfigDict(from_attributes=True)
    id: int


database = Database.from_environment()  # DATABASE_URL and friends


app = FastAPI()
install(app, database)


@app.post("/notes", status_code=201)
async def create(note: NoteIn, session: WriteSession) -> NoteOut:
    session.add(row := Note(text=note.text))
    await session.flush()
    return NoteOut.model_validate(row)  # committed before the 201 leaves; a duplicate is a 409


note_by_id = query(select(Note).where(Note.id == bindparam("note_id")))  # compiled once


@app.get("/notes/{note_id}")
async def read(note_id: int, reader: Reader) -> NoteOut:  # the express lane: one round trip
    return NoteOut.model_validate(await reader.one(note_by_id, note_id=note_id))  # no row: a 404


@app.get("/notes")
async def search(session: ReadSession, limit: Annotated[int, Query(le=100)] = 20) -> list[NoteOut]:
    rows = await session.scalars(select(Note).order_by(Note.id).limit(limit))
    return [NoteOut.model_validate(row) for row in rows]


async def create_tables() -> None:  # before the workers start, not in them
    async with database, database.engine.begin() as connection:
        await connection.run_sync(Model.metadata.create_all)


if __name__ == "__main__":
    asyncio.run(create_tables())  # a real service has migrations
