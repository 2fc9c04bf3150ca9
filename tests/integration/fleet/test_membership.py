"""Databases with ``fleet`` in one process: what each sees, takes and gives back."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.pool import ConnectionPoolEntry
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer, postgres_programs, restartable_postgres

from penstock import Database
from penstock.database import BudgetExceeded
from penstock.errors import ConnectFailed
from penstock.fleet import FleetSnapshot
from penstock.pool.errors import FailureReason

pytestmark = pytest.mark.usefixtures("quick")

DIVIDED = 26
"""Of 40 - 3, less a quarter in reserve, less what is left to those that join."""


def member(url: str, **settings: Any) -> Database:
    size = {"pool_size": 20, "max_overflow": 30, "nested_checkout": "allow"}
    given = {"fleet": True, "telemetry": False, **size, **settings}
    return Database.from_url(url, environment="testing", **given)


def limit(database: Database) -> int:
    return database.pool.snapshot().limit


def connections(database: Database) -> int:
    """Return how many are open; a look may have one of them checked out."""
    snapshot = database.pool.snapshot()
    return snapshot.checked_in + snapshot.checked_out


def limits_are(expected: dict[Database, int]) -> Callable[[], bool]:
    return lambda: {each: limit(each) for each in expected} == expected


async def hold(database: Database, count: int, sessions: AsyncExitStack) -> None:
    """Check out so many connections until the stack is closed."""
    for _ in range(count):
        session = await sessions.enter_async_context(database.read())
        await session.execute(text("SELECT 1"))


async def use_all(database: Database, count: int) -> None:
    async with AsyncExitStack() as sessions:
        await hold(database, count, sessions)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_two_divide_the_budget_and_the_one_that_stays_has_it_all(
    small_server: PostgresServer, small_url: str, driver: str
) -> None:
    url = small_url.replace("asyncpg", driver)
    async with member(url) as one:
        assert limit(one) == 1
        await eventually(limits_are({one: DIVIDED}))
        await use_all(one, DIVIDED)
        assert connections(one) == DIVIDED
        async with member(url) as other:
            await eventually(limits_are({one: 13, other: 13}))
            # Closed as well as not checked out.
            await eventually(lambda: connections(one) == 13)
        await eventually(limits_are({one: DIVIDED}))
        assert one.fleet is not None
        assert one.fleet.snapshot() == FleetSnapshot(DIVIDED, 1, DIVIDED, 0)
    assert (one.pool.size(), limit(one), one.fleet.snapshot()) == (20, 50, None)


async def test_services_of_other_roles_and_databases_divide_by_their_weights(
    small_server: PostgresServer, small_url: str
) -> None:
    with small_server.database() as other_url:
        async with (
            member(small_url, application_name="orders") as one,
            member(other_url, application_name="reports", fleet_weight=4) as other,
        ):
            await eventually(limits_are({one: 5, other: 21}))


async def test_what_a_small_pool_cannot_use_goes_to_the_others(small_url: str) -> None:
    async with (
        member(small_url, pool_size=2, max_overflow=1) as small,
        member(small_url) as large,
    ):
        await eventually(limits_are({small: 3, large: DIVIDED - 3}))


async def test_connections_of_other_clients_are_seen_and_left_out(
    small_server: PostgresServer, small_url: str
) -> None:
    async with member(small_url) as one, AsyncExitStack() as clients:
        await eventually(limits_are({one: DIVIDED}))
        for _ in range(7):  # a superuser's, of which a plain role sees the names alone
            client = await asyncpg.connect(small_server.url().replace("+asyncpg", ""))
            clients.push_async_callback(client.close)
        await eventually(limits_are({one: 19}))
        assert one.fleet is not None
        assert one.fleet.snapshot() == FleetSnapshot(19, 1, 19, 7)
        await clients.aclose()
        await eventually(limits_are({one: DIVIDED}))


async def test_no_more_is_taken_than_another_that_is_busy_gives_back(small_url: str) -> None:
    async with member(small_url) as busy, AsyncExitStack() as sessions:
        await eventually(limits_are({busy: DIVIDED}))
        await hold(busy, 20, sessions)
        async with member(small_url) as other:
            await eventually(limits_are({busy: 13, other: 6}))
            assert connections(busy) == 20
            await sessions.aclose()
            await eventually(limits_are({busy: 13, other: 13}))


async def test_a_member_whose_connections_are_all_in_use_looks_before_the_next_request(
    small_url: str,
) -> None:
    async with member(small_url, pool_size=2, max_overflow=0, max_waiting=3) as one:
        await eventually(limits_are({one: 2}))
        ended = asyncio.Event()

        async def use() -> None:
            while not ended.is_set():
                try:
                    async with one.read() as session:
                        await session.execute(text("SELECT pg_sleep(0.01)"))
                except Exception:  # noqa: BLE001 - rejected, as the queue is full
                    await asyncio.sleep(0.001)

        requests = [asyncio.create_task(use()) for _ in range(12)]
        async with AsyncExitStack() as others:
            for _ in range(DIVIDED - 1):
                database = member(small_url, pool_size=1, max_overflow=0)
                await others.enter_async_context(database)
            await eventually(limits_are({one: 1}))
            assert one.fleet is not None
            snapshot = one.fleet.snapshot()
            assert snapshot is not None
            assert snapshot.members == DIVIDED
        ended.set()
        await asyncio.gather(*requests)


async def test_connections_of_before_the_open_are_replaced_by_those_with_the_name(
    small_server: PostgresServer, small_url: str
) -> None:
    one = member(small_url)
    async with one.read() as session:
        await session.execute(text("SELECT 1"))
    async with one:
        names = small_server.execute(
            "SELECT application_name FROM pg_stat_activity WHERE datname LIKE 'test_%'"
        )
        assert names
        assert all(" fleet:" in str(name) for (name,) in names)
    async with one.read() as session:  # without the name again
        assert await session.scalar(text("SHOW application_name")) == "penstock"
    await one.close()


async def test_listeners_of_the_application_may_set_the_password(
    small_server: PostgresServer, small_url: str
) -> None:
    password = small_url.split(":")[2].split("@", maxsplit=1)[0]
    one = member(small_url.replace(password, "outdated"), application_name="orders")

    @event.listens_for(one.engine.sync_engine, "do_connect")
    def rotate(_: Any, entry: ConnectionPoolEntry, arguments: Any, options: Any) -> None:
        options["password"] = password

    async with one, one.read() as session:
        name = await session.scalar(text("SHOW application_name"))
        assert name.startswith("orders fleet:")
        assert name.endswith("/1/50")


async def test_each_change_is_told_to_the_log(
    small_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock.fleet")
    async with member(small_url) as one:
        await eventually(limits_are({one: DIVIDED}))
        await asyncio.sleep(0.3)  # without a change there is no line

    lines = [record.getMessage() for record in caplog.records if record.name == "penstock.fleet"]
    assert lines == [
        "This member's share of the fleet's budget: "
        f"{share} of {DIVIDED} connections, for 1 member(s); 0 of other clients"
        for share in (1, DIVIDED)
    ]


async def test_more_members_than_connections_have_one_each_and_are_told_to_the_log(
    small_server: PostgresServer, small_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as members:
        for _ in range(3):
            # Of 37, a tenth is left, and less than two of them are divided.
            database = member(small_url, connection_reserve=0.9, fleet_surge=0.5)
            await members.enter_async_context(database)
            assert limit(database) == 1
        assert database.fleet is not None
        await asyncio.sleep(0.6)
        assert database.fleet.snapshot() == FleetSnapshot(1, 3, 1, 0)

    assert warnings(caplog)[0] == (
        "The fleet has 2 members and a budget of 1 connections, which is exceeded: each member has "
        "one. Raise max_connections, lower connection_reserve, or run fewer processes."
    )


SLOW_LOOK = "SELECT pg_sleep(30), 0, 0, '', 0"


async def test_a_look_that_is_not_answered_in_time_leaves_the_share_and_no_connection(
    small_server: PostgresServer, small_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with member(small_url) as one:
        await eventually(limits_are({one: DIVIDED}))
        monkeypatch.setattr("penstock.fleet.fleet.LOOK_TIMEOUT", 0.1)
        monkeypatch.setattr("penstock.fleet.fleet._LOOK", SLOW_LOOK)
        closed = one.pool.snapshot().closed_total
        await eventually(lambda: one.pool.snapshot().closed_total >= closed + 3)
        assert limit(one) == DIVIDED
        await use_all(one, DIVIDED - 3)
        await eventually(lambda: running(small_server, "pg_sleep") <= 1)


async def test_an_open_that_is_cancelled_in_its_first_look_leaves_nothing(
    small_server: PostgresServer, small_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = member(small_url)
    with monkeypatch.context() as patch:
        patch.setattr("penstock.fleet.fleet._LOOK", SLOW_LOOK)
        opening = asyncio.create_task(one.open())
        await eventually(lambda: running(small_server, "pg_sleep") == 1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert one.fleet is not None
    assert (one.fleet.is_joined, limit(one)) == (False, 50)
    await eventually(lambda: running(small_server, "") == 0)
    async with one:
        await eventually(limits_are({one: DIVIDED}))


def running(server: PostgresServer, statement: str) -> int:
    """Return how many connections of tests run a statement with these words, or have."""
    [(count,)] = server.execute(
        "SELECT count(*) FROM pg_stat_activity "
        f"WHERE datname LIKE 'test_%' AND query LIKE '%{statement}%'"
    )
    assert isinstance(count, int)
    return count


# Where it does not work.


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "penstock.fleet" and record.levelno == logging.WARNING
    ]


async def test_behind_a_pooler_the_configured_size_stays_and_is_checked(
    small_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with member(small_url, proxy="pgbouncer", pool_size=5, max_overflow=5) as one:
        assert one.fleet is not None
        assert (limit(one), one.fleet.is_joined, one.fleet.snapshot()) == (10, False, None)
    with pytest.raises(BudgetExceeded):
        await member(small_url, proxy="pgbouncer", budget="refuse").open()

    assert warnings(caplog)[0] == (
        "fleet=True has no effect: proxy='pgbouncer' hands the server's connections around, so "
        "that they cannot be told apart. The pool keeps its configured size, and the connections "
        "of workers and instances are checked at start (budget='warn')."
    )


async def test_connections_that_do_not_get_the_name_are_no_members(
    small_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def create() -> Any:
        return await asyncpg.connect(small_url.replace("+asyncpg", ""))

    async with Database.from_url(
        small_url,
        environment="testing",
        fleet=True,
        telemetry=False,
        async_creator=create,
    ) as one:
        assert limit(one) == 7
        assert one.fleet is not None
        assert not one.fleet.is_joined

    assert len(warnings(caplog)) == 1
    assert "does not show connections by the name" in warnings(caplog)[0]


async def test_the_static_check_is_for_databases_without_a_fleet(small_url: str) -> None:
    async with member(small_url, budget="refuse", workers=10) as one:
        assert limit(one) == 1
    with pytest.raises(BudgetExceeded):
        await member(small_url, budget="refuse", workers=10, fleet=False).open()


async def test_a_member_that_sees_nothing_stays_at_its_floor_until_it_does(
    small_server: PostgresServer, small_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    function = "pg_stat_get_activity(integer)"
    name = small_url.rpartition("/")[2]
    small_server.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC", name)
    async with member(small_url) as one:
        await asyncio.sleep(0.6)
        assert (limit(one), len(warnings(caplog))) == (1, 1)
        assert "the share of 1 connection(s) stays: " in warnings(caplog)[0]
        assert "permission denied" in warnings(caplog)[0]
        await use_all(one, 1)
        small_server.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC", name)
        await eventually(limits_are({one: DIVIDED}))


async def fill(server: PostgresServer, url: str, clients: AsyncExitStack) -> list[Any]:
    """Take every connection of a server that a plain role can have."""
    taken: list[Any] = []
    while True:
        try:
            client = await asyncpg.connect(url.replace("+asyncpg", ""))
        except asyncpg.TooManyConnectionsError:
            return taken
        clients.push_async_callback(client.close)
        taken.append(client)


async def test_a_server_that_is_full_at_the_start_is_waited_for(
    small_server: PostgresServer, small_url: str
) -> None:
    with small_server.database() as other_url:
        async with AsyncExitStack() as clients:
            taken = await fill(small_server, other_url, clients)
            one = member(small_url, pool_timeout=20)
            opening = asyncio.create_task(one.open())
            done, _ = await asyncio.wait({opening}, timeout=0.5)
            assert not done
            await taken[0].close()
            await asyncio.wait_for(opening, 10)
            assert limit(one) == 1
            await one.close()


async def test_members_that_find_the_server_full_of_the_fleet_itself_join_one_after_the_other(
    small_url: str,
) -> None:
    async with member(small_url, connection_reserve=0) as one, AsyncExitStack() as members:
        await eventually(limits_are({one: 35}))
        await use_all(one, 35)
        others = [member(small_url, connection_reserve=0) for _ in range(8)]
        for other in others:
            members.push_async_callback(other.close)
        # Two connections of the server are left.
        await asyncio.gather(*(other.open() for other in others))
        assert any(other.pool.snapshot().open_failures_total for other in others)
        await eventually(lambda: limit(one) == 4)
        await eventually(lambda: sum(map(limit, [one, *others])) == 35)


async def test_a_server_that_stays_full_is_told_after_the_pool_timeout(
    small_server: PostgresServer, small_url: str
) -> None:
    with small_server.database() as other_url:
        async with AsyncExitStack() as clients:
            await fill(small_server, other_url, clients)
            one = member(small_url, pool_timeout=0.5)
            with pytest.raises(ConnectFailed) as failed:
                await one.open()
            assert failed.value.reason is FailureReason.TOO_MANY_CONNECTIONS
            assert limit(one) == 50


async def test_a_member_keeps_its_share_while_the_server_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    programs = postgres_programs()
    assert programs is not None
    with restartable_postgres(programs) as restartable, restartable.server.database() as url:
        async with member(url, pool_timeout=1) as one, member(url, pool_timeout=1) as other:
            await eventually(limits_are({one: 50, other: 50}))
            restartable.stop()
            await eventually(lambda: len(warnings(caplog)) == 2)
            await asyncio.sleep(0.5)
            assert (limit(one), limit(other)) == (50, 50)
            assert len(warnings(caplog)) == 2
            assert "the share of 50 connection(s) stays: ConnectFailed" in warnings(caplog)[0]
            restartable.start()
            restartable.process.wait_until(restartable.server.answers)
            await use_all(one, 3)
            await eventually(lambda: _members(one) == _members(other) == 2)


def _members(database: Database) -> int:
    assert database.fleet is not None
    snapshot = database.fleet.snapshot()
    assert snapshot is not None
    return snapshot.members
