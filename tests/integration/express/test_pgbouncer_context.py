"""Tenants at once behind PgBouncer of both eras, whose server connections they share."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert, make_url, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.eventually import eventually
from tests.servers.pgbouncer import Era, PgbouncerServer, pgbouncer_of, pgbouncer_server
from tests.servers.postgres import PostgresServer

from penstock import Database

TENANTS, ROUNDS = 20, 3
POLICY = "coalesce(current_setting('app.tenant', true), '') IN ('', tenant)"
"""Who has no tenant sees all, so that a context that is lost is seen."""


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """A tenant's own."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(server_default=text("current_setting('app.tenant')"))
    meant: Mapped[str]


@pytest.fixture(
    scope="module",
    params=[(Era.BLIND, None), (Era.FOLLOWING, None), (Era.FOLLOWING, 0)],
    ids=["before-1.21", "since-1.21", "since-1.21-following-none"],
)
def pooler(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[PgbouncerServer]:
    era, followed = request.param
    with pgbouncer_server(
        postgres,
        binary=pgbouncer_of(era),
        pool_mode="transaction",
        default_pool_size=3,
        max_prepared_statements=followed,
    ) as server:
        yield server


async def reads(database: Database, tenant: str) -> list[Any]:
    settings = {"app.tenant": tenant}
    reader = database.reader.with_context(settings=settings)
    seen = list(await reader.all(select(Note.tenant)))
    seen += await reader.all(text(f"SELECT tenant FROM notes -- {'x' * 16_000}"))
    async with reader.stream(select(Note.tenant)) as rows:
        seen += [row async for row in rows]
    async with reader.snapshot() as moment:
        seen += await moment.all(select(Note.tenant))
    async with database.read(settings=settings) as session:
        seen += await session.execute(select(Note.tenant))
    return [row.tenant for row in seen]


async def writes(database: Database, tenant: str) -> list[Any]:
    settings = {"app.tenant": tenant}
    writer = database.writer.with_context(settings=settings)
    hit = update(Note).values(meant=tenant).returning(Note.tenant)
    seen = [row.tenant for row in await writer.all(hit.where(Note.id > 0))]
    await writer.execute(insert(Note).values(meant=tenant))
    await writer.execute_many(insert(Note), [{"meant": tenant}] * 2)
    async with database.write(settings=settings) as session:
        session.add(Note(meant=tenant))
        await session.commit()
        seen += await session.scalars(select(Note.tenant))
        await session.rollback()
        seen += await session.scalars(select(Note.tenant))
    return seen


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_every_tenant_sees_and_writes_its_own(
    pooler: PgbouncerServer, postgres: PostgresServer, database_url: str, driver: str
) -> None:
    async with (
        Database.from_url(database_url, environment="testing") as direct,
        direct.engine.begin() as connection,
    ):
        await connection.run_sync(Base.metadata.create_all)
        for change in ("ENABLE", "FORCE"):
            await connection.execute(text(f"ALTER TABLE notes {change} ROW LEVEL SECURITY"))
        await connection.execute(text(f"CREATE POLICY tenant ON notes USING ({POLICY})"))

    url = pooler.url(database_url).replace("asyncpg", driver)
    async with Database.from_url(
        url, environment="testing", proxy="pgbouncer", pool_size=10, max_overflow=0, slow_query=None
    ) as database:

        async def work(number: int) -> None:
            tenant = f"tenant-{number}"
            for _ in range(ROUNDS):
                assert set(await writes(database, tenant)) == {tenant}
                assert set(await reads(database, tenant)) == {tenant}

        await asyncio.gather(*map(work, range(TENANTS)))
        everybody = await database.reader.all(select(Note.tenant, Note.meant))

    assert len(everybody) == TENANTS * ROUNDS * 4
    assert [row for row in everybody if row.tenant != row.meant] == []


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_an_outage_that_meets_a_context_is_not_told_as_its_refusal(
    pooler: PgbouncerServer, database_url: str, driver: str
) -> None:
    name, url = make_url(database_url).database, pooler.url(database_url)
    async with Database.from_url(
        url.replace("asyncpg", driver),
        environment="testing",
        proxy="pgbouncer",
        pool_size=2,
        command_timeout=20,
    ) as database:

        async def read() -> None:
            async with database.read(settings={"app.tenant": "7"}) as session:
                await session.scalar(text("SELECT 1"))

        async def write() -> None:
            writer = database.writer.with_context(settings={"app.tenant": "7"})
            await writer.execute(text("CREATE TABLE IF NOT EXISTS once (id int)"))

        await asyncio.gather(read(), write())
        await asyncio.to_thread(pooler.admin, f"PAUSE {name}")
        asked = [asyncio.create_task(each()) for each in (read, write)]

        def wait() -> bool:
            pools = [pool for pool in pooler.admin("SHOW POOLS") if pool["database"] == name]
            return sum(int(str(pool["cl_waiting"])) for pool in pools) == len(asked)

        await eventually(wait)
        await asyncio.to_thread(pooler.admin, f"KILL {name}")
        failed = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.to_thread(pooler.admin, f"RESUME {name}")
    for error in failed:
        assert isinstance(error, SQLAlchemyError)
        link: BaseException | None = error
        while link is not None:
            assert "context is refused" not in str(link)
            link = link.__cause__
