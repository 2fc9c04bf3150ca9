"""The same service by Penstock's sessions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.peers.users import Model, User, UserIn, UserOut
from fastapi import FastAPI
from sqlalchemy import select

from penstock import Database
from penstock.fastapi import ReadSession, WriteSession, install

database = Database.from_environment()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Make the table."""
    async with database.engine.begin() as connection:
        await connection.run_sync(Model.metadata.create_all)
    yield


app = FastAPI(lifespan=lifespan)
install(app, database)


@app.get("/users/{user_id}", response_model=UserOut)
async def get_user(user_id: int, session: ReadSession) -> User:
    """Read one user."""
    return (await session.scalars(select(User).where(User.id == user_id))).one()


@app.post("/users", response_model=UserOut, status_code=201)
async def create_user(data: UserIn, session: WriteSession) -> User:
    """Write one user."""
    session.add(user := User(name=data.name))
    await session.flush()
    return user
