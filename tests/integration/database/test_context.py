"""A role and settings are in force for exactly the transactions that they are for."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Enum, event, insert, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from tests.servers.postgres import PostgresServer

from penstock import Database, query
from penstock.drivers.driver import BeginOptions
from penstock.errors import ContextError, ContextRequired
from penstock.testing import rollback_after

CURRENT = "coalesce(current_setting('app.tenant', true), '')"
TENANT = text(f"SELECT {CURRENT} AS tenant")
LONG = text(f"SELECT {CURRENT} AS tenant -- {'x' * 16_000}")
"""Too long for the driver to keep it prepared."""
SEVEN = {"app.tenant": "7"}


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """Says under which tenant it was written."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(server_default=text(CURRENT))
    line: Mapped[str] = mapped_column(default="")


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, database_url: str) -> str:
    return database_url.replace("asyncpg", request.param)


@pytest.fixture(params=["pooled", "without statements", "pooler", "serverless"])
async def database(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Database]:
    """One connection, that what one leaves behind is what the next one finds."""
    kinds: dict[str, dict[str, Any]] = {
        "pooled": {},
        "without statements": {"statement_cache_size": 0},
        "pooler": {"proxy": "pgbouncer"},
        "serverless": {"environment": "serverless"},
    }
    settings = {"environment": "testing", "pool_size": 1, "max_overflow": 0, **kinds[request.param]}
    async with Database.from_url(url, **settings) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


@pytest.fixture
async def lone(url: str) -> AsyncIterator[Database]:
    async with Database.from_url(
        url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=5
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


async def tenant_of(session: Any) -> str:
    tenant: str = await session.scalar(TENANT)
    return tenant


# Every way to use the database, each of which tells under which tenant it did.


async def read_in_a_session(database: Database, settings: Any) -> list[str]:
    async with database.read(settings=settings) as session:
        return [await tenant_of(session) for _ in range(2)]


async def write_in_a_session(database: Database, settings: Any) -> list[str]:
    async with database.write(settings=settings) as session:
        session.add(note := Note())
        await session.flush()
        await session.refresh(note)
        return [note.tenant]


async def write_many_in_a_session(database: Database, settings: Any) -> list[str]:
    async with database.write(settings=settings) as session:
        added = await session.scalars(insert(Note).returning(Note.tenant), [{"line": "a"}] * 3)
        return list(added)


async def commit_and_go_on(database: Database, settings: Any) -> list[str]:
    async with database.write(settings=settings) as session:
        before = await tenant_of(session)
        await session.commit()
        return [before, await tenant_of(session)]


async def stream_in_a_session(database: Database, settings: Any) -> list[str]:
    async with database.read(settings=settings) as session:
        return [row.tenant async for row in await session.stream(TENANT)]


async def read_beside_a_write(database: Database, settings: Any) -> list[str]:
    unit = database.unit(BeginOptions(settings=tuple((settings or {}).items())))
    try:
        before = await tenant_of(unit.reader)
        found = [before, await tenant_of(unit.writer), await tenant_of(unit.reader)]
        await unit.commit()
        return [*found, await tenant_of(unit.reader), await tenant_of(unit.writer)]
    finally:
        await unit.end("it was left")


def reader_of(database: Database, settings: Any) -> Any:
    return database.reader if settings is None else database.reader.with_context(settings=settings)


def writer_of(database: Database, settings: Any) -> Any:
    return database.writer if settings is None else database.writer.with_context(settings=settings)


async def read_in_the_lane(database: Database, settings: Any) -> list[str]:
    reader = reader_of(database, settings)
    return [
        *[await reader.scalar(TENANT) for _ in range(2)],  # the first prepares it
        (await reader.one(query(TENANT))).tenant,
        *[(await reader.one(LONG)).tenant for _ in range(2)],
        (await reader.one(text(f"SELECT *, {CURRENT} AS tenant FROM (SELECT 1) AS one"))).tenant,
    ]


async def stream_in_the_lane(database: Database, settings: Any) -> list[str]:
    async with reader_of(database, settings).stream(TENANT) as rows:
        return [row.tenant async for row in rows]


async def snapshot_in_the_lane(database: Database, settings: Any) -> list[str]:
    async with reader_of(database, settings).snapshot() as moment:
        streamed = [row.tenant async for row in moment.stream(TENANT)]
        return [await moment.scalar(TENANT), *streamed, await moment.scalar(TENANT)]


async def write_in_the_lane(database: Database, settings: Any) -> list[str]:
    writer = writer_of(database, settings)
    added = insert(Note).returning(Note.tenant)
    first = await writer.scalar(text("SELECT coalesce(max(id), 0) FROM notes"))
    for _ in range(2):
        assert await writer.execute(insert(Note).values(line="executed")) == 1
    long = insert(Note).values(line="x" * 16_000).prefix_with(f"/* {'x' * 16_000} */")
    for _ in range(2):
        assert await writer.execute(long) == 1
    return [
        *[await writer.scalar(added.values(line="returned")) for _ in range(2)],
        *await written_since(database, first),
    ]


async def write_many_in_the_lane(database: Database, settings: Any) -> list[str]:
    writer = writer_of(database, settings)
    first = await writer.scalar(text("SELECT coalesce(max(id), 0) FROM notes"))
    for _ in range(2):
        await writer.execute_many(insert(Note), [{"line": "a"}, {"line": "b"}])
    return await written_since(database, first)


async def copy_in_the_lane(database: Database, settings: Any) -> list[str]:
    writer = writer_of(database, settings)
    first = await writer.scalar(text("SELECT coalesce(max(id), 0) FROM notes"))
    assert await writer.copy_in(Note, [{"line": "a"}, {"line": "b"}]) == 2
    return await written_since(database, first)


async def written_since(database: Database, first: int) -> list[str]:
    async with database.engine.connect() as connection:
        return list(await connection.scalars(select(Note.tenant).where(Note.id > first)))


Way = Callable[[Database, Any], Awaitable[list[str]]]
WAYS: list[Way] = [
    read_in_a_session,
    write_in_a_session,
    write_many_in_a_session,
    commit_and_go_on,
    stream_in_a_session,
    read_beside_a_write,
    read_in_the_lane,
    stream_in_the_lane,
    snapshot_in_the_lane,
    write_in_the_lane,
    write_many_in_the_lane,
    copy_in_the_lane,
]


async def test_every_way_has_its_own_context_and_leaves_none_to_any_other(
    database: Database,
) -> None:
    for way in WAYS:
        assert set(await way(database, SEVEN)) == {"7"}, way.__name__
        for after in WAYS:
            assert set(await after(database, None)) == {""}, (way.__name__, after.__name__)


async def test_in_undone_as_well_and_in_savepoints_of_one_transaction(lone: Database) -> None:
    async with rollback_after(lone):
        for way in set(WAYS) - {write_in_the_lane, write_many_in_the_lane, copy_in_the_lane}:
            assert set(await way(lone, SEVEN)) == {"7"}, way.__name__
            assert set(await way(lone, None)) == {""}, way.__name__
        writer = lone.writer.with_context(settings=SEVEN)
        await writer.execute_many(insert(Note), [{"line": "many"}] * 2)
        await writer.copy_in(Note, [{"line": "copied"}] * 2)
        by_seven = select(Note.tenant).where(Note.line.in_(["many", "copied"]))
        assert await lone.reader.all(by_seven) == [("7",)] * 4
        async with lone.write(settings=SEVEN):
            pass
        assert await lone.reader.scalar(TENANT) == ""


async def test_in_undone_a_role_ends_with_its_unit_and_a_refused_one_is_told_without_it(
    lone: Database,
) -> None:
    async with rollback_after(lone):
        login = await lone.reader.scalar(text("SELECT current_user"))
        async with lone.write(role=login) as session:
            assert await session.scalar(text("SHOW role")) == login
        assert await lone.reader.scalar(text("SHOW role")) == "none"
        with pytest.raises(DBAPIError) as refused:
            await lone.reader.with_context(role="QZhunterZQ").scalar(TENANT)
        assert "QZhunter" not in str(refused.value)
        assert await lone.reader.scalar(TENANT) == ""


# What ends a transaction by hand.


@pytest.mark.parametrize(
    "end",
    [
        "COMMIT",
        "ROLLBACK",
        "END",
        "ABORT",
        "commit and chain",
        "ROLLBACK WORK AND CHAIN",
        "/* by hand */ COMMIT /* */ AND CHAIN",
        "COMMIT AND NO CHAIN",
    ],
)
async def test_a_transaction_that_is_ended_by_hand_goes_on_in_its_context(
    database: Database, end: str
) -> None:
    async with database.write(settings=SEVEN) as session:
        assert await tenant_of(session) == "7"
        with pytest.raises(DBAPIError, match=r"ends it by commit\(\)"):
            await session.execute(text(end))
        session.add(note := Note())
        await session.flush()
        await session.refresh(note)
        assert note.tenant == "7"
        async with session.begin_nested():
            assert await tenant_of(session) == "7"
    async with database.read(settings=SEVEN) as reading:
        await reading.execute(text(end))
        assert await tenant_of(reading) == "7"
    assert await database.reader.scalar(TENANT) == ""


async def test_a_transaction_that_is_begun_by_hand_has_the_context(database: Database) -> None:
    async with database.read(settings=SEVEN) as session:
        await session.execute(text("COMMIT"))
        await session.execute(text("BEGIN"))
        assert await tenant_of(session) == "7"


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_no_text_ends_the_transaction_of_what_writes(database_url: str, driver: str) -> None:
    texts = ["COMMIT", "ROLLBACK", "END", "ABORT", "COMMIT AND CHAIN", "BEGIN"]
    texts += ["START TRANSACTION READ ONLY", "PREPARE TRANSACTION 'a'", "/**/ commit--\n work"]
    texts += ["SELECT 1; COMMIT; SELECT 2", "SAVEPOINT a; COMMIT", "SELECT 1; END"]
    url = database_url.replace("asyncpg", driver)
    async with Database.from_url(url, environment="testing", pool_size=1) as database:
        async with database.write() as session:
            await session.execute(text("CREATE TABLE kept (id int)"))
        for end in texts:
            async with database.write() as session:
                await session.execute(text("INSERT INTO kept VALUES (1)"))
                connection = await session.connection()
                for run in (session.scalars, session.execute, connection.execute):
                    with pytest.raises(DBAPIError, match=r"ends it by commit\(\)"):
                        await run(text(end))
                with pytest.raises(DBAPIError, match=r"ends it by commit\(\)"):
                    await connection.exec_driver_sql(end)
                await session.rollback()
        assert await database.reader.scalar(text("SELECT count(*) FROM kept")) == 0


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_savepoints_as_text_and_bodies_are_no_end(database_url: str, driver: str) -> None:
    texts = [
        "/**/ SAVEPOINT a",
        "ROLLBACK WORK -- x\n TO a",
        "ROLLBACK TO SAVEPOINT a",
        "RELEASE a",
    ]
    texts += ["CREATE FUNCTION two() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END"]
    texts += ["SELECT CASE WHEN true THEN 1 END", "SELECT 'COMMIT' AS commit"]
    url = database_url.replace("asyncpg", driver)
    async with (
        Database.from_url(url, environment="testing") as database,
        database.write() as session,
    ):
        for statement in texts:
            await session.execute(text(statement))
        assert await session.scalar(text("SELECT two()")) == 2


async def test_savepoints_keep_the_context_and_what_the_route_set_itself(
    database: Database,
) -> None:
    async with database.write(settings=SEVEN) as session:
        async with session.begin_nested() as savepoint:
            await session.execute(text("SET LOCAL app.tenant = '8'"))
            assert await tenant_of(session) == "8"
            await savepoint.rollback()
        assert await tenant_of(session) == "7"
        await session.execute(text("SET LOCAL app.tenant = '8'"))
        async with session.begin_nested():
            assert await tenant_of(session) == "8"
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await session.execute(text("SELECT 1 / 0"))
        assert await tenant_of(session) == "8"
        await session.commit()
        assert await tenant_of(session) == "7"


@pytest.mark.parametrize(
    "statement", ["SET app.tenant = '8'", "SELECT set_config('app.tenant', '8', false)"]
)
async def test_what_the_route_sets_for_its_session_ends_with_its_lease(
    lone: Database, statement: str
) -> None:
    async with lone.write(settings=SEVEN) as session:
        await session.execute(text(statement))
        await session.commit()
        assert await tenant_of(session) == "7"
    assert await lone.reader.scalar(TENANT) == ""
    async with lone.engine.connect() as connection:
        assert await connection.scalar(TENANT) == ""


async def test_the_drivers_own_connection_may_end_the_transaction(lone: Database) -> None:
    async with lone.write(settings=SEVEN) as session:
        assert await tenant_of(session) == "7"
        raw = await (await session.connection()).get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute("COMMIT")
        assert await tenant_of(session) == "7"


async def test_autocommit_takes_none_of_it_away(lone: Database) -> None:
    async with lone.write(settings=SEVEN) as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        assert await tenant_of(session) == "7"
        assert await tenant_of(session) == "7"
    assert await lone.reader.scalar(TENANT) == ""


async def test_a_lease_without_a_statement_leaves_none_behind(lone: Database) -> None:
    async with lone.write(settings=SEVEN) as session:
        await session.connection()
    async with lone.engine.connect() as connection:
        assert await connection.scalar(TENANT) == ""
        await connection.execute(insert(Note))


# Listeners.


async def test_statements_of_listeners_come_behind_the_context(lone: Database) -> None:
    seen: list[str] = []

    def after_begin(_: Session, __: object, connection: Any) -> None:
        seen.append(connection.execute(TENANT).scalar())
        connection.execute(text("SET LOCAL app.person = 'eve'"))

    event.listen(Session, "after_begin", after_begin)
    try:
        async with lone.read(settings=SEVEN) as session:
            assert await tenant_of(session) == "7"
            assert await session.scalar(text("SHOW app.person")) == "eve"
    finally:
        event.remove(Session, "after_begin", after_begin)
    assert seen == ["7"]


async def test_where_a_listener_has_begun_the_transaction_the_context_comes_in_front_of_the_rest(
    lone: Database,
) -> None:
    engine = lone.engine.sync_engine

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("SET LOCAL app.person = 'eve'")

    event.listen(engine, "begin", begin)
    try:
        async with lone.read(settings=SEVEN) as session:
            assert await tenant_of(session) == "7"
            assert await session.scalar(text("SHOW app.person")) == "eve"
            with pytest.raises(DBAPIError, match="read-only"):
                await session.execute(text("INSERT INTO notes DEFAULT VALUES"))
    finally:
        event.remove(engine, "begin", begin)
    assert await lone.reader.scalar(TENANT) == ""


# What fails.


@pytest.mark.parametrize(
    "context",
    [
        {"role": "QZhunterZQ"},
        {"settings": {"statement_timeout": "QZhunterZQ"}},
        {"settings": {"no_such_setting": "QZhunterZQ"}},
        {"settings": {"log_statement": "QZhunterZQ"}},
        {"settings": {"port": "QZhunterZQ"}},
    ],
)
async def test_a_refused_context_fails_the_statement_and_nothing_runs(
    lone: Database, context: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reader = lone.reader.with_context(**context)
    writer = lone.writer.with_context(**context)

    async def read_in_a_session() -> None:
        async with lone.read(**context) as session:
            await session.scalar(TENANT)

    async def write_in_a_session() -> None:
        async with lone.write(**context) as session:
            session.add(Note())

    async def snapshot() -> None:
        async with reader.snapshot() as moment:
            await moment.scalar(TENANT)

    async def stream() -> None:
        async with reader.stream(TENANT) as rows:
            [row async for row in rows]

    for use in (
        read_in_a_session,
        write_in_a_session,
        snapshot,
        stream,
        lambda: reader.scalar(TENANT),
        lambda: reader.scalar(TENANT),
        lambda: reader.scalar(LONG),
        lambda: writer.execute(insert(Note).values(line="x")),
        lambda: writer.execute(insert(Note).values(line="x")),
        lambda: writer.execute_many(insert(Note), [{"line": "x"}]),
        lambda: writer.copy_in(Note, [{"line": "x"}]),
    ):
        with pytest.raises(DBAPIError, match="the session context is refused: ") as refused:
            await use()
        error: BaseException | None = refused.value
        while error is not None:
            assert "QZhunter" not in str(error) + repr(error)
            error = error.__cause__ or error.__context__
        assert lone.pool.snapshot().checked_out == 0
    assert await lone.reader.all(select(Note)) == []
    assert "QZhunter" not in caplog.text


async def test_values_are_in_no_log_however_much_is_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = {"app.tenant": "QZhunterZQ"}
    async with Database.from_url(
        url, environment="development", pool_size=1, max_overflow=0, slow_query=1e-9
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        for way in WAYS:
            assert set(await way(database, settings)) == {"QZhunterZQ"}
        async with rollback_after(database):
            await read_in_a_session(database, settings)

    # The rows that show it are the test's own.
    shown = [r.getMessage() for r in caplog.records if "QZhunter" in r.getMessage()]
    assert [line for line in shown if "set_config" in line or "Row (" not in line] == []


async def test_a_role_is_in_force_for_its_transactions(
    lone: Database, postgres: PostgresServer
) -> None:
    url = make_url(str(lone.settings.url.get_secret_value()))
    role = f"Reports {secrets.token_hex(4)}"
    postgres.execute(f'CREATE ROLE "{role}"')
    postgres.execute(f'GRANT "{role}" TO {url.username}')
    who = text("SELECT current_user")
    try:
        async with lone.read(role=role) as session:
            assert await session.scalar(who) == role
            with pytest.raises(DBAPIError, match="permission denied"):
                await session.execute(select(Note))
        for _ in range(2):
            assert await lone.reader.with_context(role=role).scalar(who) == role
            with pytest.raises(DBAPIError, match="permission denied"):
                await lone.writer.with_context(role=role).execute(insert(Note).values(line="x"))
            assert await lone.reader.scalar(who) == url.username
    finally:
        postgres.execute(f'DROP ROLE "{role}"')


async def test_a_schema_for_each_tenant(lone: Database) -> None:
    async with lone.engine.begin() as connection:
        for tenant in ("one", "two"):
            await connection.execute(text(f"CREATE SCHEMA {tenant}"))
            await connection.execute(text(f"CREATE TABLE {tenant}.own (line text)"))
            await connection.execute(text(f"INSERT INTO {tenant}.own VALUES ('{tenant}')"))
    lines = query(text("SELECT line FROM own"))
    for _ in range(3):
        for tenant in ("one", "two"):
            reader = lone.reader.with_context(settings={"search_path": tenant})
            assert (await reader.one(lines)).line == tenant
            async with lone.read(settings={"search_path": tenant}) as session:
                assert await session.scalar(lines.statement) == tenant


async def test_a_statement_is_prepared_anew_in_its_context(lone: Database) -> None:
    reader = lone.reader.with_context(settings=SEVEN)
    writer = lone.writer.with_context(settings=SEVEN)
    everything = query(text(f"SELECT *, {CURRENT} AS now FROM notes LIMIT 1"))
    entities = query(select(Note, TENANT.columns(Note.tenant).scalar_subquery()))
    returning = query(text(f"UPDATE notes SET line = 'x' RETURNING *, {CURRENT} AS now"))
    await writer.execute(insert(Note).values(line="x"))
    for number in range(3):
        assert (await reader.one(everything)).now == "7"
        assert (await reader.one(entities))[1] == "7"
        assert (await writer.one(returning)).now == "7"
        assert await writer.execute(returning) == 1
        async with lone.engine.begin() as connection:
            await connection.execute(text(f"ALTER TABLE notes ADD COLUMN more_{number} int"))


# What is required.


@pytest.fixture
async def strict(url: str) -> AsyncIterator[Database]:
    """Requires a tenant, and has its connection observed by the fixture's own."""
    async with Database.from_url(
        url, environment="testing", pool_size=1, requires_context=("App.Tenant",)
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield database


async def test_without_what_is_required_nothing_is_sent(strict: Database) -> None:
    sent: list[str] = []
    event.listen(strict.engine.sync_engine, "before_cursor_execute", lambda *a: sent.append(a[2]))
    event.listen(strict.engine.sync_engine, "checkout", lambda *_: sent.append("checkout"))
    for way in WAYS:
        for settings in (None, {}, {"app.person": "eve"}):
            with pytest.raises(ContextRequired, match=r"requires App\.Tenant"):
                await way(strict, settings)
    assert sent == []


async def test_with_it_everything_works_and_so_does_what_is_none_of_its_business(
    strict: Database,
) -> None:
    await strict.ping()
    async with strict:  # opened once more
        for way in WAYS:
            assert set(await way(strict, SEVEN)) == {"7"}
    await strict.close()
    await strict.open()
    assert await strict.reader.with_context(settings=SEVEN).scalar(TENANT) == "7"
    async with rollback_after(strict):
        assert set(await read_in_a_session(strict, SEVEN)) == {"7"}
        with pytest.raises(ContextRequired):
            await read_in_a_session(strict, None)


# Views.


async def test_a_view_follows_its_reader_and_shares_what_that_has_compiled(
    lone: Database,
) -> None:
    reader = lone.reader.with_context(settings=SEVEN)
    again = reader.with_context(settings={"app.person": "eve"})
    async with rollback_after(lone):
        assert (reader.lane, again.lane) == (lone.reader.lane, lone.reader.lane)
        assert await again.scalar(TENANT) == "7"
    assert reader.lane is lone.reader.lane is lone.lane
    assert await again.scalar(text("SHOW app.person")) == "eve"
    assert reader._adhoc is again._adhoc is lone.reader._adhoc


async def test_a_snapshot_takes_no_other_context(lone: Database) -> None:
    async with lone.reader.with_context(settings=SEVEN).snapshot() as moment:
        with pytest.raises(ContextError, match="give it before"):
            moment.with_context(role="other")
        assert await moment.exists(select(Note)) is False


async def test_a_cancelled_statement_leaves_no_context(lone: Database) -> None:
    reader = lone.reader.with_context(settings=SEVEN)
    for use in (
        lambda: reader.scalar(text("SELECT pg_sleep(60)")),
        lambda: reader.scalar(text(f"SELECT pg_sleep(60) -- {'x' * 16_000}")),
        lambda: read_slowly(lone),
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(use(), 0.05)
        assert await lone.reader.scalar(TENANT) == ""
        async with lone.engine.connect() as connection:
            assert await connection.scalar(TENANT) == ""


async def read_slowly(database: Database) -> None:
    async with database.read(settings=SEVEN) as session:
        await session.execute(text("SELECT pg_sleep(60)"))


@pytest.mark.parametrize("url", ["sqlite://", "mysql+asyncmy://nobody@localhost/nothing"])
async def test_other_databases_refuse_a_context_before_they_connect(url: str) -> None:
    database = Database.from_url(url)
    for use in (database.read, database.write):
        with pytest.raises(ContextError, match="PostgreSQL only"):
            async with use(settings=SEVEN):
                pass
    for lane in (database.reader, database.writer):
        with pytest.raises(ContextError, match="PostgreSQL only"):
            lane.with_context(role="web")


@pytest.mark.parametrize(
    "value", ["'; DROP TABLE notes; --", "$1 %s %(x)s :x {}", "ü\n\t\\", "x" * 9000]
)
async def test_any_text_is_a_value(lone: Database, value: str) -> None:
    for way in (read_in_a_session, write_in_a_session, read_in_the_lane, write_in_the_lane):
        assert set(await way(lone, {"app.tenant": value})) == {value}


# SQLAlchemy's own connection, taken from a session.


ENDS: dict[str, Callable[[Any, Any], Awaitable[None]]] = {
    "commit of the connection": lambda connection, _: connection.commit(),
    "rollback of the connection": lambda connection, _: connection.rollback(),
    "commit in SQL": lambda connection, _: connection.execute(text("COMMIT")),
    "commit in SQL, by the session": lambda _, session: session.execute(text("COMMIT")),
    "rollback and chain": lambda connection, _: connection.execute(text("ROLLBACK AND CHAIN")),
    "rollback of the session": lambda _, session: session.rollback(),
    "rollback to a savepoint": lambda connection, _: to_a_savepoint(connection),
}


BY_TEXT = [end for name, end in ENDS.items() if "SQL" in name or "chain" in name]


async def to_a_savepoint(connection: Any) -> None:
    async with connection.begin_nested() as savepoint:
        await connection.execute(TENANT)
        await savepoint.rollback()


@pytest.mark.filterwarnings("ignore:transaction already deassociated")  # SQLAlchemy's, rightly
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("kind", ["read", "write"])
async def test_a_sessions_connection_keeps_the_context_over_the_end_of_a_transaction(
    database: Database, kind: str, end: Any
) -> None:
    if kind == "write" and end in BY_TEXT:
        pytest.skip("it is refused")
    read_only = text(f"SELECT {CURRENT}, current_setting('transaction_read_only')")
    expected = ("7", "on" if kind == "read" else "off")
    async with getattr(database, kind)(settings=SEVEN) as session:
        connection = await session.connection()
        assert tuple((await connection.execute(read_only)).one()) == expected
        for _ in range(2):
            await end(connection, session)
            connection = await session.connection()
            assert tuple((await connection.execute(read_only)).one()) == expected
            await end(connection, session)
            assert tuple((await session.execute(read_only)).one()) == expected
        await session.rollback()  # a commit would find SQLAlchemy's transaction ended
    async with database.connection() as connection:
        assert tuple((await connection.execute(read_only)).one()) == ("", "off")


# A schema for each tenant.


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_each_tenant_of_a_schema_of_its_own_has_its_own_tables_and_types(
    database_url: str, driver: str
) -> None:
    class Own(DeclarativeBase):
        """What each tenant has."""

    class Mood(Own):
        """Of another type in each schema, by the same name."""

        __tablename__ = "moods"
        id: Mapped[int] = mapped_column(primary_key=True)
        mood: Mapped[str] = mapped_column(Enum("glad", "sad", name="mood"))

    url, schemas = database_url.replace("asyncpg", driver), ("s_a", "s_b")
    async with Database.from_url(
        url, environment="testing", pool_size=1, max_overflow=0
    ) as database:
        async with database.engine.begin() as connection:
            for schema in schemas:
                await connection.execute(text(f"CREATE SCHEMA {schema}"))
                await connection.execute(text(f"SET LOCAL search_path = {schema}"))
                await connection.run_sync(Own.metadata.create_all, checkfirst=False)
                note = {"id": 1, "mood": "glad"}
                await connection.execute(insert(Mood), note)
        for turn in range(8):
            settings = {"search_path": schemas[turn % 2]}
            async with database.write(settings=settings) as session:
                (mood,) = await session.scalars(select(Mood).where(Mood.mood == "glad"))
                session.add(Mood(id=turn + 2, mood="sad"))
                mood.mood = "glad"
            async with database.read(settings=settings) as reading:
                moods = (await reading.scalars(select(Mood.mood).order_by(Mood.id))).all()
            assert moods == ["glad", *["sad"] * (turn // 2 + 1)]
        assert database.pool.snapshot().opened_total == 1
