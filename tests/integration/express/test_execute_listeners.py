"""Listeners to ``do_orm_execute``: what they change is done, what takes a session is refused."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import (
    ForeignKey,
    Select,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    with_loader_criteria,
)
from tests.integration.express.answers import by_session, picture

from penstock import Database, query
from penstock.express.errors import ExpressError

pytestmark = pytest.mark.asyncio(loop_scope="module")

tenant: ContextVar[int] = ContextVar("tenant")


class Base(DeclarativeBase):
    """What the tables belong to."""


class Deletable:
    """Rows that stay when they are deleted."""

    is_deleted: Mapped[bool] = mapped_column(default=False)


class OfTenant:
    """Rows that belong to somebody."""

    tenant_id: Mapped[int] = mapped_column()


class Page(Deletable, OfTenant, Base):
    """Has comments."""

    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    comments: Mapped[list["Comment"]] = relationship(back_populates="page", order_by="Comment.id")


class Comment(Deletable, OfTenant, Base):
    """Belongs to a page, which it loads along."""

    __tablename__ = "comments"
    id: Mapped[int] = mapped_column(primary_key=True)
    page_id: Mapped[int] = mapped_column(ForeignKey("pages.id"))
    page: Mapped[Page | None] = relationship(back_populates="comments", lazy="selectin")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with database.write() as session:
            for number in range(1, 13):
                kept = {"is_deleted": number % 3 == 0, "tenant_id": 1 + number % 2}
                session.add(Page(id=number, title=f"page {number}", **kept))
            await session.flush()
            for number in range(1, 37):
                kept = {"is_deleted": number % 5 == 0, "tenant_id": 1 + number % 2}
                session.add(Comment(id=number, page_id=1 + number % 12, **kept))
        yield database


Listener = Callable[[ORMExecuteState], Any]


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    event.listen(Session, "do_orm_execute", listener)
    try:
        yield
    finally:
        event.remove(Session, "do_orm_execute", listener)


def soft_delete(state: ORMExecuteState) -> None:
    """As SQLAlchemy's documentation has it."""
    is_read = state.is_select and not state.is_column_load and not state.is_relationship_load
    if is_read and not state.execution_options.get("include_deleted", False):
        state.statement = state.statement.options(
            with_loader_criteria(
                Deletable, lambda cls: cls.is_deleted.is_(False), include_aliases=True
            )
        )


def tenants(state: ORMExecuteState) -> None:
    """Of every kind of statement, by what is said for the request."""
    of = tenant.get()
    if state.is_orm_statement and not state.is_insert:
        state.statement = state.statement.options(
            with_loader_criteria(OfTenant, lambda cls: cls.tenant_id == of, include_aliases=True)
        )


def by_constant(state: ORMExecuteState) -> None:
    if state.is_select:
        criteria = with_loader_criteria(Page, Page.tenant_id == tenant.get())
        state.statement = state.statement.options(criteria)


def by_where(state: ORMExecuteState) -> None:
    if state.is_select and state.bind_mapper is Page.__mapper__:
        assert isinstance(state.statement, Select)
        state.statement = state.statement.where(Page.tenant_id == tenant.get())


def by_option(state: ORMExecuteState) -> None:
    state.update_execution_options(include_deleted=True)
    soft_delete(state)


def by_parameters(state: ORMExecuteState) -> None:
    if isinstance(state.parameters, dict) and "least" in state.parameters:
        state.parameters = {**state.parameters, "least": 6}


LISTENERS: list[Listener] = [
    soft_delete,
    tenants,
    by_constant,
    by_where,
    by_option,
    by_parameters,
]

pages = select(Page).order_by(Page.id)
READS: dict[str, tuple[Any, dict[str, Any]]] = {
    "instances": (pages, {}),
    "columns": (select(Page.id, Page.title).order_by(Page.id), {}),
    "count": (select(func.count(Page.id)), {}),
    "selectin": (pages.options(selectinload(Page.comments)), {}),
    "joined": (pages.options(joinedload(Page.comments)), {}),
    "by_mapping": (select(Comment).order_by(Comment.id), {}),
    "join": (select(Page.id, Comment.id).join(Page.comments).order_by(Comment.id), {}),
    "subquery": (
        select(Page.id)
        .where(Page.id.in_(select(Comment.page_id).where(Comment.id < 20)))
        .order_by(Page.id),
        {},
    ),
    "parameters": (pages.where(Page.id >= bindparam("least")), {"least": 3}),
    "constant": (pages.where(Page.id >= 4), {}),
    "included": (pages.execution_options(include_deleted=True), {}),
    "table": (select(Page.__table__).order_by(Page.__table__.c.id), {}),
    "text": (text("SELECT id FROM pages ORDER BY id"), {}),
}


async def lane_all(database: Database, statement: Any, values: dict[str, Any]) -> list[Any]:
    return await database.reader.all(statement, values)


async def lane_prepared(database: Database, statement: Any, values: dict[str, Any]) -> list[Any]:
    return await database.reader.all(query(statement), values)


async def lane_snapshot(database: Database, statement: Any, values: dict[str, Any]) -> list[Any]:
    async with database.reader.snapshot() as snapshot:
        return await snapshot.all(statement, values)


async def lane_stream(database: Database, statement: Any, values: dict[str, Any]) -> list[Any]:
    async with database.reader.stream(statement, values).yield_per(1000) as stream:
        return [each async for each in stream]


async def lane_writer(database: Database, statement: Any, values: dict[str, Any]) -> list[Any]:
    return await database.writer.all(statement, values)


Way = Callable[[Database, Any, dict[str, Any]], Awaitable[list[Any]]]
WAYS: list[Way] = [lane_all, lane_prepared, lane_snapshot, lane_stream, lane_writer]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.__name__)
async def test_reads_are_filtered_as_a_sessions(
    database: Database, listener: Listener, way: Way
) -> None:
    for number in (1, 2, 1):
        tenant.set(number)
        for name, (statement, values) in READS.items():
            if name == "joined" and way is lane_stream:
                continue  # refused
            with listening(listener):
                expected = picture(await by_session(database, statement, values))
                assert picture(await way(database, statement, values)) == expected, name


async def test_listeners_that_come_and_go_are_heard_while_they_are_there(
    database: Database,
) -> None:
    asked = query(select(Page.id))
    for _ in range(2):
        assert len(await database.reader.all(asked)) == 12
        with listening(soft_delete):
            assert len(await database.reader.all(asked)) == 8
            assert await database.reader.exists(select(Page).where(Page.id == 3)) is False
        assert await database.reader.exists(select(Page).where(Page.id == 3)) is True


async def test_listeners_are_asked_in_turn(database: Database) -> None:
    tenant.set(1)
    with listening(soft_delete), listening(tenants):
        assert set(await database.reader.all(select(Page.id))) == {(2,), (4,), (8,), (10,)}


async def test_a_stream_that_is_opened_again_is_asked_of_again(database: Database) -> None:
    stream = database.reader.stream(select(Page.id).order_by(Page.id))
    found = []
    with listening(tenants):
        for number in (1, 2):
            tenant.set(number)
            found.append([row.id async for row in stream])

    assert found == [[2, 4, 6, 8, 10, 12], [1, 3, 5, 7, 9, 11]]


async def test_writes_are_filtered_as_a_sessions(database: Database) -> None:
    changed = update(Page).values(title=Page.title).returning(Page.id)
    tenant.set(2)
    with listening(tenants):
        async with AsyncSession(database.engine) as session:
            expected = sorted((await session.scalars(changed)).all())
        assert sorted(row.id for row in await database.writer.all(changed)) == expected
        assert await database.writer.execute(update(Page).values(title=Page.title)) == 6
        assert await database.writer.execute(delete(Page).where(Page.id == 2)) == 0
    assert expected == [1, 3, 5, 7, 9, 11]


async def test_an_insert_may_be_changed(database: Database) -> None:
    def stamp(state: ORMExecuteState) -> None:
        if state.is_insert and isinstance(state.parameters, dict):
            state.parameters = {**state.parameters, "tenant_id": tenant.get()}
        elif state.is_insert and isinstance(state.parameters, list):
            state.parameters = [{**row, "tenant_id": tenant.get()} for row in state.parameters]

    tenant.set(7)
    new = {"title": "new", "is_deleted": False}
    with listening(stamp):
        await database.writer.execute(insert(Page), {"id": 101, **new})
        page = await database.writer.one(insert(Page).returning(Page), {"id": 102, **new})
        await database.writer.execute_many(insert(Page), [{"id": 103, **new}, {"id": 104, **new}])
        many = await database.writer.all(
            insert(Page).returning(Page.tenant_id), [{"id": 105, **new}]
        )
    of_them = await database.reader.all(select(Page.tenant_id).where(Page.id > 100))
    await database.writer.execute(delete(Page).where(Page.id > 100))

    assert page.tenant_id == 7
    assert many == [(7,)]
    assert of_them == [(7,)] * 5


def returns_a_result(state: ORMExecuteState) -> Any:
    return state.invoke_statement()


def runs_a_statement(state: ORMExecuteState) -> None:
    if state.is_select:
        state.session.scalar(select(1))


def looks_at_info(state: ORMExecuteState) -> None:
    if state.session.info.get("tenant"):
        soft_delete(state)


def names_a_result(_: ORMExecuteState) -> str:
    return "a result"


@pytest.mark.parametrize(
    "listener",
    [returns_a_result, runs_a_statement, looks_at_info, names_a_result],
    ids=lambda listener: listener.__name__,
)
async def test_what_takes_a_session_is_refused(database: Database, listener: Listener) -> None:
    if listener is runs_a_statement:
        event.listen(Session, "do_orm_execute", only_once := once(listener))
        try:
            with pytest.raises(ExpressError, match="session"):
                await database.reader.all(pages)
        finally:
            event.remove(Session, "do_orm_execute", only_once)
        return
    for way in (lane_all, lane_prepared, lane_snapshot, lane_stream, lane_writer):
        with listening(listener), pytest.raises(ExpressError, match="session"):
            await way(database, pages, {})
    assert database.pool.snapshot().checked_out == 0


def once(listener: Listener) -> Listener:
    """A listener that does not hear what it runs itself."""
    left = [True]

    def after_listeners(state: ORMExecuteState) -> Any:
        return listener(state) if left and left.pop() else None

    return after_listeners


class OwnSession(Session):
    """What an application's own sessions are below."""


class OwnAsyncSession(AsyncSession):
    """An application's own."""

    sync_session_class = OwnSession


async def test_listeners_to_an_applications_own_sessions_are_heard(
    database: Database, module_url: str
) -> None:
    with_comments = pages.options(selectinload(Page.comments))
    tenant.set(1)
    event.listen(OwnSession, "do_orm_execute", tenants)
    try:
        async with Database.from_url(
            module_url, environment="testing", session_class=OwnAsyncSession
        ) as own:
            found = await own.reader.all(with_comments)
            async with own.read() as session:
                expected = (await session.scalars(select(Page.id).order_by(Page.id))).all()
        others = await database.reader.all(with_comments)
    finally:
        event.remove(OwnSession, "do_orm_execute", tenants)

    assert [page.id for page in found] == expected == [2, 4, 6, 8, 10, 12]
    assert not any(page.comments for page in found)  # all of the other tenant's
    assert len(others) == 12
    assert all(page.comments for page in others)
