"""Reads of one statement that arrive together, and how many of them left so."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

import pytest

from penstock import Database
from penstock.drivers.asyncpg import fetch_each
from penstock.express import batch, pace
from penstock.express.query import Query

CROWD = 40
"""Reads that are asked for in one turn of the event loop."""


class Batches:
    """Records how many reads each batch sends.

    Attributes:
        sizes: That, batch by batch.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self._send = fetch_each
        monkeypatch.setattr(batch, "fetch_each", self._recorded)
        for module in (pace, batch):
            monkeypatch.setattr(module, "FIRST", pace.MOST)  # no trial batches before

    async def _recorded(self, driver: Any, sql: str, rows: Sequence[Any], counter: Any) -> Any:
        self.sizes.append(len(rows))
        return await self._send(driver, sql, rows, counter)


async def learn(database: Database, query: Query[Any], **values: Any) -> None:
    """Have a statement be known, so that a crowd of its reads may leave together."""
    for _ in range(2):
        await database.reader.all(query, **values)


async def at_once(reads: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await reads that all begin in one turn; an error stands in the place of its result."""
    return await asyncio.gather(*reads, return_exceptions=True)
