"""Statements that load related objects: what they cost, what they see, and how they fail."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pytest
from sqlalchemy import (
    bindparam,
    delete,
    event,
    func,
    insert,
    literal_column,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload, with_loader_criteria
from tests.integration.express.answers import by_session, picture
from tests.integration.express.library import Author, Base, Book, Country, Tag, rows
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy

from penstock import Database, query
from penstock.errors import DeadlineExceeded, ExpressError
from penstock.fastapi.request_sessions import RequestSessions
from penstock.telemetry.statement_watch import request_statements

authors = select(Author).order_by(Author.id)
with_books = query(authors.options(selectinload(Author.books)))
renamed = query(
    update(Author)
    .where(Author.id == 1)
    .values(name=bindparam("new_name"))
    .returning(Author)
    .options(selectinload(Author.books))
)


@pytest.fixture
async def database(behind_proxy: Database, proxy: Proxy) -> Database:
    """A library, through a proxy."""
    async with behind_proxy.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with behind_proxy.write() as session:
        session.add_all(rows())
    proxy.keeps_rollbacks = True
    return behind_proxy


async def read(database: Database, statement: Any, **values: Any) -> list[Any]:
    return await database.reader.all(statement, values)


ROUND_TRIPS: dict[str, tuple[Any, int]] = {
    "one": (with_books, 2),
    "two": (query(authors.options(selectinload(Author.books), selectinload(Author.country))), 3),
    "chain": (
        query(
            select(Country).options(
                selectinload(Country.authors).selectinload(Author.books).selectinload(Book.tags)
            )
        ),
        4,
    ),
    "no_rows": (query(select(Author).where(Author.id < 0).options(selectinload(Author.books))), 1),
    "nothing_referred_to": (
        query(select(Author).where(Author.id == 1).options(selectinload(Author.mentor))),
        1,
    ),
    "chunks": (query(authors.options(selectinload(Author.books, chunksize=3))), 4),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
async def test_a_read_waits_once_for_each_relationship(
    database: Database, proxy: Proxy, name: str
) -> None:
    statement, expected = ROUND_TRIPS[name]
    await read(database, statement)  # each statement is prepared once
    for _ in range(2):
        before = proxy.round_trips
        await read(database, statement)
        assert proxy.round_trips - before == expected


async def test_another_number_of_rows_is_not_another_statement_each_time(
    database: Database, proxy: Proxy
) -> None:
    statement = query(
        select(Book).where(Book.id <= bindparam("last")).options(selectinload(Book.editions))
    )
    for last in (1, 2, 4, 8, 11):  # the powers of two up to 16
        await read(database, statement, last=last)
    for last in range(1, 12):
        before = proxy.round_trips
        found = await read(database, statement, last=last)
        assert len(found) == last
        assert proxy.round_trips - before == 2


async def test_a_write_waits_for_its_commit_as_well(database: Database, proxy: Proxy) -> None:
    await database.writer.one(renamed, new_name="a")
    before = proxy.round_trips
    author = await database.writer.one(renamed, new_name="b")

    assert proxy.round_trips - before == 3
    assert [book.id for book in author.books] == [5, 10]
    assert await database.reader.scalar(select(Author.name).where(Author.id == 1)) == "b"


async def test_beside_a_session_and_in_a_snapshot_it_waits_once_for_each(
    database: Database, proxy: Proxy
) -> None:
    units = RequestSessions({"default": database})
    session, reader = units.unit("default").writer, units.reader("default")
    await session.execute(update(Author).values(name="flushed"))
    await reader.all(with_books)
    before = proxy.round_trips
    found = await reader.all(with_books)
    spent = [proxy.round_trips - before]
    await units.commit()
    await units.end()
    async with database.reader.snapshot() as snapshot:
        before = proxy.round_trips
        await snapshot.all(with_books)
        spent.append(proxy.round_trips - before)

    assert spent == [2, 2]
    assert {author.name for author in found} == {"flushed"}


async def test_a_stream_waits_once_for_each_relationship_of_a_batch(
    database: Database, proxy: Proxy
) -> None:
    async def spent(statement: Any) -> int:
        before = proxy.round_trips
        async with database.reader.stream(statement).yield_per(4) as found:
            assert len([each async for each in found]) == 7
        return proxy.round_trips - before

    await spent(with_books)
    await spent(authors)
    assert await spent(with_books) == await spent(authors) + 2


def between(proxy: Proxy, what: bytes, happens: Callable[[], Any]) -> None:
    """Have something happen once, when a statement that is to be prepared comes by."""
    left = [happens]

    def alter(data: bytes, is_answer: bool) -> tuple[bytes, bool]:
        goes_on = True
        if not is_answer and what in data and left:
            goes_on = left.pop()() is not False
        return (data, True) if goes_on else (b"", False)

    proxy.alter = alter


async def all_of(database: Database) -> list[Any]:
    return await database.reader.all(with_books)


async def streamed(database: Database) -> list[Any]:
    async with database.reader.stream(with_books) as found:
        return [each async for each in found]


async def in_a_snapshot(database: Database) -> list[Any]:
    async with database.reader.snapshot() as snapshot:
        return await snapshot.all(with_books)


Reading = Callable[[Database], Awaitable[list[Any]]]
WAYS: list[Reading] = [all_of, streamed, in_a_snapshot]


async def see_one_moment(
    database: Database, proxy: Proxy, postgres: PostgresServer, way: Reading
) -> None:
    name = database.engine.url.database or ""
    happened = []

    def change() -> None:
        happened.extend(postgres.execute("DELETE FROM tagged RETURNING book_id", name))
        happened.extend(postgres.execute("DELETE FROM printings RETURNING id", name))
        happened.extend(postgres.execute("DELETE FROM editions RETURNING book_id", name))
        happened.extend(postgres.execute("DELETE FROM books RETURNING id", name))

    between(proxy, b"FROM books", change)
    found = await way(database)

    assert happened
    assert sum(len(author.books) for author in found) == 11
    assert sum(len(author.books) for author in await way(database)) == 0


@pytest.mark.parametrize("way", WAYS)
async def test_all_statements_of_a_read_see_one_moment(
    database: Database, proxy: Proxy, postgres: PostgresServer, way: Reading
) -> None:
    await see_one_moment(database, proxy, postgres, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("driver", "environment"), [("psycopg", "testing"), ("asyncpg", "serverless")]
)
async def test_they_see_one_moment_by_a_session_as_well(  # noqa: PLR0917 - fixtures
    database: Database,
    proxy: Proxy,
    postgres: PostgresServer,
    driver: str,
    environment: str,
    way: Reading,
) -> None:
    url = database.engine.url.set(drivername=f"postgresql+{driver}")
    async with Database.from_url(
        url.render_as_string(hide_password=False), environment=environment
    ) as by_sessions:
        await see_one_moment(by_sessions, proxy, postgres, way)


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"])
async def test_a_stricter_isolation_level_is_kept(database_url: str, level: str) -> None:
    shown = func.current_setting("transaction_isolation") == bindparam("level")
    asked = query(authors.options(selectinload(Author.books.and_(shown))))
    kept = {"READ COMMITTED": "repeatable read"}.get(level, level.lower())
    async with Database.from_url(
        database_url, environment="testing", isolation_level=level
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with database.write() as session:
            session.add_all(rows())
        found = await database.reader.all(asked, level=kept)
        async with database.reader.stream(asked, level=kept) as stream:
            streamed = [author async for author in stream]

    assert sum(len(author.books) for author in found) == 11
    assert sum(len(author.books) for author in streamed) == 11


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", None])
async def test_a_snapshot_is_at_the_configured_isolation_level_or_above(
    database_url: str, driver: str, level: str | None
) -> None:
    url = database_url.replace("+asyncpg", f"+{driver}")
    shown = text("SELECT current_setting('transaction_isolation')")
    async with (
        Database.from_url(url, environment="testing", isolation_level=level) as database,
        database.reader.snapshot() as snapshot,
    ):
        in_force = await snapshot.scalar(shown)

    assert in_force == ("serializable" if level == "SERIALIZABLE" else "repeatable read")


async def test_a_snapshot_keeps_the_isolation_level_of_a_server_setting(database_url: str) -> None:
    serializable = {"default_transaction_isolation": "serializable"}
    async with (
        Database.from_url(
            database_url, environment="testing", server_settings=serializable
        ) as database,
        database.reader.snapshot() as snapshot,
    ):
        assert await snapshot.scalar(text("SHOW transaction_isolation")) == "serializable"


async def test_a_read_that_is_cut_off_amid_its_statements_is_repeated(
    database: Database, proxy: Proxy
) -> None:
    between(proxy, b"FROM books", lambda: False)
    found = await database.reader.all(with_books)

    assert sum(len(author.books) for author in found) == 11
    assert proxy.connects == 2


async def test_a_write_that_is_cut_off_amid_its_statements_is_not_repeated(
    database: Database, proxy: Proxy
) -> None:
    between(proxy, b"FROM books", lambda: False)
    with pytest.raises(DBAPIError):  # and nothing unknown: there was no COMMIT
        await database.writer.one(renamed, new_name="lost")

    assert await database.reader.scalar(select(Author.name).where(Author.id == 1)) == "author 1"


broken = selectinload(Author.books.and_(Book.pages / (Book.pages - Book.pages) > 1))


async def test_a_further_statement_that_fails_says_which_it_was_and_nothing_is_written(
    database: Database,
) -> None:
    statement = update(Author).values(name="x").returning(Author).options(broken)
    async with AsyncSession(database.engine) as session:
        with pytest.raises(DBAPIError) as expected:
            await session.execute(statement)
    with pytest.raises(DBAPIError) as of_a_write:
        await database.writer.all(statement)
    with pytest.raises(DBAPIError) as of_a_read:
        await database.reader.all(authors.options(broken))
    async with database.reader.snapshot() as snapshot:
        with pytest.raises(DBAPIError) as in_snapshot:
            await snapshot.all(authors.options(broken))

    for error in (of_a_write.value, of_a_read.value, in_snapshot.value):
        assert type(error) is type(expected.value)
        assert "FROM books" in str(error.statement)
    assert len(await database.reader.all(with_books)) == 7
    assert database.pool.snapshot().checked_out == 0


@contextmanager
def loading_fails() -> Iterator[None]:
    def fail(*_: Any) -> None:
        raise RuntimeError("this book cannot be loaded")

    event.listen(Book, "load", fail)
    try:
        yield
    finally:
        event.remove(Book, "load", fail)


async def test_a_write_whose_results_cannot_be_loaded_is_not_saved(database: Database) -> None:
    with loading_fails(), pytest.raises(RuntimeError, match="cannot be loaded"):
        await database.writer.one(renamed, new_name="lost")

    assert await database.reader.scalar(select(Author.name).where(Author.id == 1)) == "author 1"


slow = selectinload(Author.books.and_(func.pg_sleep(30).is_not(None)))


async def test_a_limit_bounds_all_statements_together(database: Database, proxy: Proxy) -> None:
    proxy.keeps_rollbacks = False
    statement = update(Author).values(name="x").returning(Author).options(slow)
    with pytest.raises(DeadlineExceeded):
        await database.reader.with_timeout(0.5).all(authors.options(slow))
    with pytest.raises(DeadlineExceeded):
        await database.writer.with_timeout(0.5).all(statement)

    assert await database.reader.scalar(select(Author.name).where(Author.id == 1)) == "author 1"
    assert database.pool.snapshot().checked_out == 0


async def test_a_cancelled_read_leaves_a_usable_connection(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await database.reader.all(authors.options(slow))

    assert len(await database.reader.all(with_books)) == 7
    assert database.pool.snapshot().checked_out == 0


async def test_a_schema_change_under_a_further_statement_is_healed(
    database: Database, postgres: PostgresServer, database_url: str
) -> None:
    name = make_url(database_url).database or ""
    await database.reader.all(with_books)
    await database.writer.one(renamed, new_name="before")
    change = "ALTER TABLE books ALTER pages TYPE {}"
    await asyncio.to_thread(postgres.execute, change.format("bigint"), name)

    assert sum(len(author.books) for author in await database.reader.all(with_books)) == 11
    await asyncio.to_thread(postgres.execute, change.format("integer"), name)
    author = await database.writer.one(renamed, new_name="after")
    assert len(author.books) == 2
    assert await database.reader.scalar(select(Author.name).where(Author.id == 1)) == "after"


async def test_constants_are_those_of_the_call(database: Database) -> None:
    for pages in (100, 300, 500):
        criteria = Book.pages > pages
        for option in (
            selectinload(Author.books.and_(criteria)),
            [selectinload(Author.books), with_loader_criteria(Book, criteria)],
        ):
            options = option if isinstance(option, list) else [option]
            found = await database.reader.all(authors.options(*options))
            books = [book for author in found for book in author.books]
            assert sorted(book.pages for book in books) == list(range(pages + 50, 551, 50))


async def test_named_parameters_are_those_of_the_call(database: Database) -> None:
    criteria = Book.pages > bindparam("pages")
    for statement in (
        query(authors.options(selectinload(Author.books.and_(criteria)))),
        query(authors.options(selectinload(Author.books), with_loader_criteria(Book, criteria))),
    ):
        for pages in (100, 300, 500):
            found = await database.reader.all(statement, pages=pages)
            books = [book for author in found for book in author.books]
            assert sorted(book.pages for book in books) == list(range(pages + 50, 551, 50))


async def test_further_statements_run_in_the_context_of_the_call(database: Database) -> None:
    criteria = func.current_setting("app.tenant", True) == "7"
    statement = authors.options(selectinload(Author.books.and_(criteria)))
    for tenant, expected in (("7", 11), ("8", 0), ("7", 11)):
        reader = database.reader.with_context(settings={"app.tenant": tenant})
        found = await reader.all(statement)
        assert sum(len(author.books) for author in found) == expected
        writer = database.writer.with_context(settings={"app.tenant": tenant})
        changed = update(Author).values(name=Author.name).returning(Author)
        found = await writer.all(changed.options(selectinload(Author.books.and_(criteria))))
        assert sum(len(author.books) for author in found) == expected


async def test_a_listener_to_what_is_loaded_may_load_more(database: Database) -> None:
    def look(author: Author, _: Any) -> None:
        assert author.books is not None

    event.listen(Author, "load", look, restore_load_context=True)
    try:
        statement = select(Author).order_by(Author.id)
        expected = picture(await by_session(database, statement))
        assert picture(await database.reader.all(statement)) == expected
        written = await database.writer.all(update(Author).values(name="x").returning(Author))
        assert sum(len(author.books) for author in written) == 11
    finally:
        event.remove(Author, "load", look)


async def test_a_write_whose_listener_fails_is_not_saved(database: Database) -> None:
    changed = update(Book).values(title="lost").returning(Book)
    with loading_fails(), pytest.raises(RuntimeError, match="cannot be loaded"):
        await database.writer.all(changed)

    titles = await database.reader.all(select(Book.title).distinct())
    assert "lost" not in {row.title for row in titles}


table = Base.metadata.tables["tags"]
READING: dict[str, Callable[[Any], Any]] = {
    "core": lambda session: session.execute(select(table.c.id).order_by(table.c.id)).all(),
    "core_scalar": lambda session: session.scalar(select(func.count()).select_from(table)),
    "text": lambda session: session.execute(text("SELECT 1")).all(),
    "text_with_parameters": lambda session: session.scalar(text("SELECT :x + 1"), {"x": 1}),
    "columns": lambda session: session.execute(select(Tag.id).order_by(Tag.id)).all(),
    "instances": lambda session: [tag.id for tag in session.scalars(select(Tag).order_by(Tag.id))],
    "get": lambda session: session.get(Tag, 1).id,
    "query": lambda session: session.query(Tag).count(),
}
WRITING: dict[str, Callable[[Any], Any]] = {
    "update": lambda session: session.execute(update(table).values(id=table.c.id)),
    "update_of_a_class": lambda session: session.execute(delete(Tag).where(Tag.id < 0)),
    "insert": lambda session: session.execute(insert(table).values(id=1000)),
    "add": lambda session: (session.add(Tag(id=1001)), session.flush()),
    "connection": lambda session: session.connection(),
    "begin_nested": lambda session: session.begin_nested(),
    "commit": lambda session: session.commit(),
    "rollback": lambda session: session.rollback(),
}
FAILING: dict[str, Callable[[Any], Any]] = {
    "core": lambda session: session.scalar(select(literal_column("1 / 0"))),
    "columns": lambda session: session.execute(select(Tag.id / 0)).all(),
}


@contextmanager
def listening(ask: Callable[[Any], Any], *, passes_over: bool = False) -> Iterator[list[Any]]:
    """Listen to the load of books, and give what was found."""
    found: list[Any] = []

    def on_load(_: Any, context: Any) -> None:
        with suppress(Exception) if passes_over else nullcontext():
            found.append(ask(context.session))

    event.listen(Book, "load", on_load)
    try:
        yield found
    finally:
        event.remove(Book, "load", on_load)


@pytest.mark.parametrize("name", READING)
async def test_a_listener_may_read_in_each_way(database: Database, name: str) -> None:
    statement = update(Book).where(Book.id == 1).values(pages=Book.pages).returning(Book)
    with listening(READING[name]) as expected:
        await by_session(database, statement)
    with listening(READING[name]) as found:
        await database.writer.all(statement)
        await database.reader.all(select(Book).where(Book.id == 1))

    assert found == 2 * expected


@pytest.mark.parametrize("passes_over", [False, True], ids=["raises", "passes_over"])
@pytest.mark.parametrize("name", WRITING)
async def test_a_listener_that_writes_is_refused_and_nothing_is_saved(
    database: Database, name: str, passes_over: bool
) -> None:
    statement = update(Book).where(Book.id == 1).values(title="lost").returning(Book)
    with listening(WRITING[name], passes_over=passes_over):
        for asking in (database.writer.all(statement), database.reader.all(select(Book))):
            with pytest.raises(ExpressError, match="takes a session"):
                await asking

    assert await database.reader.scalar(select(Book.title).where(Book.id == 1)) != "lost"
    assert await database.reader.scalar(select(func.count()).where(table.c.id >= 1000)) == 0
    assert database.pool.snapshot().checked_out == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FAILING)
async def test_a_listener_is_told_of_a_failure_as_in_a_session(
    database: Database, name: str, way: Reading
) -> None:
    told: list[Any] = []

    def ask(session: Any) -> None:
        if not told:
            with pytest.raises(DBAPIError, match="division by zero") as raised:
                FAILING[name](session)
            told.append(raised.value.statement)

    with listening(ask), suppress(DBAPIError):  # of what comes after it in the transaction
        await way(database)

    assert "/" in str(told[0])
    assert database.pool.snapshot().checked_out == 0


@pytest.mark.parametrize("passes_over", [False, True], ids=["raises", "passes_over"])
@pytest.mark.parametrize("name", FAILING)
async def test_a_write_whose_listeners_statement_fails_is_not_said_to_be_saved(
    database: Database, name: str, passes_over: bool
) -> None:
    statement = update(Book).where(Book.id == 1).values(title="lost").returning(Book)
    with (
        listening(FAILING[name], passes_over=passes_over),
        pytest.raises(DBAPIError, match="division by zero"),
    ):
        await database.writer.all(statement)

    assert await database.reader.scalar(select(Book.title).where(Book.id == 1)) != "lost"
    assert database.pool.snapshot().checked_out == 0


async def test_a_value_that_does_not_fit_is_a_statement_error(database: Database) -> None:
    statement = query(authors.options(selectinload(Author.books.and_(Book.id == bindparam("id")))))
    with pytest.raises(StatementError):
        await database.reader.all(statement, id="no number")

    assert database.pool.snapshot().checked_out == 0


async def test_each_statement_is_counted(database: Database) -> None:
    requests: dict[Any, dict[str, int]] = {}
    token = request_statements.set(requests)
    try:
        await database.reader.all(with_books)
        async with database.reader.snapshot() as snapshot:
            await snapshot.all(with_books)
        await database.writer.one(renamed, new_name="x")
    finally:
        request_statements.reset(token)

    (counts,) = requests.values()
    assert sum(times for sql, times in counts.items() if "FROM books" in sql) == 3
    assert sum(counts.values()) == 6


async def test_a_listener_to_the_pool_is_told_of_one_checkout(database: Database) -> None:
    after_listeners: list[str] = []
    pool = database.engine.sync_engine.pool
    event.listen(pool, "checkout", lambda *_: after_listeners.append("out"))
    event.listen(pool, "checkin", lambda *_: after_listeners.append("in"))
    found = await database.reader.all(with_books)

    assert after_listeners == ["out", "in"]
    assert sum(len(author.books) for author in found) == 11


async def test_more_rows_than_a_loader_asks_for_at_once(database: Database) -> None:
    await database.writer.execute_many(
        insert(Tag), [{"id": number, "word": "many"} for number in range(1000, 2300)]
    )
    await database.writer.execute(text("INSERT INTO tagged SELECT 1, id FROM tags WHERE id > 999"))
    found = await database.reader.all(select(Tag).options(selectinload(Tag.books)))

    assert len(found) == 1303
    assert all([book.id for book in tag.books] == [1] for tag in found if tag.id > 999)
