"""The same service by Advanced Alchemy: a service over a repository, as its FastAPI guide shows."""

import os
from typing import Annotated

from advanced_alchemy.extensions.fastapi import (
    AdvancedAlchemy,
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyAsyncConfig,
    repository,
    service,
)
from benchmarks.peers.users import User, UserIn, UserOut
from fastapi import Depends, FastAPI, HTTPException

app = FastAPI()
alchemy = AdvancedAlchemy(
    config=SQLAlchemyAsyncConfig(
        connection_string=os.environ["DATABASE_URL"],
        engine_config=EngineConfig(pool_size=20, max_overflow=30),
        session_config=AsyncSessionConfig(expire_on_commit=False),
        commit_mode="autocommit",
    ),
    app=app,
)


class UserService(service.SQLAlchemyAsyncRepositoryService[User]):
    """Reads and writes users."""

    class Repository(repository.SQLAlchemyAsyncRepository[User]):
        """The users' table."""

        model_type = User

    repository_type = Repository


Users = Annotated[UserService, Depends(alchemy.provide_service(UserService))]


@app.get("/users/{user_id}")
async def get_user(user_id: int, users: Users) -> UserOut:
    """Read one user."""
    user = await users.get_one_or_none(id=user_id, is_active=True)
    if user is None:
        raise HTTPException(404)
    return users.to_schema(user, schema_type=UserOut)


@app.post("/users", status_code=201)
async def create_user(data: UserIn, users: Users) -> UserOut:
    """Write one user."""
    return users.to_schema(await users.create(data), schema_type=UserOut)
