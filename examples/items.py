from fastapi import FastAPI
from sqlalchemy import literal, select

from penstock import Database
from penstock.fastapi import ReadSession, install

app = FastAPI()
install(app, Database.from_url("sqlite:///items.db"))


@app.get("/items")
async def items(session: ReadSession) -> int | None:
    return await session.scalar(select(literal(42)))
