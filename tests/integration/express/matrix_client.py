"""One of several processes behind a pooler, whose schema changes while they ask.

``python -m tests.integration.express.matrix_client URL FIRST CACHE`` says ``ready`` once it runs,
and at its end what it has seen, as JSON.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import bindparam, select, update
from tests.integration.express.pooled_service import Item, behind_pgbouncer

from penstock import Database, query

ITEMS, READY, QUIET, MOST = 5, 3, 5, 400
"""Items of a process; rounds before it is ready; rounds without an error at the end; all rounds."""

by_id = Item.id == bindparam("item_id")
find = select(Item.id, Item.hits).where(by_id)
change = update(Item).where(by_id).values(name=Item.name).returning(Item.id, Item.hits)
found, changed = query(find), query(change)


async def read(database: Database, item_id: int) -> Any:
    """Ask on the express lane."""
    return await database.reader.one(found, item_id=item_id)


async def write(database: Database, item_id: int) -> Any:
    """Write on the express lane."""
    return await database.writer.one(changed, item_id=item_id)


async def read_in_session(database: Database, item_id: int) -> Any:
    """Ask in a session that reads."""
    async with database.read() as session:
        return (await session.execute(find, {"item_id": item_id})).one()


async def write_in_session(database: Database, item_id: int) -> Any:
    """Write and ask in a session that writes."""
    async with database.write() as session:
        await session.execute(change, {"item_id": item_id})
        return (await session.execute(find, {"item_id": item_id})).one()


async def autocommit(database: Database, item_id: int) -> Any:
    """Ask without a transaction."""
    async with database.connection() as connection:
        outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
        return (await outside.execute(find, {"item_id": item_id})).one()


WAYS: list[Callable[[Database, int], Awaitable[Any]]] = [
    read,
    write,
    read_in_session,
    write_in_session,
    autocommit,
]


def tell(text: str) -> None:
    """Say something to the test."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def ask(database: Database, item_id: int, seen: Counter[str]) -> None:
    """Ask in every way, and count what came of it."""
    for way in WAYS:
        try:
            row = await way(database, item_id)
        except Exception as error:  # noqa: BLE001 - counted, with its text
            seen["errors"] += 1
            seen[f"{way.__name__}: {type(error).__name__}: {str(error)[:200]}"] += 1
            continue
        is_right = row.id == item_id and row.hits in {0, f"hits of {item_id}"}
        seen["right" if is_right else "wrong"] += 1
        seen[type(row.hits).__name__] += 1


async def main(url: str, first: int, cache: int) -> None:
    """Be one process."""
    seen: Counter[str] = Counter()
    quiet = 0
    async with behind_pgbouncer(url, pool_size=5, statement_cache_size=cache) as database:
        for turn in range(MOST):
            before = seen["errors"]
            async with asyncio.TaskGroup() as tasks:
                for item_id in range(first, first + ITEMS):
                    tasks.create_task(ask(database, item_id, seen))
            if turn == READY:
                tell("ready")
            quiet = quiet + 1 if seen["str"] and seen["errors"] == before else 0
            if quiet == QUIET:
                break
    tell(json.dumps({**seen, "quiet": quiet}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
