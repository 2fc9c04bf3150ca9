"""What one read of a batch leaves behind, or makes up, is no other's."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context
from typing import Any

import pytest
from sqlalchemy import (
    Float,
    Integer,
    String,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    mapped_column,
    query_expression,
    with_expression,
    with_loader_criteria,
)
from tests.eventually import eventually
from tests.integration.express.batches import CROWD, Batches, at_once, learn

from penstock import Database, query
from penstock.drivers.asyncpg_connection import AsyncpgConnection
from penstock.express import Reader, batch, pace
from penstock.express.rows import may_share


class Base(DeclarativeBase):
    """What the table belongs to."""


class Die(Base):
    """Something that chance is asked of."""

    __tablename__ = "dice"
    id: Mapped[int] = mapped_column(primary_key=True)
    thrown: Mapped[int] = query_expression()


class Thrown(Base):
    """The same, thrown whenever it is read."""

    __table__ = Die.__table__
    id: Mapped[int]
    thrown: Mapped[int] = column_property(cast(func.random() * 1_000_000, Integer))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """The batches that leave during the test."""
    return Batches(monkeypatch)


@pytest.fixture(scope="module")
def module_database(module_url: str) -> str:
    """Where the dice are."""
    asyncio.run(_make(module_url))
    return module_url


async def _make(url: str) -> None:
    async with (
        Database.from_url(url, environment="testing") as database,
        database.engine.begin() as connection,
    ):
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO dice SELECT generate_series(1, 200)"))
        own = "CREATE FUNCTION own(int) RETURNS int LANGUAGE sql AS 'SELECT $1'"
        await connection.execute(text(own))


@pytest.fixture
async def database(module_database: str) -> AsyncIterator[Database]:
    """The same, with a new pool."""
    async with Database.from_url(module_database, environment="testing", pool_size=10) as database:
        yield database


tenant = query(
    select(
        bindparam("n", type_=Integer).label("n"),
        func.current_setting("app.tenant", True).label("tenant"),
    )
)
"""By the tenant's name, if it has one."""


def _of_tenant(reader: Reader) -> Reader:
    return reader.with_context(settings={"app.tenant": "a"})


def _limited(reader: Reader) -> Reader:
    return reader.with_timeout(5.0)


def _of_tenant_limited(reader: Reader) -> Reader:
    return _limited(_of_tenant(reader))


READERS = {
    "settings": _of_tenant,
    "settings and a limit": _of_tenant_limited,
    "a limit": _limited,
}


@pytest.mark.parametrize("kind", READERS)
async def test_settings_of_callers_who_have_gone_are_no_others(
    module_database: str, batches: Batches, kind: str
) -> None:
    async with Database.from_url(
        module_database, environment="testing", pool_size=1, max_overflow=0
    ) as database:
        reader, others = READERS[kind](database.reader), database.reader
        await learn(database, tenant, n=0)
        await at_once(reader.one(tenant, n=n) for n in range(CROWD))
        for turns in range(6):
            gone = _go_while_held(database, reader, turns)
            await asyncio.create_task(gone, context=Context())
            for _ in range(2):
                row = await others.one(tenant, n=turns)
                assert (row.n, row.tenant or None) == (turns, None)
            async with database.connection() as connection:
                shown = "SELECT current_setting('statement_timeout')"
                assert (await connection.execute(text(shown))).scalar() == "0"
        await eventually(lambda: database.pool.snapshot().checked_out == 0)
    assert batches.sizes


async def _go_while_held(database: Database, reader: Reader, turns: int) -> None:
    """Have a crowd wait for the one connection, and be cancelled as its batch gets it."""
    held, free = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with database.connection():
            held.set()
            await free.wait()

    holding = asyncio.create_task(hold(), context=Context())
    await held.wait()
    crowd = [asyncio.ensure_future(reader.one(tenant, n=n)) for n in range(CROWD)]
    for _ in range(3):
        await asyncio.sleep(0)
    free.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in crowd:
        task.cancel()
    await asyncio.wait([holding, *crowd])


def _set(*, is_local: bool) -> Any:
    switch = case((bindparam("n", type_=Integer) < 0, func.set_config("app.x", "x", is_local)))
    return select(switch.label("set"))


_n = bindparam("n", type_=Integer)
LEAVING = {
    "a setting": _set(is_local=True),
    "a setting of the session": _set(is_local=False),
    "a lock": select(func.pg_try_advisory_xact_lock_shared(_n).label("got")),
    "a lock of the session": select(func.pg_try_advisory_lock_shared(_n).label("got")),
    "a notification": select(cast(func.pg_notify("news", cast(_n, String)), String).label("told")),
    "a large object": select(case((_n < 0, func.lo_open(_n, 0, type_=Integer))).label("opened")),
    "what a function of one's own may leave": select(func.own(_n, type_=Integer).label("own")),
}


@pytest.mark.parametrize("name", LEAVING)
async def test_what_may_leave_something_in_the_transaction_leaves_alone(
    database: Database, batches: Batches, name: str
) -> None:
    prepared = query(LEAVING[name])
    await at_once(database.reader.all(prepared, n=1) for _ in range(3))
    await at_once(database.reader.all(prepared, n=1) for _ in range(CROWD))
    assert batches.sizes == []


_at_random = cast(func.random() * 1000, Integer)
_by_id = bindparam("id", type_=Integer)
MADE_UP = {
    "a mapped expression": select(Thrown).where(Thrown.id == _by_id),
    "a mapped expression's column": select(Thrown.thrown).where(Thrown.id == _by_id),
    "an option's expression": select(Die)
    .options(with_expression(Die.thrown, _at_random))
    .where(Die.id == _by_id),
    "an option's criteria": select(Die.id)
    .options(with_loader_criteria(Die, _at_random > 500))
    .where(Die.id >= _by_id),
    "a prefix": select(Die.id)
    .prefix_with("DISTINCT ON (random())")
    .where(Die.id >= _by_id)
    .limit(1),
    "a suffix": select(Die.id).where(Die.id >= _by_id).suffix_with("OFFSET floor(random() * 200)"),
    "a hint": select(Die.id)
    .where(Die.id >= _by_id)
    .with_statement_hint("OFFSET floor(random() * 200)"),
    "an operator's text": select(
        cast(Die.id.op("+ (random() * 1000)::int4 +")(1), Integer).label("sum")
    ).where(Die.id == _by_id),
    "a sample": select(Die.__table__.tablesample(50).c.id).where(_by_id == 1),
}


@pytest.mark.parametrize("name", MADE_UP)
async def test_what_chance_makes_up_is_made_for_each(
    database: Database, batches: Batches, name: str
) -> None:
    prepared = query(MADE_UP[name])
    await learn(database, prepared, id=1)
    found = await at_once(database.reader.all(prepared, id=1) for _ in range(CROWD))
    assert max(batches.sizes) > batch.WORTH
    values = [
        tuple(getattr(each, "thrown", None) or getattr(each, "id", each) for each in results)
        for results in found
    ]
    assert len(set(values)) > 1


CALLS = {
    "SELECT a.b FROM a WHERE a.b IN ($1, $2) AND EXISTS (SELECT 1)": False,
    "SELECT coalesce(a.b, CAST($1 AS NUMERIC(10, 2))) FROM a": False,
    "SELECT '-- f(x)', \"f(x)\" /* f(x) */ FROM a": False,
    "SELECT f (a.b) FROM a": True,
    'SELECT a.b, "F"($1) FROM a': True,
    "SELECT a.b FROM a TABLESAMPLE system($1)": True,
    "SELECT a.b FROM a ORDER BY pg_catalog.random/**/()": True,
}


@pytest.mark.parametrize("sql", CALLS)
def test_a_call_is_seen_in_the_text(sql: str) -> None:
    assert may_share(sql, []) is not CALLS[sql]


EAGER: Any = getattr(asyncio, "eager_task_factory", None)
_slept = func.pg_sleep(bindparam("seconds", type_=Float)).table_valued(name="slept")
nap = query(select(_n.label("n")).select_from(_slept))


async def test_what_others_have_lost_counts_as_no_wait_for_a_connection(
    module_database: str, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_TIMEOUT", 0.6)
    async with Database.from_url(
        module_database, environment="testing", pool_size=2, max_overflow=0, pool_timeout=0.5
    ) as database:
        await learn(database, nap, n=0, seconds=0.0)
        await at_once(database.reader.scalar(nap, n=n, seconds=0.0) for n in range(10))
        found = await at_once(
            database.reader.scalar(nap, n=n, seconds=0.7 if n == 8 else 0.0) for n in range(10)
        )
    assert found == list(range(10))
    assert batches.sizes


async def test_without_callers_a_batch_gives_its_connection_back(
    database: Database, batches: Batches
) -> None:
    reader = _of_tenant(database.reader)
    locked: Any = query(select(Die.id, literal_column("1").label("one")).where(Die.id == _by_id))
    await learn(database, locked, id=1)
    database.pool.evict_all()  # so that it has to be prepared, which waits for the lock
    async with database.connection() as connection:
        await connection.execute(text("LOCK TABLE dice"))
        crowd = [
            asyncio.create_task(reader.all(locked, id=n), context=Context()) for n in range(CROWD)
        ]
        await asyncio.sleep(0.2)
        for task in crowd:
            task.cancel()
        await asyncio.wait(crowd)
        await eventually(lambda: database.pool.snapshot().checked_out == 1)


@pytest.mark.skipif(not EAGER, reason="tasks are eager from Python 3.12 on")
async def test_eager_tasks_leave_together(database: Database, batches: Batches) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(EAGER)
    try:
        await learn(database, nap, n=0, seconds=0.0)
        found = await at_once(database.reader.scalar(nap, n=n, seconds=0.0) for n in range(CROWD))
    finally:
        loop.set_task_factory(None)
    assert found == list(range(CROWD))
    assert max(batches.sizes) > pace.SLOW_BATCHES


async def test_settings_hold_where_the_driver_drops_the_statement_meanwhile(
    database: Database, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_next = AsyncpgConnection.limit_next

    async def as_its_lifetime_ends(connection: Any, options: Any) -> Any:
        limit = await limit_next(connection, options)
        connection._connection._stmt_cache.clear()
        return limit

    reader = _of_tenant_limited(database.reader)
    for _ in range(2):
        await reader.one(tenant, n=0)
    monkeypatch.setattr(AsyncpgConnection, "limit_next", as_its_lifetime_ends)
    rows = await at_once(reader.one(tenant, n=n) for n in range(CROWD))
    assert [tuple(row) for row in rows] == [(n, "a") for n in range(CROWD)]
    assert batches.sizes
