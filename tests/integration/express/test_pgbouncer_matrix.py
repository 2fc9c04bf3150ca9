"""Four processes behind each PgBouncer, in each mode, while the schema changes.

All rows are asked in at the same time. ``TEST_PGBOUNCER_ROUNDS`` has each process ask longer after
the change, and ``-s`` shows the figures of each row.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from tests.integration.express.leftovers import CLEAN, SERVERS, leftovers
from tests.integration.express.matrix_client import ITEMS
from tests.integration.express.pooled_service import fill
from tests.servers.pgbouncer import (
    Era,
    PgbouncerServer,
    newest_pgbouncer,
    pgbouncer_of,
    pgbouncer_server,
)
from tests.servers.postgres import PostgresServer

PROCESSES = 4
ROUNDS = int(os.environ.get("TEST_PGBOUNCER_ROUNDS", "3"))
"""How often each process asks in each way after the change."""
QUIET = 2
"""Rounds at the end in which nothing may fail any more."""
pytestmark = pytest.mark.timeout(300 + 15 * ROUNDS)
CHANGE = "ALTER TABLE items ALTER hits TYPE text USING 'hits of ' || id"


@dataclass(frozen=True)
class Pooler:
    program: Callable[[], Path]
    mode: str
    followed: int | None = None


@dataclass(frozen=True)
class Row:
    pooler: Pooler
    client: str = "penstock"


BLIND, FOLLOWING = partial(pgbouncer_of, Era.BLIND), partial(pgbouncer_of, Era.FOLLOWING)
POOLERS = {
    "1.18-transaction": Pooler(BLIND, "transaction"),
    "1.18-session": Pooler(BLIND, "session"),
    "1.24-transaction-0": Pooler(FOLLOWING, "transaction", 0),
    "1.24-transaction-100": Pooler(FOLLOWING, "transaction", 100),
    "1.24-session-100": Pooler(FOLLOWING, "session", 100),
    "newest-transaction-0": Pooler(newest_pgbouncer, "transaction", 0),
    "newest-transaction-100": Pooler(newest_pgbouncer, "transaction", 100),
}
SAFE = {name: Row(pooler) for name, pooler in POOLERS.items()}
FAST = {
    f"{name}-kept": Row(pooler, "penstock with kept statements")
    for name, pooler in POOLERS.items()
    if (pooler.mode, pooler.followed) == ("transaction", 100)
}
# Without Penstock: what is found wrong here would be found wrong in the rows above.
WRONG = {
    f"{name} {client}": Row(POOLERS[name], client)
    for name, client in (
        ("1.18-transaction", "defaults"),
        ("1.18-transaction", "no cache of SQLAlchemy's"),
        ("1.18-transaction", "names of one's own"),
        ("1.24-transaction-100", "defaults"),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What the processes have seen in one row, and what they left on each server connection."""

    seen: list[dict[str, Any]]
    left: list[list[str]]

    def total(self, what: str) -> int:
        return sum(each.get(what, 0) for each in self.seen)

    @property
    def failed(self) -> dict[str, int]:
        ways: Counter[str] = Counter()
        for text in self.errors:
            ways[text.partition(": ")[0]] += self.total(text)
        return dict(ways)

    @property
    def errors(self) -> set[str]:
        return {text for each in self.seen for text in each if ": " in text}


@pytest.fixture(scope="module")
def outcomes(postgres: PostgresServer) -> Iterator[dict[str, Outcome]]:
    with ExitStack() as stack:
        poolers = {
            name: stack.enter_context(running(pooler, postgres))
            for name, pooler in POOLERS.items()
            if is_present(pooler)
        }
        urls = {}
        for name, row in {**SAFE, **FAST, **WRONG}.items():
            pooler = next(key for key, value in POOLERS.items() if value is row.pooler)
            if pooler in poolers:
                direct = stack.enter_context(postgres.database())
                urls[name] = (row.client, direct, poolers[pooler].url(direct))
        told = asyncio.run(ask_everywhere(postgres, urls))
        for name, outcome in told.items():
            counts = {what: outcome.total(what) for what in ("right", "wrong", "errors")}
            left = sorted(map(len, outcome.left))
            sys.stdout.write(f"\n{name}: {counts} {outcome.failed}, left on each server: {left}")
        yield told


def is_present(pooler: Pooler) -> bool:
    try:
        return bool(pooler.program())
    except pytest.skip.Exception:
        return False


@contextmanager
def running(pooler: Pooler, postgres: PostgresServer) -> Iterator[PgbouncerServer]:
    with pgbouncer_server(
        postgres,
        binary=pooler.program(),
        pool_mode=pooler.mode,
        # In session mode each client keeps a server connection.
        default_pool_size=SERVERS if pooler.mode == "transaction" else PROCESSES * ITEMS + SERVERS,
        max_prepared_statements=pooler.followed,
        settings={"query_wait_timeout": "60"},  # on a machine that is busy
    ) as server:
        yield server


async def ask_everywhere(
    postgres: PostgresServer, urls: dict[str, tuple[str, str, str]]
) -> dict[str, Outcome]:
    await asyncio.gather(*(fill(direct) for _, direct, _ in urls.values()))
    rows = {name: {"client": client, "url": url} for name, (client, _, url) in urls.items()}
    started = [await start(number, rows) for number in range(PROCESSES)]
    for process in started:
        assert await process.stdout.readline() == b"ready\n"
    for _, direct, _ in urls.values():
        await asyncio.to_thread(postgres.execute, CHANGE, make_url(direct).database or "")
    told = await asyncio.gather(*(end(process) for process in started))
    return {
        name: Outcome([each[name] for each in told], await leftovers(url))
        for name, (_, _, url) in urls.items()
    }


async def start(number: int, rows: dict[str, Any]) -> Any:
    module = "tests.integration.express.matrix_client"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(number * ITEMS), str(ROUNDS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    assert process.stdin is not None
    process.stdin.write(f"{json.dumps(rows)}\n".encode())
    return process


async def end(process: Any) -> dict[str, Any]:
    told, _ = await process.communicate(b"changed\n")
    return json.loads(told)  # type: ignore[no-any-return]


def of(name: str, outcomes: dict[str, Outcome]) -> Outcome:
    if name not in outcomes:
        pytest.skip("no PgBouncer since 1.26: tests/servers/fetch_pgbouncer.sh sid")
    return outcomes[name]


@pytest.mark.parametrize("name", SAFE)
def test_nothing_is_wrong_fails_or_stays_by_default(
    name: str, outcomes: dict[str, Outcome]
) -> None:
    outcome = of(name, outcomes)

    assert (outcome.total("wrong"), outcome.errors) == (0, set())
    assert outcome.left == CLEAN
    # Before the change and after it, in each process.
    assert all(each["int"] and each["str"] for each in outcome.seen)


@pytest.mark.parametrize("name", FAST)
def test_kept_statements_recover_from_a_schema_change(
    name: str, outcomes: dict[str, Outcome]
) -> None:
    outcome = of(name, outcomes)

    assert outcome.total("wrong") == 0
    assert min(each["quiet"] for each in outcome.seen) >= QUIET
    assert all(each["int"] and each["str"] for each in outcome.seen)
    # The transactions in which the change is found out, as on a connection without a pooler.
    said = outcome.errors
    assert all("cached statement plan is invalid" in text for text in said), said


@pytest.mark.parametrize("name", WRONG)
def test_what_others_set_fails_here(name: str, outcomes: dict[str, Outcome]) -> None:
    outcome = of(name, outcomes)

    assert outcome.total("errors") + outcome.total("wrong") > 0
    assert min(each["quiet"] for each in outcome.seen) == 0
