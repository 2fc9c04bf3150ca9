"""The primary goes, is demoted, or is taken over: the service follows it without a restart."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, insert, select
from sqlalchemy.exc import DBAPIError
from tests.clusters.patroni import PatroniCluster, PatroniNode, patroni_cluster
from tests.clusters.streaming import StreamingCluster
from tests.eventually import eventually
from tests.servers.proxy import proxy_before

from penstock import Database, query
from penstock.cluster import Position
from penstock.cluster.position import Reads, current_reads
from penstock.engine import standby

pytestmark = [pytest.mark.server, pytest.mark.slow]

METADATA = MetaData()
WRITES = Table("writes", METADATA, Column("id", String, primary_key=True), Column("n", Integer))
write_of = query(select(WRITES.c.n).where(WRITES.c.id == bindparam("write_id")))


class Load:
    """Reads and writes of several tasks, and what became of them.

    Args:
        database: Where.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.acknowledged: set[str] = set()
        self.done: Counter[str] = Counter()
        self.failed: list[tuple[str, str]] = []
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *kinds: str, tasks: int = 4) -> None:
        """Begin; each kind is ``read``, ``write`` or ``session``."""
        self._tasks = [
            asyncio.create_task(self._client(kind, number))
            for kind in kinds
            for number in range(tasks)
        ]

    async def stop(self) -> None:
        """Have each task end with what it is doing."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def lost(self) -> set[str]:
        """Return the acknowledged writes that are not there."""
        async with self.database.write() as session:
            there = set(await session.scalars(select(WRITES.c.id)))
        return self.acknowledged - there

    async def _client(self, kind: str, number: int) -> None:
        count = 0
        while not self._is_over:
            current_reads.set(Reads())
            count += 1
            try:
                await self._once(kind, f"{kind}-{number}-{count}")
                self.done[kind] += 1
            except Exception as error:  # noqa: BLE001 - counted
                self.failed.append((kind, repr(error)[:300]))
            await asyncio.sleep(0.005)

    async def _once(self, kind: str, write_id: str) -> None:
        if kind == "read":
            await self.database.reader.all(write_of, write_id=write_id)
            return
        row = insert(WRITES).values(id=write_id, n=1)
        if kind == "write":
            await self.database.writer.execute(row)
        else:
            async with self.database.write() as session:
                await session.execute(row)
        self.acknowledged.add(write_id)


@asynccontextmanager
async def opened(url: str, replicas: Any) -> AsyncIterator[Database]:
    database = Database.from_url(
        url, environment="testing", replicas=replicas, replica_check_interval=0.2, hold_writes=30
    )
    async with database:
        async with database.engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        position = await database.position()
        await eventually(lambda: all_are_at(database, position))
        yield database


def all_are_at(database: Database, position: Position) -> bool:
    assert database.cluster
    return all(each.has(position, 0.0, inf) for each in database.cluster.replicas.values())


@pytest.fixture(scope="module")
def shared_synchronous() -> Any:
    with patroni_cluster(synchronous=True, settings={"primary_start_timeout": 0}) as cluster:
        ((position,),) = cluster.leader().execute("SELECT pg_current_wal_flush_lsn()::text")
        for node in cluster.nodes:
            if node.is_replica():
                node.wait_for_replay(str(position))
        yield cluster


@pytest.fixture
def synchronous(shared_synchronous: PatroniCluster) -> Any:
    yield shared_synchronous
    shared_synchronous.reset()


def found_by(cluster: PatroniCluster) -> str:
    return "patroni:" + ",".join(node.rest_url for node in cluster.nodes)


async def test_a_switchover_fails_neither_reads_nor_writes(patroni: PatroniCluster) -> None:
    async with opened(patroni.url, found_by(patroni)) as database:
        load = Load(database)
        load.start("read", "write")
        await asyncio.sleep(1)
        before = Counter(load.done)
        await asyncio.to_thread(patroni.switchover)
        await eventually(lambda: load.done["write"] > before["write"] + 100, 30)
        await load.stop()

        assert load.failed == []
        assert await load.lost() == set()


async def test_a_switchover_loses_nothing_that_a_session_has_acknowledged(
    patroni: PatroniCluster,
) -> None:
    async with opened(patroni.url, found_by(patroni)) as database:
        load = Load(database)
        load.start("session", "read")
        await asyncio.sleep(1)
        before = Counter(load.done)
        await asyncio.to_thread(patroni.switchover)
        await eventually(lambda: load.done["session"] > before["session"] + 100, 30)
        await load.stop()

        # What was under way at that moment: no session can be repeated for its caller.
        assert len(load.failed) <= 4
        assert {kind for kind, _ in load.failed} <= {"session"}
        assert await load.lost() == set()


@pytest.mark.parametrize("end", [PatroniCluster.crash_leader, PatroniCluster.kill_leader])
async def test_what_was_acknowledged_survives_the_leader(
    synchronous: PatroniCluster, end: Callable[[PatroniCluster], PatroniNode]
) -> None:
    async with opened(synchronous.url, found_by(synchronous)) as database:
        load = Load(database)
        load.start("write", "session", "read")
        await asyncio.sleep(1)
        dead = await asyncio.to_thread(end, synchronous)
        await asyncio.to_thread(synchronous.leader, other_than=dead)
        before = Counter(load.done)
        await eventually(lambda: load.done["write"] > before["write"] + 20, 5)
        await load.stop()

        assert await load.lost() == set()
        assert not [error for kind, error in load.failed if kind == "read"]
        assert not [error for _, error in load.failed if "25006" in error]


async def test_a_promoted_replica_is_followed(own_cluster: StreamingCluster) -> None:
    old, new, other = own_cluster.nodes
    url = own_cluster.url
    async with opened(url, [node.url for node in own_cluster.replicas]) as database:
        load = Load(database)
        load.start("write", "read")
        await asyncio.sleep(0.5)
        await asyncio.to_thread(old.kill)
        await asyncio.to_thread(own_cluster.promote, new)
        before = Counter(load.done)
        await eventually(lambda: load.done["write"] > before["write"] + 50, 20)
        await load.stop()

        assert not [error for kind, error in load.failed if kind == "read"]
        cluster = database.cluster
        assert cluster
        await eventually(lambda: cluster.timeline == 2)
        await eventually(lambda: member(database, new).trouble == "it is the primary")
        await eventually(lambda: not member(database, other).trouble)

        assert len(load.acknowledged) > 50


async def test_the_old_primary_is_not_gone_back_to_when_it_returns(
    own_cluster: StreamingCluster,
) -> None:
    old, new, _ = own_cluster.nodes
    async with opened(own_cluster.url, [node.url for node in own_cluster.replicas]) as database:
        await asyncio.to_thread(old.kill)
        await asyncio.to_thread(own_cluster.promote, new)
        cluster = database.cluster
        assert cluster
        await eventually(lambda: cluster.timeline == 2 and not cluster.primary.trouble)
        await asyncio.to_thread(old.start)  # as a primary, first among the hosts

        for number in range(5):
            database.pool.evict_all()
            await database.writer.execute(insert(WRITES).values(id=str(number), n=1))

        assert old.role() == "primary"
        assert new.execute("SELECT count(*) FROM writes") == [(5,)]
        assert old.execute("SELECT count(*) FROM writes") == [(0,)]


async def test_a_replica_that_hangs_fails_no_read_of_the_lane(
    own_cluster: StreamingCluster,
) -> None:
    hung = own_cluster.replicas[0]
    async with opened(own_cluster.url, [node.url for node in own_cluster.replicas]) as database:
        load = Load(database)
        load.start("read", tasks=8)
        await asyncio.sleep(0.3)
        hung.freeze()
        try:
            await eventually(lambda: bool(member(database, hung).trouble), 20)
            before = load.done["read"]
            await eventually(lambda: load.done["read"] > before + 100)
            await load.stop()
        finally:
            hung.thaw()

        assert load.failed == []


def member(database: Database, node: Any) -> Any:
    assert database.cluster
    return database.cluster.replicas[f"127.0.0.1:{node.server.port}"]


@pytest.mark.parametrize("by_session", [False, True], ids=["express lane", "sessions"])
async def test_a_demoted_primary_is_left_once_it_refuses(
    own_cluster: StreamingCluster, monkeypatch: pytest.MonkeyPatch, by_session: bool
) -> None:
    """With one address, which leads elsewhere some time after the failover."""
    monkeypatch.setattr(standby, "_YOUNG", 0.0)
    old, new, _ = own_cluster.nodes
    async with (
        proxy_before("127.0.0.1", old.server.port) as proxy,
        Database.from_url(proxy.url(old.url), environment="testing", pool_size=3) as database,
    ):
        async with database.engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        await asyncio.to_thread(own_cluster.wait_for_replay)
        await asyncio.to_thread(own_cluster.promote, new)
        await asyncio.to_thread(own_cluster.demote, old)
        assert await refusals(database, "before", by_session=by_session) == 5

        proxy.lead_to("127.0.0.1", new.server.port)
        assert await refusals(database, "after", by_session=by_session) <= 1


async def refusals(database: Database, name: str, *, by_session: bool) -> int:
    """Write five times, and return how often a server has refused because it is a standby."""
    refused = 0
    for number in range(5):
        row = insert(WRITES).values(id=f"{name}-{number}", n=1)
        try:
            if by_session:
                async with database.write() as session:
                    await session.execute(row)
            else:
                await database.writer.execute(row)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "25006":
                raise
            refused += 1
    return refused
