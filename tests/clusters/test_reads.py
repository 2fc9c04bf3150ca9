"""Reads by replicas: each sees what its caller has written, and no failed replica fails one."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from math import inf
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, bindparam, insert, select, text, update
from tests.clusters.streaming import StreamingCluster
from tests.eventually import eventually
from tests.servers.proxy import proxy_before

from penstock import Database, query
from penstock.cluster import Position, ReadPolicy
from penstock.cluster.monitor import Probe
from penstock.cluster.position import Reads, current_reads
from penstock.deadlines import Limits, current_limits
from penstock.errors import PenstockError, PoolTimeout

pytestmark = [pytest.mark.server, pytest.mark.slow]

METADATA = MetaData()
NUMBERS = Table("numbers", METADATA, Column("id", Integer, primary_key=True), Column("n", Integer))
number_of = query(select(NUMBERS.c.n).where(NUMBERS.c.id == bindparam("number_id")))
CLIENTS = 20


@pytest.fixture
async def database(cluster: StreamingCluster) -> AsyncIterator[Database]:
    replicas = [node.url for node in cluster.replicas]
    made = Database.from_url(
        cluster.primary.url,
        environment="testing",
        pool_size=CLIENTS,
        replicas=replicas,
        replica_check_interval=0.2,
    )
    async with made:
        async with made.engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
            rows = [{"id": each, "n": 0} for each in range(CLIENTS)]
            await connection.execute(insert(NUMBERS), rows)
        cluster.wait_for_replay()
        await asyncio.sleep(0.3)
        yield made


def served(database: Database) -> Counter[str]:
    """Return how many reads each server was chosen for."""
    cluster = database.cluster
    assert cluster
    return Counter(
        {each.name: each.served for each in [cluster.primary, *cluster.replicas.values()]}
    )


async def pairs(database: Database, count: int, *, by_session: bool = False) -> int:
    """Write, then read, ``count`` times by each client; return how often the write was missed."""
    stale = 0

    async def client(number_id: int) -> None:
        nonlocal stale
        current_reads.set(Reads())
        for n in range(1, count + 1):
            write = update(NUMBERS).where(NUMBERS.c.id == number_id).values(n=n)
            if by_session:
                async with database.write() as session:
                    await session.execute(write)
                async with database.read() as reading:
                    read = select(NUMBERS.c.n).where(NUMBERS.c.id == number_id)
                    found: Any = await reading.scalar(read)
            else:
                await database.writer.execute(write)
                found = await database.reader.scalar(number_of, number_id=number_id)
            stale += found != n

    await asyncio.gather(*map(client, range(CLIENTS)))
    return stale


@pytest.mark.parametrize("by_session", [False, True], ids=["express lane", "sessions"])
async def test_replicas_read_what_was_just_written(database: Database, by_session: bool) -> None:
    before = served(database)

    assert await pairs(database, 50, by_session=by_session) == 0

    reads = served(database) - before
    assert reads["primary"] <= 0.05 * reads.total()
    assert len(+reads) >= 2


@pytest.mark.parametrize("by_session", [False, True], ids=["express lane", "sessions"])
async def test_no_read_misses_a_write_where_replicas_are_late(
    database: Database, cluster: StreamingCluster, by_session: bool
) -> None:
    for node in cluster.replicas:
        node.delay(500)
    await database.writer.execute(update(NUMBERS).values(n=-1))
    await asyncio.sleep(0.5)

    assert await pairs(database, 10, by_session=by_session) == 0


async def test_a_read_after_a_write_is_one_statement_on_the_server_that_reads(
    database: Database, cluster: StreamingCluster
) -> None:
    await database.writer.execute(update(NUMBERS).values(n=7))
    cluster.wait_for_replay()
    statements: list[str] = []
    assert database.cluster
    for member in [database.cluster.primary, *database.cluster.replicas.values()]:
        member.lane.observer.add_spans(Counting(statements))  # type: ignore[attr-defined]  # asyncpg's

    assert await database.reader.scalar(number_of, number_id=1) == 7
    assert len(statements) == 1


async def test_a_read_that_has_to_see_a_write_is_one_round_trip(cluster: StreamingCluster) -> None:
    ports = [node.server.port for node in cluster.nodes]
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(proxy_before("127.0.0.1", p)) for p in ports]
        urls = [proxy.url(node.url) for proxy, node in zip(proxies, cluster.nodes, strict=True)]
        database = await stack.enter_async_context(
            Database.from_url(
                urls[0], environment="testing", replicas=urls[1:], replica_check_interval=60
            )
        )
        await database.writer.execute(text("CREATE TABLE IF NOT EXISTS ones AS SELECT 1 AS n"))
        position = await database.position()
        assert database.cluster
        await asyncio.to_thread(cluster.wait_for_replay)
        for member in database.cluster.replicas.values():
            member.wanted()
        await eventually(lambda: all_have(database, position))
        current_reads.set(database.cluster.reads(position, None))
        one = query(select(text("n FROM ones")))
        for _ in range(4):  # each connection prepares it once
            await database.reader.scalar(one)

        before = [proxy.round_trips for proxy in proxies]
        for _ in range(10):
            assert await database.reader.scalar(one) == 1
        after = [proxy.round_trips for proxy in proxies]

        assert after[0] == before[0]
        assert sum(after) - sum(before) == 10


def all_have(database: Database, position: Position) -> bool:
    assert database.cluster
    return all(each.has(position, 0.0, inf) for each in database.cluster.replicas.values())


class Counting:
    """Takes down each statement that is sent."""

    def __init__(self, statements: list[str]) -> None:
        self._statements = statements

    @contextmanager
    def of(self, sql: str, batch: int = 0) -> Iterator[None]:
        """Take one down."""
        self._statements.append(sql)
        yield

    def succeed(self, span: Any, rows: int | None) -> None:
        """Take nothing down."""


async def test_a_position_is_passed_on_as_text(
    database: Database, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        node.pause_replay()
    async with database.write() as session:
        await session.execute(update(NUMBERS).values(n=5))
    position = str(await database.position())
    current_reads.set(None)  # as in the process at the other end of a queue

    async with database.read(policy=ReadPolicy(prefer="replica")) as old:
        assert await old.scalar(select(NUMBERS.c.n).limit(1)) == 0
    async with database.read(after=position) as fresh:
        assert await fresh.scalar(select(NUMBERS.c.n).limit(1)) == 5


async def test_a_session_reads_one_server_from_its_begin_to_its_end(database: Database) -> None:
    server = text("SELECT inet_server_port()")
    ports = set()
    for _ in range(4):
        async with database.read() as session:
            seen = {await session.scalar(server) for _ in range(5)}
        assert len(seen) == 1
        ports |= seen
    async with database.reader.snapshot() as reader:
        assert len({await reader.scalar(server) for _ in range(5)}) == 1
    assert len(ports) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "WITH added AS (INSERT INTO numbers VALUES (1000, 1) RETURNING n) SELECT n FROM added",
        "SELECT nextval('tickets')",
        "SELECT n FROM numbers FOR UPDATE",
    ],
)
async def test_what_writes_goes_to_the_primary_by_what_it_was_given_to(
    database: Database, cluster: StreamingCluster, sql: str
) -> None:
    cluster.primary.execute("CREATE SEQUENCE IF NOT EXISTS tickets")
    async with database.write() as session:
        await session.execute(text("GRANT ALL ON numbers TO PUBLIC"))
        cluster.primary.execute("GRANT ALL ON SEQUENCE tickets TO PUBLIC")
        assert (await session.execute(text(sql))).first() is not None


async def test_a_replica_that_lags_is_left_out_and_comes_back(
    database: Database, cluster: StreamingCluster
) -> None:
    policy = ReadPolicy(max_lag=0.3)
    late, prompt = cluster.replicas
    late.pause_replay()
    for n in range(5):
        await database.writer.execute(update(NUMBERS).values(n=n))
        await asyncio.sleep(0.25)
    current_reads.set(None)

    assert await ports_of(database, policy) == {prompt.server.port}

    late.resume_replay()
    await asyncio.sleep(0.5)
    assert await ports_of(database, policy) == {late.server.port, prompt.server.port}


async def ports_of(database: Database, policy: ReadPolicy) -> set[Any]:
    found = set()
    for _ in range(6):
        async with database.read(policy=policy) as session:
            found.add(await session.scalar(text("SELECT inet_server_port()")))
    return found


@pytest.mark.parametrize("by_session", [False, True], ids=["express lane", "sessions"])
async def test_a_killed_replica_fails_no_read(
    database: Database, cluster: StreamingCluster, by_session: bool
) -> None:
    failed: list[BaseException] = []
    counts: Counter[str] = Counter()
    over = asyncio.Event()

    async def client(number_id: int) -> None:
        while not over.is_set():
            try:
                if by_session:
                    async with database.read() as session:
                        await session.scalar(select(NUMBERS.c.n))
                else:
                    await database.reader.scalar(number_of, number_id=number_id)
                counts["reads"] += 1
            except Exception as error:  # noqa: BLE001 - counted
                failed.append(error)

    clients = [asyncio.create_task(client(each)) for each in range(10)]
    await asyncio.sleep(0.5)
    await asyncio.to_thread(cluster.replicas[0].kill)
    await asyncio.sleep(1.5)
    before = served(database)
    await asyncio.to_thread(cluster.replicas[0].start)
    await asyncio.sleep(1.5)
    over.set()
    await asyncio.gather(*clients)

    assert failed == []
    assert counts["reads"] > 100
    assert len(+(served(database) - before)) == 2  # the killed one as well


async def test_the_primary_restarts_and_no_read_fails(
    database: Database, cluster: StreamingCluster
) -> None:
    failed: list[BaseException] = []
    over = asyncio.Event()

    async def client(number_id: int) -> None:
        while not over.is_set():
            try:
                await database.reader.scalar(number_of, number_id=number_id)
            except Exception as error:  # noqa: BLE001 - counted
                failed.append(error)

    clients = [asyncio.create_task(client(each)) for each in range(10)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(cluster.restart_primary)
    await asyncio.sleep(0.5)
    over.set()
    await asyncio.gather(*clients)

    assert failed == []
    await database.writer.execute(update(NUMBERS).values(n=1))


async def test_without_any_replica_reads_take_a_share_of_the_primary(
    database: Database, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        await asyncio.to_thread(node.kill)
    await asyncio.sleep(0.6)
    sleeping = select(text("pg_sleep(0.3)"))

    reads = [asyncio.create_task(database.reader.scalar(sleeping)) for _ in range(3 * CLIENTS)]
    half = database.pool.snapshot().limit // 2
    await eventually(lambda: database.pool.snapshot().checked_out == half)
    await asyncio.sleep(0.1)
    assert database.pool.snapshot().checked_out == half

    await database.writer.execute(update(NUMBERS).values(n=1))
    assert sum(read.done() for read in reads) < len(reads) - half
    await asyncio.gather(*reads)


@pytest.mark.parametrize("function", ["pg_control_system()", "pg_last_wal_replay_lsn()"])
async def test_a_server_that_keeps_its_position_to_itself_is_used_by_time(
    cluster: StreamingCluster, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    cluster.primary.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    cluster.wait_for_replay()
    try:
        async with Database.from_url(
            cluster.primary.url,
            environment="testing",
            replicas=cluster.replicas[0].url,
            replica_max_lag=1,
            position_lifetime=2,
        ) as made:
            assert made.cluster
            (replica,) = made.cluster.replicas.values()
            await eventually(lambda: replica.look is not None)
            port = select(text("inet_server_port()"))
            assert await made.reader.scalar(port) == cluster.replicas[0].server.port

            await made.writer.execute(text("CREATE TABLE IF NOT EXISTS ones AS SELECT 1 AS n"))
            assert await made.reader.scalar(port) == cluster.primary.server.port
            await asyncio.sleep(1.2)
            assert await made.reader.scalar(port) == cluster.replicas[0].server.port
    finally:
        cluster.primary.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
    assert "reports no position" in caplog.text


async def test_a_name_has_its_addresses_looked_up(cluster: StreamingCluster) -> None:
    server = cluster.replicas[0].server
    async with Database.from_url(
        cluster.primary.url,
        environment="testing",
        replicas=f"dns:localhost:{server.port}",
        replica_check_interval=0.2,
    ) as made:
        assert made.cluster
        replica = made.cluster.replicas[f"127.0.0.1:{server.port}"]
        await eventually(lambda: not replica.trouble)
        assert await made.reader.scalar(select(text("inet_server_port()"))) == server.port


async def test_what_is_no_replica_of_this_primary_reads_nothing(
    cluster: StreamingCluster, own_cluster: StreamingCluster
) -> None:
    foreign = own_cluster.replicas[0].url
    async with Database.from_url(
        cluster.primary.url, environment="testing", replicas=foreign, replica_check_interval=0.2
    ) as made:
        assert made.cluster
        (replica,) = made.cluster.replicas.values()
        await eventually(
            lambda: replica.trouble == "it belongs to another cluster than the primary"
        )
        assert await made.reader.scalar(select(text("inet_server_port()"))) == (
            cluster.primary.server.port
        )


async def test_a_wait_for_the_share_of_the_primary_ends_with_the_statement_s_time(
    database: Database, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        await asyncio.to_thread(node.kill)
    assert database.cluster
    replicas = database.cluster.replicas.values()
    await eventually(lambda: all(each.trouble for each in replicas))
    sleeping = select(text("pg_sleep(1.5)"))
    half = database.pool.snapshot().limit // 2
    held = [asyncio.create_task(database.reader.scalar(sleeping)) for _ in range(half)]
    await eventually(lambda: database.pool.snapshot().checked_out == half)

    token = current_limits.set(Limits(0.2))
    try:
        with pytest.raises(PoolTimeout, match=r"statement_timeout=0\.2"):
            await database.reader.scalar(number_of, number_id=1)
    finally:
        current_limits.reset(token)
    assert not any(task.done() for task in held)
    await asyncio.gather(*held)


async def test_a_position_that_is_given_adds_to_what_the_task_has_written(
    database: Database, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        node.pause_replay()
    before = await database.position()
    await database.writer.execute(update(NUMBERS).values(n=31))

    async with database.read(after=before) as session:
        assert await session.scalar(select(NUMBERS.c.n)) == 31
    with pytest.raises(PenstockError, match="after=5"):
        async with database.read(after=5):  # type: ignore[arg-type]  # what is refused
            pass


OPENED_IN_TWO_LOOPS = """
import asyncio, sys
from sqlalchemy import select, text
from penstock import Database

made = Database.from_url(sys.argv[1], environment="testing", replicas=sys.argv[2])

async def used():
    async with made:
        return await made.reader.scalar(select(text("1")))

loop = asyncio.new_event_loop()
loop.run_until_complete(made.open())
loop.close()
print(asyncio.run(used()))
"""


def test_it_is_opened_again_in_a_loop_after_one_that_has_ended(cluster: StreamingCluster) -> None:
    # In a process of its own, with which ends what the first loop has left.
    urls = cluster.primary.url, cluster.replicas[0].url
    command = [sys.executable, "-c", OPENED_IN_TWO_LOOPS, *urls]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ran.stdout == "1\n", ran.stderr


async def test_a_dead_replica_is_asked_at_intervals_and_no_more(
    database: Database, cluster: StreamingCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look = Probe.look

    async def counted(self: Probe) -> Any:
        nonlocal looks
        looks += 1
        return await look(self)

    await asyncio.to_thread(cluster.replicas[0].kill)
    assert database.cluster
    dead = database.cluster.replicas[f"127.0.0.1:{cluster.replicas[0].server.port}"]
    await eventually(lambda: bool(dead.trouble))
    monkeypatch.setattr(Probe, "look", counted)
    await asyncio.sleep(1)

    assert looks <= 3 * 6  # three servers, every 0.2 s
