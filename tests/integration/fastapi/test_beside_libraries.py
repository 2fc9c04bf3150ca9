"""Libraries that applications have beside this one, each with its sessions or its engine."""

import uuid
import warnings
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi_pagination import Page, add_pagination
from fastapi_pagination.ext.sqlalchemy import apaginate
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.db import BaseUserDatabase
from pydantic import BaseModel, ConfigDict
from sqladmin import Admin, ModelView
from sqlalchemy import select
from sqlalchemy.exc import SADeprecationWarning
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from tests.integration.fastapi.notes import Model, Note, Onlooker
from tests.servers.web import client_of

from penstock import Database
from penstock.fastapi import ReadSession, WriteSession

with warnings.catch_warnings():
    warnings.simplefilter("ignore", SADeprecationWarning)
    from advanced_alchemy.base import BigIntBase
    from advanced_alchemy.filters import LimitOffset
    from advanced_alchemy.repository import SQLAlchemyAsyncRepository

SECRET = "a secret of the tests, of more than 32 bytes"


class NoteOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    text: str


@pytest.fixture
async def three(app: FastAPI, onlooker: Onlooker) -> FastAPI:
    """The application, over three notes."""
    await onlooker.execute("INSERT INTO notes (text) VALUES ('a'), ('b'), ('c')")
    return app


async def test_fastapi_pagination_pages_by_a_read_session(three: FastAPI) -> None:
    @three.get("/notes")
    async def notes(session: ReadSession) -> Page[NoteOut]:
        page: Page[NoteOut] = await apaginate(session, select(Note).order_by(Note.id))
        return page

    add_pagination(three)
    async with client_of(three) as client:
        answer = await client.get("/notes", params={"page": 2, "size": 2})

    page = answer.json()
    assert [note["text"] for note in page["items"]] == ["c"]
    assert (page["total"], page["page"], page["pages"]) == (3, 2, 2)


# sqladmin.


async def test_sqladmin_reads_and_writes_by_the_engine(
    three: FastAPI, database: Database, onlooker: Onlooker
) -> None:
    class NoteAdmin(ModelView, model=Note):
        column_list = [Note.id, Note.text]  # noqa: RUF012 - as sqladmin has it

    Admin(three, engine=database.engine).add_view(NoteAdmin)
    async with client_of(three) as client:
        shown = await client.get("/admin/note/list")
        created = await client.post("/admin/note/create", data={"text": "by the admin"})
        health = await client.get("/health/ready")

    assert shown.status_code == 200
    assert all(f">{text}<" in "".join(shown.text.split()) for text in "abc")
    assert created.status_code == 302
    assert await onlooker.texts() == ["a", "b", "c", "by the admin"]
    assert health.status_code == 200
    assert database.pool.snapshot().checked_out == 0


# fastapi-users.


class User(Model):
    __tablename__ = "users"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    email: Mapped[str] = mapped_column(unique=True)
    hashed_password: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    is_verified: Mapped[bool] = mapped_column(default=False)


class Users(BaseUserDatabase[Any, uuid.UUID]):
    """As fastapi-users-db-sqlalchemy has it, which does not go with SQLAlchemy 2.1 yet."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def get(self, id: uuid.UUID) -> User | None:  # noqa: A002 - as its base has it
        return await self.session.get(User, id)

    async def get_by_email(self, email: str) -> User | None:
        return await self.session.scalar(select(User).where(User.email == email))

    async def create(self, create_dict: dict[str, Any]) -> User:
        user = User(**create_dict)
        self.session.add(user)
        await self.session.commit()  # by hand, as the library has it
        await self.session.refresh(user)
        return user


class UserManager(UUIDIDMixin, BaseUserManager[Any, uuid.UUID]):
    reset_password_token_secret = verification_token_secret = SECRET


async def users_of(session: WriteSession) -> AsyncIterator[Users]:
    yield Users(session)


async def manager_of(users: Annotated[Users, Depends(users_of)]) -> AsyncIterator[UserManager]:
    yield UserManager(users)


class UserRead(schemas.BaseUser[uuid.UUID]): ...


class UserCreate(schemas.BaseUserCreate): ...


async def test_fastapi_users_registers_and_logs_in_by_a_write_session(
    app: FastAPI, onlooker: Onlooker
) -> None:
    bearer: AuthenticationBackend[Any, uuid.UUID] = AuthenticationBackend(
        "jwt", BearerTransport("login"), lambda: JWTStrategy(SECRET, lifetime_seconds=60)
    )
    fastapi_users = FastAPIUsers[Any, uuid.UUID](manager_of, [bearer])
    app.include_router(fastapi_users.get_register_router(UserRead, UserCreate))
    app.include_router(fastapi_users.get_auth_router(bearer))

    @app.get("/me")
    async def me(user: Annotated[User, Depends(fastapi_users.current_user())]) -> str:
        return user.email

    account = {"email": "ada@example.com", "password": "correct horse"}
    async with client_of(app) as client:
        registered = await client.post("/register", json=account)
        again = await client.post("/register", json=account)
        form = {"username": account["email"], "password": account["password"]}
        token = (await client.post("/login", data=form)).json()["access_token"]
        known = await client.get("/me", headers={"Authorization": f"Bearer {token}"})

    assert [registered.status_code, again.status_code] == [201, 400]
    assert known.json() == account["email"]


# Advanced Alchemy's repository.


class Author(BigIntBase):
    __tablename__ = "authors"
    name: Mapped[str] = mapped_column(unique=True)


class Authors(SQLAlchemyAsyncRepository[Author]):
    model_type = Author


async def test_a_repository_of_advanced_alchemy_reads_and_writes(
    app: FastAPI, database: Database
) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(Author.metadata.create_all)

    @app.post("/authors/{name}")
    async def create(name: str, session: WriteSession) -> str:
        return (await Authors(session=session).add(Author(name=name))).name

    @app.get("/authors")
    async def listed(session: ReadSession) -> tuple[list[str], int]:
        authors, count = await Authors(session=session).get_many_and_count(LimitOffset(1, 0))
        return [author.name for author in authors], count

    @app.get("/authors/{name}")
    async def one(name: str, session: ReadSession) -> str:
        return (await Authors(session=session).get_one(name=name)).name

    async with client_of(app) as client:
        assert (await client.post("/authors/ada")).json() == "ada"
        assert (await client.post("/authors/grace")).json() == "grace"
        listing: httpx.Response = await client.get("/authors")
        found = await client.get("/authors/ada")

    names, count = listing.json()
    assert len(names) == 1
    assert count == 2
    assert found.json() == "ada"
