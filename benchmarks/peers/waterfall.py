"""GET one user in steps, each with one thing more, from no database to the whole of Penstock.

Each is an application with this one route. They answer a user by the same response model: the
first of all where they read none, or make nothing of what they have read.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from benchmarks.peers.no_database import FIRST
from benchmarks.peers.users import User, UserOut
from benchmarks.readers import SQL, columns_by_id
from fastapi import FastAPI
from sqlalchemy import Row, select

from penstock import Database
from penstock.drivers.asyncpg import fetch
from penstock.fastapi import Reader, ReadSession, install
from penstock.pool import PenstockPool
from penstock.pool.record import Record

Route = Callable[..., Awaitable[Any]]
database = Database.from_environment()
steps: dict[str, FastAPI] = {}


def _step(name: str) -> Callable[[Route], Route]:
    step = steps[name] = FastAPI()
    if name != "no_database":
        install(step, database)
    return step.get("/users/{user_id}", response_model=UserOut)


async def _checkout() -> Record:
    checkout = PenstockPool.of(database.engine).checkout(records_checkout=False)
    return checkout if isinstance(checkout, Record) else await checkout


@_step("no_database")
async def bare(user_id: int) -> User:  # noqa: ARG001 - parsed as everywhere else
    """Read nothing, without Penstock."""
    return FIRST


@_step("middleware")
async def with_middleware(user_id: int) -> User:  # noqa: ARG001 - as above
    """Read nothing."""
    return FIRST


@_step("dependency")
async def with_dependency(user_id: int, reader: Reader) -> User:  # noqa: ARG001 - as above
    """Ask for the express lane, and read nothing."""
    return FIRST


@_step("checkout")
async def with_checkout(user_id: int, reader: Reader) -> User:  # noqa: ARG001 - as above
    """Check out a connection, and read nothing."""
    record = await _checkout()
    record.release(record)
    return FIRST


@_step("statement")
async def with_statement(user_id: int, reader: Reader) -> User:  # noqa: ARG001 - as above
    """Read one user by the driver."""
    record = await _checkout()
    adapter: Any = record.dbapi_connection
    await fetch(adapter.driver_connection, SQL, (user_id,))
    record.release(record)
    return FIRST


@_step("express")
async def by_express(user_id: int, reader: Reader) -> Row[int, str, str, bool, datetime]:
    """Read one user by the express lane."""
    return await reader.one(columns_by_id, user_id=user_id)


@_step("session")
async def with_session(user_id: int, session: ReadSession) -> User:  # noqa: ARG001 - as above
    """Ask for a session, and read nothing."""
    return FIRST


@_step("orm")
async def by_session(user_id: int, session: ReadSession) -> User:
    """Read one user by a session."""
    return (await session.scalars(select(User).where(User.id == user_id, User.is_active))).one()
