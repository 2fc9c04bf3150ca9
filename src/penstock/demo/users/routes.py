"""The routes under ``/users``.

A duplicate email or username is answered by 409, an unknown id by 404: penstock makes these
answers of the database's own errors.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy import bindparam, select

from penstock import query
from penstock.demo.users.model import LONGEST_EMAIL, LONGEST_USERNAME, Passwords, User
from penstock.fastapi import Reader, WriteSession

SHORTEST_PASSWORD = 8
"""Characters; NIST SP 800-63B, 5.1.1.2, which also wants at least 64 to be allowed."""
LONGEST_PASSWORD = 128

# Neither pattern admits NUL, which PostgreSQL cannot store. Whether mail arrives at an address is
# found out by sending some, so this one asks for the shape only.
Email = Annotated[
    str,
    Field(
        max_length=LONGEST_EMAIL,
        pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+\.[^@\s\x00-\x1f\x7f]+$",
        examples=["ada@example.com"],
    ),
]
Username = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_USERNAME,
        pattern=r"^[\w.-]+$",
        description="Letters and digits of any script, underscore, full stop and hyphen.",
        examples=["ada"],
    ),
]


def _acceptable(password: SecretStr) -> SecretStr:
    text = password.get_secret_value()
    if not SHORTEST_PASSWORD <= len(text) <= LONGEST_PASSWORD:
        raise ValueError(f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters are accepted")
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("NUL and lone surrogates are not accepted")
    return password


Password = Annotated[
    SecretStr,
    AfterValidator(_acceptable),
    Field(
        examples=["correct horse battery staple"],
        json_schema_extra={"minLength": SHORTEST_PASSWORD, "maxLength": LONGEST_PASSWORD},
    ),
]


def _in_utc(moment: datetime) -> datetime:
    """Give a time from SQLite, which stores UTC without saying so, its zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_in_utc)]


class UserIn(BaseModel):
    """A user to create."""

    email: Email
    username: Username
    password: Password


class UserChanges(BaseModel):
    """What to change about a user; what is absent or ``null`` stays as it is."""

    email: Email | None = None
    username: Username | None = None
    password: Password | None = None


class UserOut(BaseModel):
    """A user as all may see it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    username: str
    is_active: bool
    created_at: Moment
    updated_at: Moment


_LARGEST_BIGINT = 2**63 - 1
LONGEST_PAGE = 100

router = APIRouter(prefix="/users", tags=["users"])

user_by_id = query(select(User).where(User.id == bindparam("user_id")))
page_of_users = query(
    select(User)
    .where(User.is_active)
    .order_by(User.id)
    .offset(bindparam("skip"))
    .limit(bindparam("limit"))
)


async def _passwords(request: Request) -> Passwords:
    passwords: Passwords = request.app.state.passwords
    return passwords


Hashing = Annotated[Passwords, Depends(_passwords)]
UserId = Annotated[int, Path(ge=1, le=_LARGEST_BIGINT)]


@router.post("/", status_code=201, response_model=UserOut, summary="Create a user")
async def create_user(data: UserIn, passwords: Hashing, session: WriteSession) -> User:
    """Create a user; 409 where the email or the username is taken."""
    hashed_password = await passwords.hash(data.password)
    user = User(email=data.email, username=data.username, hashed_password=hashed_password)
    session.add(user)
    await session.flush()
    return user


@router.get("/", response_model=list[UserOut], summary="List active users")
async def list_users(
    reader: Reader,
    skip: Annotated[int, Query(ge=0, le=_LARGEST_BIGINT)] = 0,
    limit: Annotated[int, Query(ge=1, description="A larger one counts as 100.")] = LONGEST_PAGE,
) -> Sequence[User]:
    """List active users by ascending id."""
    return await reader.all(page_of_users, skip=skip, limit=min(limit, LONGEST_PAGE))


@router.get("/{user_id}", response_model=UserOut, summary="Show one user")
async def get_user(user_id: UserId, reader: Reader) -> User:
    """Show one user, active or not."""
    return await reader.one(user_by_id, user_id=user_id)


@router.patch("/{user_id}", response_model=UserOut, summary="Change a user")
async def update_user(
    user_id: UserId, changes: UserChanges, passwords: Hashing, session: WriteSession
) -> User:
    """Change what is given, of an active user or not; 409 where it is taken."""
    values: dict[str, str] = changes.model_dump(exclude_none=True, exclude={"password"})
    if changes.password is not None:
        values["hashed_password"] = await passwords.hash(changes.password)
    user = await session.get_one(User, user_id)
    for name, value in values.items():
        setattr(user, name, value)
    await session.flush()
    return user


@router.delete("/{user_id}", status_code=204, summary="Deactivate a user")
async def deactivate_user(user_id: UserId, session: WriteSession) -> None:
    """Deactivate a user, who keeps id, email and username; a second time changes nothing."""
    user = await session.get_one(User, user_id)
    user.is_active = False
