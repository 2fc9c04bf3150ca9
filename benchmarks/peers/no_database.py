"""The same routes without a database, answering the first user: what FastAPI alone leaves."""

from datetime import UTC, datetime

from benchmarks.peers.users import User, UserIn, UserOut
from fastapi import FastAPI

FIRST = User(
    id=1,
    email="user1@example.com",
    username="user1",
    is_active=True,
    created_at=datetime(2025, 1, 1, 0, 1, tzinfo=UTC),
)

app = FastAPI()


@app.get("/users/{user_id}", response_model=UserOut)
async def get_user(user_id: int) -> User:  # noqa: ARG001 - parsed as everywhere else
    """Read nothing."""
    return FIRST


@app.post("/users", response_model=UserOut, status_code=201)
async def create_user(data: UserIn) -> User:  # noqa: ARG001 - parsed as everywhere else
    """Write nothing."""
    return FIRST
