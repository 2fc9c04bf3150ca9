"""The tutorial's service: an engine, and a ``get_db`` that commits after it yielded."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from benchmarks.peers.users import User, UserIn, UserOut
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(
    os.environ["DATABASE_URL"],
    pool_size=20,
    max_overflow=30,
    pool_pre_ping=True,
    pool_recycle=3600,
)
make_session = async_sessionmaker(engine, expire_on_commit=False, autoflush=False)


async def get_db() -> AsyncIterator[AsyncSession]:
    """Give a session; commit when the route succeeded, roll back when it raised."""
    async with make_session() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the engine at the end."""
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/users/{user_id}", response_model=UserOut)
async def get_user(user_id: int, session: Annotated[AsyncSession, Depends(get_db)]) -> User:
    """Read one user."""
    user = await session.scalar(select(User).where(User.id == user_id, User.is_active))
    if user is None:
        raise HTTPException(404)
    return user


@app.post("/users", response_model=UserOut, status_code=201)
async def create_user(data: UserIn, session: Annotated[AsyncSession, Depends(get_db)]) -> User:
    """Write one user."""
    user = User(email=data.email, username=data.username)
    session.add(user)
    await session.flush()
    await session.refresh(user)
    return user
