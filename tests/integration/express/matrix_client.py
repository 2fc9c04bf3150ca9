"""One of several processes behind poolers, under which a schema changes while they ask.

``python -m tests.integration.express.matrix_client FIRST ROUNDS`` reads from its standard input a
JSON object of rows, each with a ``url`` and who is the ``client``, and asks in all of them at once.
It says ``ready`` when each has asked, reads a line when the schemas have changed, and says at its
end as JSON what it has seen.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, bindparam, literal_column, select, update
from sqlalchemy.ext.asyncio import create_async_engine
from tests.integration.express.pooled_service import Item, behind_pgbouncer

from penstock import Database, query

ITEMS, READY = 3, 1
"""Items of a process; rounds before it is ready."""

by_id = Item.id == bindparam("item_id")


class Asker:
    """Asks in each way, by statements whose rows say which process they are of.

    Args:
        asked: A :class:`Database`, or SQLAlchemy's engine.
        first: The process's first item.
    """

    def __init__(self, asked: Any, first: int) -> None:
        own: ColumnElement[Any] = literal_column(str(first)).label("asker")
        self.asked, self.first = asked, first
        self.find = select(Item.id, Item.hits, own).where(by_id)
        self.change = update(Item).where(by_id).values(name=Item.name)
        self.change = self.change.returning(Item.id, Item.hits, own)
        self.found, self.changed = query(self.find), query(self.change)

    async def read(self, item_id: int) -> Any:
        """Ask on the express lane."""
        return await self.asked.reader.one(self.found, item_id=item_id)

    async def write(self, item_id: int) -> Any:
        """Write on the express lane."""
        return await self.asked.writer.one(self.changed, item_id=item_id)

    async def read_in_session(self, item_id: int) -> Any:
        """Ask in a session that reads."""
        async with self.asked.read() as session:
            return (await session.execute(self.find, {"item_id": item_id})).one()

    async def write_in_session(self, item_id: int) -> Any:
        """Write and ask in a session that writes."""
        async with self.asked.write() as session:
            await session.execute(self.change, {"item_id": item_id})
            return (await session.execute(self.find, {"item_id": item_id})).one()

    async def autocommit(self, item_id: int) -> Any:
        """Ask without a transaction."""
        async with self.asked.connection() as connection:
            outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
            return (await outside.execute(self.find, {"item_id": item_id})).one()

    async def plain_transaction(self, item_id: int) -> Any:
        """Write and ask on SQLAlchemy's own connection."""
        async with self.asked.begin() as connection:
            await connection.execute(self.change, {"item_id": item_id})
            return (await connection.execute(self.find, {"item_id": item_id})).one()

    async def plain_autocommit(self, item_id: int) -> Any:
        """Ask on SQLAlchemy's own connection without a transaction."""
        outside = self.asked.execution_options(isolation_level="AUTOCOMMIT")
        async with outside.connect() as connection:
            return (await connection.execute(self.find, {"item_id": item_id})).one()

    @property
    def ways(self) -> list[Callable[[int], Awaitable[Any]]]:
        """What is asked in a round."""
        if not isinstance(self.asked, Database):
            return [self.plain_transaction, self.plain_autocommit]
        sessions = [self.read_in_session, self.write_in_session, self.autocommit]
        return [self.read, self.write, *sessions]

    async def ask(self, item_id: int, seen: Counter[str]) -> None:
        """Ask in every way, and count what came of it."""
        for way in self.ways:
            try:
                row = await way(item_id)
            except Exception as error:  # noqa: BLE001 - counted, with its text
                seen["errors"] += 1
                seen[f"{way.__name__}: {type(error).__name__}: {str(error)[:200]}"] += 1
                continue
            is_own = (row.id, getattr(row, "asker", None)) == (item_id, self.first)
            is_right = is_own and row.hits in {0, f"hits of {item_id}"}
            seen["right" if is_right else "wrong"] += 1
            seen[type(row.hits).__name__] += 1


KEPT = {"penstock": 0, "penstock with kept statements": 100}
NO_CACHE = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
WITHOUT: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no cache of SQLAlchemy's": {"prepared_statement_cache_size": 0},
    "names of one's own": {
        **NO_CACHE,
        "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
    },
}
"""How services set SQLAlchemy and asyncpg up that do not use Penstock."""


@asynccontextmanager
async def opened(client: str, url: str) -> AsyncIterator[Any]:
    """Give what a client asks."""
    if client in KEPT:
        settings = {"pool_size": ITEMS, "statement_cache_size": KEPT[client]}
        async with behind_pgbouncer(url, **settings) as database:
            yield database
        return
    arguments = {"command_timeout": 5, **WITHOUT[client]}
    engine = create_async_engine(url, pool_size=ITEMS, max_overflow=0, connect_args=arguments)
    try:
        yield engine
    finally:
        await engine.dispose()


def tell(text: str) -> None:
    """Say something to the test."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def be_client(
    row: dict[str, str], first: int, rounds: int, ready: asyncio.Barrier, has_changed: asyncio.Event
) -> Counter[str]:
    """Ask in one row until some rounds after the change, and return what was seen."""
    seen: Counter[str] = Counter(quiet=0)
    saying: asyncio.Task[Any] | None = None
    turn = 0
    async with opened(row["client"], row["url"]) as asked:
        asker = Asker(asked, first)
        while rounds:
            before, rounds, turn = seen["errors"], rounds - has_changed.is_set(), turn + 1
            async with asyncio.TaskGroup() as tasks:
                for item_id in range(first, first + ITEMS):
                    tasks.create_task(asker.ask(item_id, seen))
            seen["quiet"] = seen["quiet"] + 1 if seen["errors"] == before else 0
            if turn == READY:
                saying = asyncio.create_task(ready.wait())
    assert saying is not None
    await saying
    return seen


async def main(first: int, rounds: int) -> None:
    """Be one process."""
    rows = json.loads(await asyncio.to_thread(sys.stdin.readline))
    ready, has_changed = asyncio.Barrier(len(rows) + 1), asyncio.Event()
    running = [
        asyncio.create_task(be_client(row, first, rounds, ready, has_changed))
        for row in rows.values()
    ]
    await ready.wait()
    tell("ready")
    await asyncio.to_thread(sys.stdin.readline)
    has_changed.set()
    tell(json.dumps(dict(zip(rows, await asyncio.gather(*running), strict=True))))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
