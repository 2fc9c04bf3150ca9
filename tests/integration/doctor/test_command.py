"""``penstock doctor`` as a person and as a script call it."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple, Self

import psycopg
import pytest
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer


class Run(NamedTuple):
    """How a call of the command ended."""

    status: int | None
    output: str
    errors: str


async def doctor(*arguments: str, answer: str = "", **environment: str) -> Run:
    """Call the command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock", "doctor", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", "PYTHONUTF8": "1", **environment},
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate(answer.encode())
    return Run(process.returncode, output.decode(), errors.decode())


def plain(url: str) -> str:
    return url.replace("+asyncpg", "")


@pytest.fixture
def url(tuned: PostgresServer) -> Iterator[str]:
    """An empty database on the tuned server, as the superuser."""
    with tuned.database() as url:
        yield plain(tuned.url(url.rpartition("/")[2]))


async def test_a_fine_server_is_0(url: str) -> None:
    run = await doctor(url, "--skip", "server-version")

    assert run.status == 0, run.output + run.errors
    assert run.output.startswith("penstock doctor  PostgreSQL 1")
    assert " 0 critical, 0 warning, " in run.output
    assert "skipped  replay-paused, " in run.output


async def test_a_warning_is_1_and_has_its_remedy_and_sql(url: str, tuned: PostgresServer) -> None:
    tuned.execute("GRANT CREATE ON SCHEMA public TO PUBLIC", url.rpartition("/")[2])

    run = await doctor(url, "--only", "public-schema")

    assert run.status == 1
    assert "warning  public-schema: Everybody may create objects in the schema" in run.output
    assert "do: A role can put a function or table there" in run.output
    assert "    REVOKE CREATE ON SCHEMA public FROM PUBLIC;" in run.output
    assert "1 check in " in run.output


async def test_a_critical_finding_is_2_and_json_has_all_of_it(
    url: str, tuned: PostgresServer
) -> None:
    database = url.rpartition("/")[2]
    tuned.execute("CREATE TABLE thing (id int)", database)
    tuned.execute("CREATE POLICY own ON thing USING (true)", database)

    run = await doctor("--json", DATABASE_URL=url, ENVIRONMENT="production")
    document = json.loads(run.output)
    results = {each["id"]: each for each in document["results"]}

    assert run.status == 2
    assert document["counts"]["critical"] >= 1
    assert document["seconds"] > 0
    assert results["policy-without-row-security"] == {
        "id": "policy-without-row-security",
        "title": "Row-level security",
        "status": "critical",
        "evidence": "1 table with policies and row-level security off: public.thing.",
        "remedy": "The policies do nothing.",
        "sql": ["ALTER TABLE public.thing ENABLE ROW LEVEL SECURITY;"],
    }
    assert results["replay-lag"]["reason"] == "only a replica can tell"
    assert results["deadlocks"]["status"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["postgresql://a:hunter2@127.0.0.1:1/b"], "opened no connection to database b"),
        (["sqlite:///a.db"], "examines PostgreSQL"),
        (["mysql+asyncmy://a:hunter2@h/b"], "examines PostgreSQL"),
        (["http://a:hunter2@h/b"], "examines PostgreSQL"),
        (["nonsense"], "examines PostgreSQL"),
        (["postgresql://h/b", "--only", "missing"], "There is no check missing"),
        (["postgresql://h/b", "--only", "pgbouncer-version"], "--pgbouncer names its console"),
        (["postgresql://h/b", "--end-idle", "10m"], "name --application"),
        (["postgresql://h/b", "--application", "x"], "--application belongs to --end-idle"),
        (["postgresql://h/b", "--yes"], "--yes belongs to --end-idle"),
        (["postgresql://h/b", "--end-idle", "10m", "--json"], "examines nothing"),
        (["--missing"], "--missing"),
        (["postgresql://h/b", "--only"], "--only"),
    ],
)
async def test_what_cannot_be_examined_is_3_without_a_password(
    arguments: list[str], message: str
) -> None:
    run = await doctor(*arguments)

    assert run.status == 3
    assert message in " ".join(run.errors.split())
    assert "hunter2" not in run.output + run.errors
    assert "sqlite" not in run.errors
    assert "Traceback" not in run.errors


async def test_a_pgbouncer_that_is_down_is_skipped_and_no_success(
    url: str, tuned: PostgresServer
) -> None:
    down = ("--pgbouncer", "postgresql://a:hunter2@127.0.0.1:1/pgbouncer")
    only = ("--only", "public-schema", "--only", "pgbouncer-version")
    fine = await doctor(url, *down, *only)
    tuned.execute("GRANT CREATE ON SCHEMA public TO PUBLIC", url.rpartition("/")[2])
    warned = await doctor(url, *down, *only, "--json")
    results = {each["id"]: each for each in json.loads(warned.output)["results"]}

    assert fine.status == 3
    assert "1 ok, 1 skipped" in fine.output
    assert "skipped  pgbouncer-version: PgBouncer's console cannot be reached" in fine.output
    assert warned.status == 1
    assert results["public-schema"]["status"] == "warning"
    assert "Connection refused. Is the server" in results["pgbouncer-version"]["reason"]
    assert "hunter2" not in fine.output + fine.errors + warned.output + warned.errors


async def test_declared_pools_are_held_against_what_is_there(
    url: str, tuned: PostgresServer
) -> None:
    declared = {
        "DATABASE_URL": url,
        "DATABASE_APPLICATION_NAME": "orders",
        "DATABASE_POOL_SIZE": "1",
        "DATABASE_MAX_OVERFLOW": "0",
        "WEB_CONCURRENCY": "2",
        "ENVIRONMENT": "production",
    }
    only = ("--declared", "--only", "declared-pool-exceeded", "--only", "declared-pool-too-large")
    fine = await doctor(*only, **declared)
    with several(url, "orders", 3):
        more = await doctor(*only, **declared)
    large = await doctor(*only, **{**declared, "DATABASE_POOL_SIZE": "100"})

    assert fine.status == 0, fine.output + fine.errors
    assert more.status == 1
    assert "orders has 3 connections open and its settings allow 2." in more.output
    assert large.status == 2
    said = " ".join(large.output.split())
    assert "orders may open 200 connections (1 x 2 x (100 pool_size + 0 max" in said
    assert "reserved and 0 that others have open" in said
    assert "%" not in said


class Sessions(list[psycopg.Connection]):
    """Connections that end with a block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for session in self:
            session.close()


def several(url: str, application: str, count: int) -> Sessions:
    """Open idle connections of an application."""
    return Sessions(
        psycopg.connect(url, application_name=application, autocommit=True) for _ in range(count)
    )


IDLE = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orders'"
LONG = (
    "SELECT count(*) >= {} FROM pg_stat_activity WHERE application_name IN ('orders', 'billing') "
    "AND clock_timestamp() - state_change > interval '1.1 s'"
)


async def test_idle_connections_of_the_named_application_alone_are_ended(
    url: str, tuned: PostgresServer
) -> None:
    end = (url, "--end-idle", "1s", "--application", "orders")
    with several(url, "orders", 2), several(url, "billing", 1) as others:
        with closing(psycopg.connect(url, application_name="orders")) as busy:
            busy.execute("SELECT 1")  # idle in transaction
            await eventually(lambda: tuned.execute(LONG.format(4)) == [(True,)])
            asked = await doctor(*end, answer="n\n")
            still = tuned.execute(IDLE)
            done = await doctor(*end, "--yes")
            await eventually(lambda: tuned.execute(IDLE) == [(1,)])
            busy.execute("SELECT 1")
        others[0].execute("SELECT 1")
        nothing = await doctor(*end, "--yes")

    assert "2 connections of orders idle for more than 1.0 s: pid " in asked.output
    assert "Nothing was ended." in asked.output
    assert still == [(3,)]
    assert "2 ended." in done.output
    assert "0 connections of orders" in nothing.output
    assert {asked.status, done.status, nothing.status} == {0}


@pytest.mark.parametrize("duration", ["10", "soon", "0s", "-1m", "0.5s"])
async def test_a_duration_that_is_none_is_refused(url: str, duration: str) -> None:
    run = await doctor(url, f"--end-idle={duration}", "--application", "orders")

    assert run.status == 3
    assert f"--end-idle {duration}: a duration" in run.errors


async def test_a_role_that_may_not_end_them_is_told(tuned: PostgresServer, url: str) -> None:
    with tuned.database() as other, several(url, "orders", 1):
        tuned.execute(f"GRANT pg_monitor TO {other.rpartition('/')[2]}")
        await eventually(lambda: tuned.execute(LONG.format(1)) == [(True,)])
        run = await doctor(plain(other), "--end-idle", "1s", "--application", "orders", "--yes")

    assert run.status == 3
    assert "The connections were not ended: permission denied" in run.errors
