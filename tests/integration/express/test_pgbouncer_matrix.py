"""Four processes behind each PgBouncer, in each mode, while the schema changes."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from tests.integration.express.leftovers import CLEAN, SERVERS, leftovers
from tests.integration.express.matrix_client import ITEMS, QUIET
from tests.integration.express.pooled_service import fill
from tests.servers.pgbouncer import Era, newest_pgbouncer, pgbouncer_of, pgbouncer_server
from tests.servers.postgres import PostgresServer

PROCESSES = 4
CHANGE = "ALTER TABLE items ALTER hits TYPE text USING 'hits of ' || id"

Program = Callable[[], Path]
BLIND: Program = lambda: pgbouncer_of(Era.BLIND)  # noqa: E731 - a row of the table
FOLLOWING: Program = lambda: pgbouncer_of(Era.FOLLOWING)  # noqa: E731
SAFE: dict[str, tuple[Program, str, int | None]] = {
    "1.18-transaction": (BLIND, "transaction", None),
    "1.18-session": (BLIND, "session", None),
    "1.24-transaction-0": (FOLLOWING, "transaction", 0),
    "1.24-transaction-100": (FOLLOWING, "transaction", 100),
    "1.24-session-100": (FOLLOWING, "session", 100),
    "newest-transaction-0": (newest_pgbouncer, "transaction", 0),
    "newest-transaction-100": (newest_pgbouncer, "transaction", 100),
}
FAST: dict[str, tuple[Program, str, int | None]] = {
    name: row for name, row in SAFE.items() if row[1:] == ("transaction", 100)
}


async def start(url: str, number: int, cache: int) -> Any:
    module = "tests.integration.express.matrix_client"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, url, str(number * ITEMS), str(cache)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def end(process: Any) -> dict[str, Any]:
    told, _ = await process.communicate()
    return json.loads(told)  # type: ignore[no-any-return]


async def outcomes(
    row: tuple[Program, str, int | None], postgres: PostgresServer, url: str, cache: int
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    program, mode, followed = row
    await fill(url)
    with pgbouncer_server(
        postgres,
        binary=program(),
        pool_mode=mode,
        # In session mode each client keeps a server connection.
        default_pool_size=SERVERS if mode == "transaction" else PROCESSES * 5 + SERVERS,
        max_prepared_statements=followed,
    ) as server:
        pooled = server.url(url)
        running = await asyncio.gather(*(start(pooled, each, cache) for each in range(PROCESSES)))
        await asyncio.to_thread(postgres.execute, CHANGE, make_url(url).database or "")
        told = await asyncio.gather(*(end(process) for process in running))
        return told, await leftovers(pooled)


@pytest.mark.parametrize("row", SAFE.values(), ids=list(SAFE))
async def test_nothing_is_wrong_fails_or_stays_by_default(
    row: tuple[Program, str, int | None], postgres: PostgresServer, database_url: str
) -> None:
    told, left = await outcomes(row, postgres, database_url, cache=0)

    wrong = [{**seen} for seen in told if seen.get("wrong") or seen.get("errors")]
    assert wrong == []
    assert [seen["quiet"] for seen in told] == [QUIET] * PROCESSES
    assert left == CLEAN


@pytest.mark.parametrize("row", FAST.values(), ids=list(FAST))
async def test_kept_statements_recover_from_a_schema_change(
    row: tuple[Program, str, int | None], postgres: PostgresServer, database_url: str
) -> None:
    told, _ = await outcomes(row, postgres, database_url, cache=100)

    assert [seen.get("wrong", 0) for seen in told] == [0] * PROCESSES
    assert [seen["quiet"] for seen in told] == [QUIET] * PROCESSES
    # The transactions in which the change is found out, as on a connection without a pooler.
    said = {text for seen in told for text in seen if ": " in text}
    assert all("cached statement plan is invalid" in text for text in said), said
