"""Row-level security of fifty tenants on a pool of five: nobody sees another's row, or too few."""

import asyncio
import gc
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from random import Random

import asyncpg
import pytest
from sqlalchemy import insert, make_url, text
from sqlalchemy.exc import DBAPIError
from tests.adversity.backends import counting_backends
from tests.adversity.cancellations import WAYS
from tests.adversity.tenants import (
    HOSTILE,
    LONGEST,
    POLICIES,
    TABLES,
    TENANTS,
    WORKS,
    Base,
    Copied,
    Tenant,
    base_rows,
    read,
)
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer

from penstock import Database, PoolSnapshot, SessionContext
from penstock.errors import CommitOutcomeUnknown

LEASES = int(os.environ.get("LEASES", "2000"))
"""Two thousand take some ten seconds on each driver; ``LEASES=100000`` has fifty times as many."""
POOL_SIZE, TASKS = 5, 12
KILL_EVERY, ALTER_EVERY = 150, 400
"""Leases."""
EXPECTED = {
    "0A000": "a plan is outdated",
    "22012": "division by zero",
    "22023": "no such role",
    "40P01": "deadlock",
    "57P01": "killed",
}

_OF_THE_DRIVER = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
)


@pytest.fixture
def roles(postgres: PostgresServer, database_url: str) -> Iterator[tuple[str, str]]:
    """A role that reads, and one that may nothing; the login may be both."""
    login = make_url(database_url).username
    names = tuple(f"{kind}_{secrets.token_hex(4)}" for kind in ("reads", "nothing"))
    for name in names:
        postgres.execute(f"CREATE ROLE {name}")
        postgres.execute(f"GRANT {name} TO {login}")
    yield names[0], names[1]
    for name in names:
        postgres.execute(f"DROP OWNED BY {name}", str(make_url(database_url).database))
        postgres.execute(f"DROP ROLE {name}")


@pytest.fixture(params=["asyncpg", "psycopg"])
async def database(
    request: pytest.FixtureRequest, database_url: str, roles: tuple[str, str]
) -> AsyncIterator[Database]:
    url = database_url.replace("asyncpg", request.param)
    async with Database.from_url(
        url, environment="testing", pool_size=POOL_SIZE, max_overflow=0, pool_timeout=60
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            for table, policy in POLICIES.items():
                await connection.execute(text(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"))
                await connection.execute(text(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"))
                await connection.execute(text(f"CREATE POLICY tenant ON {table} USING ({policy})"))
            await connection.execute(text(f"GRANT SELECT ON closed, passing TO {roles[0]}"))
        for number in range(TENANTS):
            context = SessionContext(settings={"app.tenant": f"tenant-{number}"})
            writer = database.writer.with_context(settings=context.settings)
            for model in TABLES:
                await writer.execute_many(insert(model), base_rows(context))
        yield database


def reason_of(error: BaseException) -> str | None:
    """Return why work ended that was killed, cancelled or meant to fail; None for anything else."""
    if isinstance(error, _OF_THE_DRIVER):
        return (
            "killed"  # during a stream, of which SQLAlchemy's adapter passes errors on as they are
        )
    if isinstance(error, CommitOutcomeUnknown):
        return "outcome unknown"
    if not isinstance(error, DBAPIError):
        return None
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    if sqlstate in EXPECTED:
        return EXPECTED[sqlstate]
    return "killed" if error.connection_invalidated or not sqlstate else None


class Crowd:
    """All who work in the database, until enough leases were had."""

    def __init__(self, database: Database, roles: tuple[str, str]) -> None:
        self.database = database
        self.roles = roles
        self.random = Random(20)
        self.leases = 0
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def work(self) -> None:
        while self.leases < LEASES and len(self.wrong) < 10:
            self.leases += 1
            it = Tenant(self.database, self.random, self.roles)
            await self._one(it)
            self.wrong += it.found

    async def _one(self, it: Tenant) -> None:
        what = self.random.choice(HOSTILE if self.random.random() < 0.25 else WORKS)
        try:
            if self.random.random() < 0.2:
                way = self.random.choice(WAYS)
                was_cancelled = await way(what(it), self.random.random() * LONGEST * 2)
                self.ended["cancelled" if was_cancelled else "done"] += 1
            else:
                await what(it)
                self.ended["done"] += 1
        except Exception as error:  # noqa: BLE001 - what it may be is asked below
            reason = reason_of(error)
            if reason is None:
                self.wrong.append(f"{what.__name__} of {it.name}: {error!r}")
            self.ended[str(reason)] += 1

    async def disturb(self, postgres: PostgresServer) -> None:
        """End a backend now and then, and change what is prepared."""
        name = self.database.engine.url.database
        kill = f"""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = '{name}' AND backend_type = 'client backend' ORDER BY random() LIMIT 1
        """
        killed = altered = 0
        while self.leases < LEASES and len(self.wrong) < 10:
            await asyncio.sleep(0.01)
            if self.leases // KILL_EVERY > killed:
                killed += 1
                await asyncio.to_thread(postgres.execute, kill)
            if self.leases // ALTER_EVERY > altered:
                altered += 1
                what = "ADD COLUMN more int" if altered % 2 else "DROP COLUMN more"
                alter = f"ALTER TABLE closed {what}"
                await asyncio.to_thread(postgres.execute, alter, str(name))


# A stream's connection was killed, and psycopg would have its cursor closed.
@pytest.mark.filterwarnings("ignore:.*ServerCursor:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(7200)
async def test_no_row_of_another_tenant_is_seen_and_none_is_missed(
    database: Database, database_url: str, postgres: PostgresServer, roles: tuple[str, str]
) -> None:
    crowd = Crowd(database, roles)

    with counting_backends(database_url) as count:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(crowd.work())
            group.create_task(crowd.disturb(postgres))
        await eventually(lambda: are_all_idle(database.pool.snapshot()))
        await eventually(lambda: count.idle_in_transaction == 0)
        most = count.most

    gc.collect()  # of psycopg's cursors, as long as their warnings are expected
    assert crowd.wrong == []
    assert crowd.ended["done"] > LEASES / 3
    assert crowd.ended["cancelled"] > LEASES / 50
    assert crowd.ended["killed"] > 0
    assert most <= POOL_SIZE + 1  # a backend of those that were killed may still be ending
    assert database.pool.snapshot().checked_out == 0
    for number in range(TENANTS):
        it = Tenant(database, crowd.random, roles)
        it.name = f"tenant-{number}"
        await read(it)
        assert it.found == []
    assert await mistaken(postgres, database) == 0


def are_all_idle(pool: PoolSnapshot) -> bool:
    return pool.checked_in == pool.opened_total - pool.closed_total


async def mistaken(postgres: PostgresServer, database: Database) -> object:
    """Return how many rows were written under another tenant than was meant."""
    tables = [model.__tablename__ for model in (*TABLES, Copied)]
    rows = " UNION ALL ".join(f"SELECT tenant, meant FROM {table}" for table in tables)
    asked = f"SELECT count(*) FROM ({rows}) AS rows WHERE tenant <> meant"
    name = str(database.engine.url.database)
    return (await asyncio.to_thread(postgres.execute, asked, name))[0][0]
