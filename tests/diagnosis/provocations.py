"""What makes each condition come about, and the settings under which it does."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url
from tests.diagnosis.load import at_once, in_turn, steadily
from tests.diagnosis.workers import Workers
from tests.servers.postgres import PostgresServer

SETTLED_AGE = 61
"""Seconds after which a worker's start is over."""

FELL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
WRITE = "SELECT pg_logical_emit_message(true, 'ballast', repeat('x', 1048576))"


@dataclass(frozen=True)
class Subject:
    """One database of the service.

    Args:
        workers: Of the service.
        name: What the service calls it.
        server: Where it is; for a replica's, the primary.
        url: The service's, with a role of its own, which is called as the database.
        replica: Where the server has one.
    """

    workers: Workers
    name: str
    server: PostgresServer
    url: str
    replica: PostgresServer | None = None

    async def ask(self, path: str) -> None:
        """Send a request, whatever the answer is."""
        await self.workers.ask(f"/{self.name}/{path}")

    async def execute(self, statement: str) -> None:
        """Run a statement as the superuser; ``{}`` is the name of database and role."""
        name = make_url(self.url).database
        await asyncio.to_thread(self.server.execute, statement.format(name))


@dataclass(frozen=True)
class Provocation:
    """How a condition is made to happen.

    Args:
        act: What is done to the database.
        settings: Those that are not as usual in the tests.
    """

    act: Callable[[Subject], Coroutine[Any, Any, None]]
    settings: dict[str, Any] = field(default_factory=dict)


async def leave_alone(subject: Subject) -> None:
    """Do nothing."""


async def queue(subject: Subject) -> None:
    """Let more clients ask than there are connections, for a while."""
    await in_turn(lambda: subject.ask("hold/0.05"), clients=8, seconds=25)


async def queue_for_minutes(subject: Subject) -> None:
    """Let every client wait for seconds, for more than two minutes."""
    await in_turn(lambda: subject.ask("hold/1"), clients=8, seconds=128)


async def overrun(subject: Subject) -> None:
    """Ask three times as often as there are answers."""
    await steadily(lambda: subject.ask("hold/0.2"), per_second=30, seconds=20)


async def leak(subject: Subject) -> None:
    """Take connections for good."""
    await at_once(lambda: subject.ask("keep"), 3)
    await asyncio.sleep(20)


async def dawdle(subject: Subject) -> None:
    """Wait for something else within a transaction."""
    await subject.ask("rest/20")


async def cut(subject: Subject) -> None:
    """End the few connections of a large pool now and then, as a firewall does."""
    for _ in range(6):
        await at_once(lambda: subject.ask("hold/0.2"), 3)
        await subject.execute(FELL)
        await asyncio.sleep(8)


async def fell(subject: Subject) -> None:
    """End all connections of a pool again and again, until its start is long over."""
    for _ in range(25):
        await at_once(lambda: subject.ask("hold/0.2"), 4)
        await subject.execute(FELL)
        await asyncio.sleep(4)


async def burst(subject: Subject) -> None:
    """Need more connections than the pool keeps, for a moment, again and again."""
    # As long as that samples, one a second, see it.
    for _ in range(6):
        await at_once(lambda: subject.ask("hold/1.5"), 14)
        await asyncio.sleep(8)


async def read_on(subject: Subject) -> None:
    """Read a little until the start is long over."""
    await at_once(lambda: subject.ask("hold/0.2"), 2)
    await steadily(lambda: subject.ask("express/1"), per_second=2, seconds=SETTLED_AGE + 30)


async def bar(subject: Subject) -> None:
    """Withdraw the service's permission while it works."""
    await subject.ask("express/1")
    await subject.execute("ALTER ROLE {} NOLOGIN")
    await subject.execute(FELL)
    await steadily(lambda: subject.ask("express/1"), per_second=2, seconds=60)


async def work_slowly(subject: Subject) -> None:
    """Run a slow statement where nobody has to wait for a connection."""
    await in_turn(lambda: subject.ask("hold/0.5"), clients=2, seconds=50)


async def crowd(subject: Subject) -> None:
    """Take most of the server's connections from outside of the service."""
    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(await asyncio.to_thread(_connect, subject.server))
        await asyncio.sleep(60)


def _connect(server: PostgresServer) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=server.host, port=server.port, user=server.user, password=server.password
    )


async def lag(subject: Subject) -> None:
    """Write much while the replica replays nothing."""
    assert subject.replica is not None
    # Only who may monitor the server is told of its replicas.
    await subject.execute("GRANT pg_monitor TO {}")
    await asyncio.sleep(5)
    await asyncio.to_thread(subject.replica.execute, "SELECT pg_wal_replay_pause()")
    for _ in range(24):
        await subject.execute(WRITE)
    await asyncio.sleep(75)


async def work_alone(workers: Workers) -> None:
    """Give all of the requests to one of the workers."""
    await steadily(lambda: workers.ask("/lopsided/express/9"), per_second=22, seconds=80)


async def block(workers: Workers) -> None:
    """Do what stops the event loop, once the worker's start is over."""
    await asyncio.sleep(SETTLED_AGE)
    for _ in range(4):
        await workers.ask("/blocked/block/0.5")
        await asyncio.sleep(3)


async def freeze(workers: Workers) -> None:
    """Stop one event loop for so long that nothing is heard of its worker."""
    await asyncio.sleep(SETTLED_AGE)
    await workers.ask("/frozen/block/20", worker=1)


async def drift(workers: Workers) -> None:
    """Send four times the planned load to both workers, for less than a minute."""
    turns = itertools.cycle(range(len(workers.urls)))
    await steadily(
        lambda: workers.ask("/drifting/express/1", worker=next(turns)), per_second=40, seconds=52
    )


SMALL: dict[str, Any] = {"pool_size": 2, "max_overflow": 0}

PROVOCATIONS = {
    "untouched": Provocation(leave_alone),
    "exhausted": Provocation(queue, SMALL),
    "delayed": Provocation(queue_for_minutes, SMALL),
    "overrun": Provocation(overrun, {**SMALL, "max_waiting": 0}),
    "leaking": Provocation(leak, {"pool_size": 5, "max_overflow": 0, "leak_after": 2}),
    "dawdling": Provocation(dawdle),
    "cut": Provocation(cut, {"pool_size": 8, "max_overflow": 0}),
    "felled": Provocation(fell, {"pool_size": 4, "max_overflow": 0}),
    "bursting": Provocation(
        burst, {"pool_size": 10, "max_overflow": 4, "overflow_idle": 0.5, "slow_query": 10}
    ),
    "recycled": Provocation(read_on, {**SMALL, "pool_recycle": 1}),
    "barred": Provocation(bar, SMALL),
    "greedy": Provocation(leave_alone, {"pool_size": 1000, "max_overflow": 1000}),
    "looping-sessions": Provocation(lambda subject: subject.ask("session/12")),
    "looping-express": Provocation(lambda subject: subject.ask("express/12")),
    "slow": Provocation(work_slowly, {"pool_size": 5}),
}
"""On a server that has room for all of them, by the database's name in the service."""

PROVOCATIONS_OF_WORKERS = {
    "lopsided": (work_alone, 2),
    "blocked": (block, 1),
    "frozen": (freeze, 2),
    "drifting": (drift, 2),
}
"""What is done to services with one database each, and how many workers they have, by its name."""

SETTINGS_OF_WORKERS = {
    "drifting": {"plan": str(Path(__file__).with_name("plan.toml")), "instances": 2},
}
"""Those of these databases that are not as usual in the tests."""

CROWDED = Provocation(crowd, SMALL)
"""On a server of its own, which accepts 20 connections."""

LAGGING = Provocation(lag, SMALL)
"""On a server of its own, which has a replica."""
