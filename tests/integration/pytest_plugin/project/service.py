"""The service that a project tests with the plugin."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, WebSocket
from sqlalchemy import func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database
from penstock.fastapi import Reader, ReadSession, Writer, WriteSession, install


class Base(DeclarativeBase):
    pass


class Word(Base):
    __tablename__ = "words"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


database = Database.from_environment()
COUNT = select(func.count()).select_from(Word)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
    async with database.write() as session:
        session.add(Word(text="start"))
    yield {"began": "with a word"}


app = FastAPI(lifespan=lifespan)
install(app, database)


@app.post("/words/{text}", status_code=201)
async def create(text: str, session: WriteSession) -> None:
    session.add(Word(text=text))


@app.post("/express/{text}", status_code=201)
async def create_by_express(text: str, writer: Writer) -> None:
    await writer.execute(insert(Word).values(text=text))


@app.get("/words")
async def words(request: Request, session: ReadSession) -> list[str]:
    assert request.state.began == "with a word"
    return list(await session.scalars(select(Word.text).order_by(Word.id)))


@app.get("/count")
async def count(reader: Reader) -> int | None:
    return await reader.scalar(COUNT)


@app.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        async with database.write() as session:
            session.add(Word(text=text))
        await websocket.send_json(await database.reader.scalar(COUNT))
