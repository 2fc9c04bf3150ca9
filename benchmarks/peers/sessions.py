"""The same service by Penstock's sessions."""

from benchmarks.peers.users import User, UserIn, UserOut
from fastapi import FastAPI
from sqlalchemy import select

from penstock import Database
from penstock.fastapi import ReadSession, WriteSession, install

database = Database.from_environment()
app = FastAPI()
install(app, database)


@app.get("/users/{user_id}", response_model=UserOut)
async def get_user(user_id: int, session: ReadSession) -> User:
    """Read one user."""
    return (await session.scalars(select(User).where(User.id == user_id, User.is_active))).one()


@app.post("/users", response_model=UserOut, status_code=201)
async def create_user(data: UserIn, session: WriteSession) -> User:
    """Write one user."""
    session.add(user := User(email=data.email, username=data.username))
    await session.flush()
    return user
