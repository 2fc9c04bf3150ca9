"""The same service by Penstock's express lane: rows of columns."""

import os
from datetime import datetime

from benchmarks.peers.users import User, UserIn, UserOut
from fastapi import FastAPI
from sqlalchemy import Row, bindparam, insert, select

from penstock import Database, query
from penstock.fastapi import Reader, Writer, install

COLUMNS = (User.id, User.email, User.username, User.is_active, User.created_at)

user_by_id = query(select(*COLUMNS).where(User.id == bindparam("user_id"), User.is_active))
new_user = query(
    insert(User)
    .values(email=bindparam("email"), username=bindparam("username"))
    .returning(*COLUMNS)
)

database = Database.from_environment()
app = FastAPI()
install(app, database, tune_gc=os.environ.get("TUNE_GC") != "off")


@app.get("/users/{user_id}", response_model=UserOut)
async def get_user(user_id: int, reader: Reader) -> Row[int, str, str, bool, datetime]:
    """Read one user."""
    return await reader.one(user_by_id, user_id=user_id)


@app.post("/users", response_model=UserOut, status_code=201)
async def create_user(data: UserIn, writer: Writer) -> Row[int, str, str, bool, datetime]:
    """Write one user."""
    return await writer.one(new_user, email=data.email, username=data.username)
