"""A table that is read and written, and what is asked of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database, query


class Base(DeclarativeBase):
    """What the table belongs to."""


class User(Base):
    """Somebody to be read and written."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    visits: Mapped[int] = mapped_column(default=7)


by_id = User.id == bindparam("user_id")
row_of = query(select(User.id, User.name).where(by_id))
name_of = query(select(User.name).where(by_id))
user_of = query(select(User).where(by_id))
names = query(select(User.name).order_by(User.id))
named = query(select(User.id).where(User.name.in_(bindparam("names", expanding=True))))
add = query(insert(User).values(name=bindparam("name")).returning(User.id, User.name))
visit = query(update(User).where(by_id).values(visits=User.visits + 1))
series = query(text("SELECT generate_series(1, CAST(:last AS int)) AS number"))


@asynccontextmanager
async def people(url: str) -> AsyncIterator[Database]:
    """Give a pool of one connection, with ada and bob."""
    database = Database.from_url(url, environment="testing", pool_size=1, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await database.writer.execute_many(add, [{"name": name} for name in ("ada", "bob")])
    yield database
    await database.close(timeout=1)
