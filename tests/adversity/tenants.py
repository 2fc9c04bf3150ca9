"""Tables of many tenants behind row-level security, and what is done there in a tenant's name."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database, SessionContext, query
from penstock.drivers.driver import BeginOptions

TENANTS = 50
SLOTS = frozenset(range(3))
"""Every tenant has a row for each, in every table."""
LONGEST = 0.004
"""Seconds: some statements end before they are cancelled, some are cut off, some never start."""


class Base(DeclarativeBase):
    """What the tables belong to."""


class Table:
    """Rows that the server says the tenant of, and the test what it meant."""

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(server_default=text("current_setting('app.tenant')"))
    meant: Mapped[str]
    slot: Mapped[int] = mapped_column(default=-1)
    hits: Mapped[int] = mapped_column(default=0)


class Closed(Table, Base):
    """Nothing is seen without a tenant."""

    __tablename__ = "closed"


class Passing(Table, Base):
    """All is seen without a tenant."""

    __tablename__ = "passing"


class Copied(Table, Base):
    """Without a policy, as COPY wants it."""

    __tablename__ = "copied"


POLICIES = {
    "closed": "tenant = current_setting('app.tenant')",
    "passing": "coalesce(current_setting('app.tenant', true), '') IN ('', tenant)",
}
TABLES = (Closed, Passing)
QUERIES = {
    table: {
        "rows": query(select(table.tenant, table.slot)),
        "entities": query(select(table)),
        "all_columns": query(text(f"SELECT * FROM {table.__tablename__}")),
        "too_long": query(
            text(f"SELECT tenant, slot FROM {table.__tablename__} -- {'x' * 16_000}")
        ),
        "slow": query(
            select(table.tenant, table.slot, func.pg_sleep(bindparam("seconds"))).limit(1)
        ),
        "hit": query(
            update(table)
            .where(table.slot == bindparam("at"))
            .values(hits=table.hits + 1)
            .returning(table.tenant, table.slot)
        ),
        "hit_silently": query(
            update(table).where(table.slot == bindparam("at")).values(hits=table.hits + 1)
        ),
        "add": query(insert(table).values(meant=bindparam("meant"))),
    }
    for table in TABLES
}


@dataclass
class Tenant:
    """Who works in the database.

    Attributes:
        database: Where.
        random: Chance.
        roles: Roles that may be had: one that reads, and one that may nothing.
        name: The tenant's.
        found: What was wrong.
    """

    database: Database
    random: Random
    roles: tuple[str, str]
    name: str = ""
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = f"tenant-{self.random.randrange(TENANTS)}"

    @property
    def settings(self) -> dict[str, str]:
        """What makes a transaction this tenant's."""
        return {"app.tenant": self.name}

    @property
    def table(self) -> Any:
        """One of the tables with a policy."""
        return self.random.choice(TABLES)

    @property
    def role(self) -> str | None:
        """The role that reads, or the login's own."""
        return self.random.choice([None, self.roles[0]])

    @property
    def reader(self) -> Any:
        """The lane that reads, for this tenant."""
        return self.database.reader.with_context(settings=self.settings, role=self.role)

    @property
    def writer(self) -> Any:
        """The lane that writes, for this tenant."""
        return self.database.writer.with_context(settings=self.settings)

    def check(self, rows: Any, slots: frozenset[int] = SLOTS) -> None:
        """Note a row of somebody else's, and one of this tenant's that is not there."""
        seen = [(row.tenant, row.slot) for row in rows]
        if foreign := {tenant for tenant, _ in seen} - {self.name}:
            self.found.append(f"{self.name} saw rows of {sorted(foreign)[:3]}")
        if missing := slots - {slot for _, slot in seen}:
            self.found.append(f"{self.name} missed its rows {sorted(missing)}: {len(seen)} seen")


Work = Callable[[Tenant], Awaitable[None]]
Hostile = Callable[[Tenant], Awaitable[None]]


async def read(it: Tenant) -> None:
    kind = it.random.choice(["rows", "entities", "all_columns", "too_long"])
    it.check(await it.reader.all(QUERIES[it.table][kind]))


async def read_slowly(it: Tenant) -> None:
    asked = QUERIES[it.table]["slow"]
    it.check(await it.reader.all(asked, seconds=it.random.random() * LONGEST), frozenset())


async def read_again_and_again(it: Tenant) -> None:
    reader, asked = it.reader, QUERIES[it.table]["rows"]
    for _ in range(3):
        it.check(await reader.all(asked))


async def stream(it: Tenant) -> None:
    async with it.reader.stream(QUERIES[it.table]["rows"]).yield_per(2) as rows:
        it.check([row async for row in rows])


async def snapshot(it: Tenant) -> None:
    async with it.reader.snapshot() as moment:
        for table in TABLES:
            it.check(await moment.all(QUERIES[table]["rows"]))


async def hit(it: Tenant) -> None:
    slot = it.random.choice([*SLOTS])
    it.check(await it.writer.all(QUERIES[it.table]["hit"], at=slot), frozenset({slot}))


async def hit_silently(it: Tenant) -> None:
    hits = await it.writer.execute(QUERIES[it.table]["hit_silently"], at=1)
    if hits != 1:
        it.found.append(f"{it.name} hit {hits} rows")


async def add_many(it: Tenant) -> None:
    rows = [{"meant": it.name}] * it.random.choice([1, 3])
    await it.writer.execute_many(QUERIES[it.table]["add"], rows)


async def copy(it: Tenant) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for _ in range(3):
            yield {"meant": it.name}

    await it.writer.copy_in(Copied, rows())


async def read_in_a_session(it: Tenant) -> None:
    async with it.database.read(settings=it.settings, role=it.role) as session:
        for table in TABLES:
            it.check((await session.execute(select(table.tenant, table.slot))).all())


async def stream_in_a_session(it: Tenant) -> None:
    async with it.database.read(settings=it.settings) as session:
        rows = await session.stream(select(it.table))
        it.check([row[0] async for row in rows])


async def write_in_a_session(it: Tenant) -> None:
    table = it.table
    async with it.database.write(settings=it.settings) as session:
        session.add(table(meant=it.name))
        await session.flush()
        it.check(await session.scalars(select(table)))
        await session.commit()
        it.check(await session.scalars(select(table)))


async def end_by_hand(it: Tenant) -> None:
    end = it.random.choice(["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"])
    async with it.database.read(settings=it.settings) as session:
        it.check(await session.scalars(select(it.table)))
        await session.execute(text(end))
        it.check(await session.scalars(select(it.table)))


async def fail_and_go_on(it: Tenant) -> None:
    async with it.database.write(settings=it.settings) as session:
        try:
            async with session.begin_nested():
                await session.execute(text("SELECT 1 / 0"))
        except Exception as error:
            if "division by zero" not in str(error):
                raise
        it.check(await session.scalars(select(it.table)))


async def read_in_the_writers_transaction(it: Tenant) -> None:
    settings = tuple(it.settings.items())
    unit = it.database.unit(BeginOptions(settings=settings))
    try:
        it.check(await unit.writer.scalars(select(it.table)))
        it.check(await unit.reader.scalars(select(it.table)))
        await unit.commit()
        it.check(await unit.reader.scalars(select(it.table)))
    finally:
        await unit.end("it was left")


async def leave_another_tenant_behind(it: Tenant) -> None:
    async with it.database.write(settings=it.settings) as session:
        it.check(await session.scalars(select(it.table)))
        await session.execute(text("SET app.tenant = 'tenant-0'"))


async def set_by_hand(it: Tenant) -> None:
    async with it.database.read() as session:
        await session.execute(
            text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": it.name}
        )
        it.check(await session.scalars(select(it.table)))


async def see_all_without_a_tenant(it: Tenant) -> None:
    rows = await it.database.reader.all(QUERIES[Passing]["rows"])
    if (tenants := len({row.tenant for row in rows})) != TENANTS:
        it.found.append(f"without a tenant {tenants} were seen")


WORKS: list[Work] = [
    read,
    read,
    read,
    read_slowly,
    read_again_and_again,
    stream,
    snapshot,
    hit,
    hit,
    hit_silently,
    add_many,
    copy,
    read_in_a_session,
    read_in_a_session,
    stream_in_a_session,
    write_in_a_session,
    end_by_hand,
    fail_and_go_on,
    read_in_the_writers_transaction,
    leave_another_tenant_behind,
    set_by_hand,
    see_all_without_a_tenant,
]


async def set_on_the_engine(it: Tenant) -> None:
    async with it.database.engine.connect() as connection:
        await connection.execute(text(f"SET app.tenant = '{it.name}'"))
        await connection.commit()


async def set_by_a_function(it: Tenant) -> None:
    statement = text("SELECT set_config('app.tenant', :tenant, false)")
    await it.database.writer.scalar(statement, tenant=it.name)


async def set_role(it: Tenant) -> None:
    async with it.database.engine.connect() as connection:
        await connection.execute(text(f'SET ROLE "{it.roles[1]}"'))
        await connection.commit()


async def set_in_a_session(it: Tenant) -> None:
    async with it.database.write() as session:
        await session.execute(text(f"SET app.tenant = '{it.name}'"))


async def fail(it: Tenant) -> None:
    async with it.database.write(settings=it.settings) as session:
        await session.execute(text("SELECT 1 / 0"))


async def fail_in_the_lane(it: Tenant) -> None:
    await it.writer.scalar(text("SELECT 1 / 0"))


async def be_refused(it: Tenant) -> None:
    await it.database.reader.with_context(role="nobody at all").scalar(text("SELECT 1"))


HOSTILE: list[Hostile] = [
    set_on_the_engine,
    set_by_a_function,
    set_role,
    set_in_a_session,
    fail,
    fail_in_the_lane,
    be_refused,
]


def base_rows(context: SessionContext) -> list[dict[str, Any]]:
    """Return the rows that a tenant has from the beginning."""
    tenant = context.settings["app.tenant"]
    return [{"meant": tenant, "slot": slot} for slot in SLOTS]
