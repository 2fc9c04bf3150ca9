"""What the doctor may not do to a server, whatever its queries are."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from tests.eventually import eventually
from tests.integration.doctor.examined import examined
from tests.servers.pgbouncer import Era, pgbouncer_of, pgbouncer_server
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import proxy_before

from penstock.base_error import PenstockError
from penstock.doctor import check as checks
from penstock.doctor import examination as examinations
from penstock.doctor.checklist import CHECKS

OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'penstock doctor'"


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Texts that replace those of queries, by name."""
    replaced: dict[str, str] = {}
    text = checks._text
    monkeypatch.setattr(checks, "_text", lambda name: replaced.get(name) or text(name))
    return replaced


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            "CREATE TABLE t ()",
            "the server refused the query: cannot execute CREATE TABLE in a read-only transaction",
        ),
        ("SELECT pg_sleep(60)", "the query took longer than 0.5 s"),
        ("SELECT FROM busy", "a lock was not free within 0.1 s"),
        ("SELECT FROM missing", 'the server refused the query: relation "missing" does not exist'),
    ],
)
async def test_a_query_that_fails_is_skipped_and_the_others_run(
    tuned: PostgresServer, queries: dict[str, str], query: str, reason: str
) -> None:
    queries["tables"] = query
    tuned.execute("DROP TABLE IF EXISTS busy")
    tuned.execute("CREATE TABLE busy ()")
    with lock_of(tuned, "busy"):
        results = (await examined(tuned.url())).results

    for result in results:
        if result.check.query.name == "tables":
            assert result.skipped == reason
        else:
            assert reason != result.skipped
    assert sum(result.status == "ok" for result in results) > 60


@contextmanager
def lock_of(server: PostgresServer, table: str) -> Iterator[None]:
    """Lock a table against readers for a block."""
    with psycopg.connect(
        host=server.host, port=server.port, user=server.user, password=server.password
    ) as connection:
        connection.execute(f"LOCK TABLE {table}".encode())
        yield


async def test_no_query_is_begun_after_the_time_is_over(
    tuned: PostgresServer, queries: dict[str, str]
) -> None:
    queries.update(dict.fromkeys({c.query.name for c in CHECKS.values()}, "SELECT pg_sleep(60)"))

    examination = await examined(tuned.url())
    skipped = [result.skipped for result in examination.results]

    assert set(skipped) >= {
        "the query took longer than 0.5 s",
        "the 1.5 s for all checks were over",
    }
    # Three or four queries of half a second each are begun.
    slow = {
        result.check.query.name for result in examination.results if "took longer" in result.skipped
    }
    assert len(slow) <= 4


async def test_one_connection_is_opened_and_none_is_left(
    tuned: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0
    connected = examinations.connected

    def counted(settings: object) -> object:
        nonlocal opened
        opened += 1
        return connected(settings)  # type: ignore[arg-type]

    monkeypatch.setattr(examinations, "connected", counted)
    await examined(tuned.url())

    assert opened == 1
    await eventually(lambda: tuned.execute(OURS) == [(0,)])


async def test_a_server_that_falls_silent_is_not_waited_for(tuned: PostgresServer) -> None:
    async with proxy_before(tuned.host, tuned.port) as proxy:

        def silence(data: bytes, _is_answer: bool) -> tuple[bytes, bool]:
            if b"pg_stat_database_conflicts" in data or b"pg_stat_subscription_stats" in data:
                proxy.silence()
                return b"", True
            return data, True

        proxy.alter = silence
        async with asyncio.timeout(10):
            results = (await examined(proxy.url(tuned.url()))).results
        proxy.heal()

    lost = [result for result in results if "did not answer" in result.skipped]
    assert len(lost) > 50
    assert sum(result.status == "ok" for result in results) > 10


async def test_a_server_that_answers_nothing_is_an_error(tuned: PostgresServer) -> None:
    async with proxy_before(tuned.host, tuned.port) as proxy:

        def silence(data: bytes, _is_answer: bool) -> tuple[bytes, bool]:
            if b"BEGIN READ ONLY" in data:
                proxy.silence()
                return b"", True
            return data, True

        proxy.alter = silence
        async with asyncio.timeout(10):
            with pytest.raises(PenstockError, match="could not be examined: TimeoutError"):
                await examined(proxy.url(tuned.url()))
        proxy.heal()


@pytest.mark.parametrize("era", list(Era))
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_server_is_examined_through_a_pooler(
    tuned: PostgresServer, era: Era, mode: str
) -> None:
    with pgbouncer_server(tuned, binary=pgbouncer_of(era), pool_mode=mode) as pooler:
        through = (await examined(pooler.url(tuned.url()))).results
    directly = (await examined(tuned.url())).results

    assert {(each.check.id, each.status) for each in through} == {
        (each.check.id, each.status) for each in directly
    }
