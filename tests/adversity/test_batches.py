"""Reads that leave together, while they are cancelled, the server ends them, and tables change."""

import asyncio
import os
from collections.abc import AsyncIterator
from random import Random

import pytest
from sqlalchemy import Integer, String, bindparam, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.adversity.backends import counting_backends
from tests.adversity.cancellations import WAYS
from tests.eventually import eventually
from tests.integration.express.batches import Batches, learn

from penstock import Database, query

READS = int(os.environ.get("BATCHED_READS", "6000"))
TASKS = 200
TENANTS = ("red", "green", "blue")
NOTES = 300
LONGEST = 0.004
"""Seconds after which a read may be cancelled."""


class Base(DeclarativeBase):
    """What the table belongs to."""


class Note(Base):
    """Something to be read."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[str]


_tenant = func.current_setting("app.tenant", True)
whose = query(select(Note.id, Note.line, _tenant.label("tenant")).where(Note.id == bindparam("id")))
several = query(
    select(Note)
    .where(Note.id.between(bindparam("first", type_=Integer), bindparam("last", type_=Integer)))
    .order_by(Note.id)
)
echo = query(select(bindparam("value", type_=String).label("value")))


class Reads:
    """Reads of all kinds, each of which knows what it has to get."""

    def __init__(self, database: Database, seed: int) -> None:
        self.random = Random(seed)
        self.ended_by_server = 0
        self._reader = database.reader
        self._of_tenant = {
            name: database.reader.with_context(settings={"app.tenant": name}) for name in TENANTS
        }

    async def one(self) -> None:
        """Read, and compare with what has to come."""
        kind = self.random.randrange(3)
        try:
            if kind == 0:
                await self._whose()
            elif kind == 1:
                await self._several()
            else:
                value = str(self.random.getrandbits(60))
                assert await self._reader.scalar(echo, value=value) == value
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            self.ended_by_server += 1

    async def _whose(self) -> None:
        tenant, number = self.random.choice(TENANTS), self.random.randrange(1, NOTES + 1)
        row = await self._of_tenant[tenant].one(whose, id=number)
        assert tuple(row) == (number, f"line {number}", tenant)

    async def _several(self) -> None:
        first = self.random.randrange(1, NOTES)
        last = min(NOTES, first + self.random.randrange(-1, 5))
        notes = await self._reader.all(several, first=first, last=last)
        assert [note.id for note in notes] == list(range(first, last + 1))
        assert [note.line for note in notes] == [f"line {n}" for n in range(first, last + 1)]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(
        database_url, environment="testing", pool_size=6, max_overflow=2
    ) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        notes = [{"id": n, "line": f"line {n}"} for n in range(1, NOTES + 1)]
        await database.writer.execute_many(insert(Note), notes)
        for statement, values in (
            (whose, {"id": 1}),
            (several, {"first": 1, "last": 2}),
            (echo, {"value": "a"}),
        ):
            await learn(database, statement, **values)
        yield database


async def _kill(database: Database) -> None:
    """End a connection of the pool now and then, as a restart or an administrator would."""
    others = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND usename = current_user AND application_name = current_setting('application_name') "
        "ORDER BY random() LIMIT 1"
    )
    while True:
        await asyncio.sleep(0.05)
        async with database.engine.connect() as connection:
            await connection.execute(others)


async def _alter(database: Database) -> None:
    """Change the table now and then, so that what was prepared is outdated."""
    number = 0
    while True:
        await asyncio.sleep(0.03)
        number += 1
        change = f"ALTER COLUMN line TYPE {'text' if number % 2 else 'varchar(100)'}"
        async with database.engine.begin() as connection:
            await connection.execute(text(f"ALTER TABLE notes {change}"))


def _all_are_idle(database: Database) -> bool:
    now = database.pool.snapshot()
    return now.checked_in == now.opened_total - now.closed_total


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trouble", ["none", "kills", "changes"])
async def test_no_value_is_swapped_and_none_lost(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    batches, reads = Batches(monkeypatch), Reads(database, seed=len(trouble))
    done = cancelled = 0

    async def read_again_and_again() -> None:
        nonlocal done, cancelled
        while done < READS:
            done += 1
            if reads.random.random() < 0.7:
                await reads.one()
            else:
                way = reads.random.choice(WAYS)
                cancelled += await way(reads.one(), reads.random.random() * LONGEST)

    troubles = {"kills": [_kill], "changes": [_alter]}.get(trouble, [])
    with counting_backends(database_url) as count:
        causes = [asyncio.create_task(cause(database)) for cause in troubles]
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(read_again_and_again())
        for cause in causes:
            cause.cancel()
        await asyncio.gather(*causes, return_exceptions=True)
        await eventually(lambda: _all_are_idle(database))
        await eventually(lambda: count.idle_in_transaction == 0)

    assert cancelled
    assert len(batches.sizes) > READS / 200
    assert trouble == "kills" or not reads.ended_by_server
