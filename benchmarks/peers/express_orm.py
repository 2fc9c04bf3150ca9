"""The same service by Penstock's express lane: instances of the mapped class."""

from benchmarks.peers.users import User, UserIn, UserOut
from fastapi import FastAPI
from sqlalchemy import bindparam, insert, select

from penstock import Database, query
from penstock.fastapi import Reader, Writer, install

user_by_id = query(select(User).where(User.id == bindparam("user_id"), User.is_active))
new_user = query(
    insert(User).values(email=bindparam("email"), username=bindparam("username")).returning(User)
)

database = Database.from_environment()
app = FastAPI()
install(app, database)


@app.get("/users/{user_id}", response_model=UserOut)
async def get_user(user_id: int, reader: Reader) -> User:
    """Read one user."""
    return await reader.one(user_by_id, user_id=user_id)


@app.post("/users", response_model=UserOut, status_code=201)
async def create_user(data: UserIn, writer: Writer) -> User:
    """Write one user."""
    return await writer.one(new_user, email=data.email, username=data.username)
