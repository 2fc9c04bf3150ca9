"""Each state, brought about on a real server, is found by its check, and by no other reason."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest
from tests.eventually import eventually
from tests.integration.doctor.examined import examined, found
from tests.integration.doctor.provocations import (
    NOT_CURED,
    ON_A_CLUSTER,
    PROVOCATIONS,
    WITH_TLS,
    WRONG_SETTINGS,
    Provocation,
    Statements,
    WrongSetting,
)
from tests.servers.postgres import PostgresServer
from tests.unit.doctor.test_rules import CASES

from penstock.doctor import CHECKS, Examination, Result
from penstock.findings import Severity


@pytest.mark.parametrize("provocation", PROVOCATIONS, ids=str)
async def test_a_provoked_state_is_found_and_cured_by_its_sql(
    provocation: Provocation, provoked: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value in provocation.limits.items():
        monkeypatch.setattr(f"penstock.doctor.checks.{limit}", value)
    with provoked.database() as url:
        database = url.rpartition("/")[2]
        needs = max(provocation.since, CHECKS[provocation.check].query.since)
        if int(str(provoked.execute("SHOW server_version_num")[0][0])) < needs * 10000:
            pytest.skip(f"only PostgreSQL {needs} tells")
        try:
            with open_sessions(provoked, database, provocation):
                if provocation.until:
                    await eventually(
                        lambda: provoked.execute(provocation.until, database) == [(True,)]
                    )
                result = await found(provoked.url(database), provocation.check)
                if result.observation and provocation.check not in NOT_CURED:
                    await cure(provoked, database, result)
        finally:
            run(provoked, provocation.undo, database)

    assert result.status == provocation.severity, result.skipped
    assert result.observation is not None
    assert provocation.evidence in result.observation.evidence
    assert result.observation.remedy.endswith((".", ")"))


async def cure(server: PostgresServer, database: str, result: Result) -> None:
    """Run the SQL of a finding as somebody with another search_path does, and look again."""
    assert result.observation is not None
    if not result.observation.sql:
        return
    there = "collated" if result.check.id == "collation-version" else database
    run(server, ("SET search_path = information_schema", *result.observation.sql), there)
    for _ in range(50):
        again = await found(server.url(database), result.check.id)
        if again.status == "ok":
            break
        await asyncio.sleep(0.05)
    assert again.status == "ok", again.observation


@contextmanager
def open_sessions(
    server: PostgresServer, database: str, provocation: Provocation
) -> Iterator[None]:
    """Bring a provocation about; its sessions end with the block."""
    run(server, provocation.sql, database)
    with ExitStack() as stack:
        for statements in provocation.sessions:
            connection = connect(server, database)
            stack.callback(connection.close)
            for statement in statements:
                if statement.startswith(">"):
                    connection.pgconn.send_query(statement[1:].encode())
                    connection.pgconn.flush()
                elif statement == "~":
                    with socket.socket(fileno=os.dup(connection.fileno())) as cut:
                        cut.shutdown(socket.SHUT_RDWR)
                else:
                    connection.execute(statement.encode())
        yield


def connect(server: PostgresServer, database: str) -> psycopg.Connection:
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=database,
        autocommit=True,
    )


def run(server: PostgresServer, statements: Statements, database: str) -> None:
    """Run statements one after the other; one that begins with ``!`` is to fail, ``?`` may."""
    with connect(server, database) as connection:
        for statement in statements:
            text = statement.replace("{database}", database)
            if text.startswith("?"):
                with suppress(psycopg.Error):
                    connection.execute(text[1:].encode())
            elif text.startswith("!"):
                with pytest.raises(psycopg.Error):
                    connection.execute(text[1:].encode())
            else:
                connection.execute(text.encode())


OF_ANY_SCOPE = {
    "synchronous-commit-off",
    "random-page-cost",
    "effective-io-concurrency",
    "maintenance-work-mem",
    "work-mem",
    "statistics-target",
    "password-encryption",
    "damage-ignored",
    "planner-switches",
    "effective-cache-size",
}


@pytest.mark.parametrize(
    "scope",
    ["DATABASE {database}", "ROLE ALL", "ROLE {user}", "ROLE {user} IN DATABASE {database}", ""],
)
async def test_a_wrong_setting_is_cured_where_it_is_set(
    scope: str, provoked: PostgresServer
) -> None:
    wrong = {each.name: each.value or "4" for each in WRONG_SETTINGS if each.check in OF_ANY_SCOPE}
    with provoked.database() as url:
        database = url.rpartition("/")[2]
        place = scope.format(database=database, user=provoked.user)
        if place:
            change(provoked, [f"ALTER {place} SET {k} = '{v}'" for k, v in wrong.items()])
        else:
            # In the file, which ALTER SYSTEM RESET leaves as it is.
            wrong = {"zero_damaged_pages": "on", "enable_seqscan": "off"}
            add_to_file(provoked, wrong)
        try:
            await seen(provoked, "SHOW enable_seqscan", "off", database)
            before = await findings(provoked.url(database))
            change(provoked, [sql for result in before for sql in sql_of(result)], database)
            await seen(provoked, "SHOW enable_seqscan", "on", database)
            after = await findings(provoked.url(database))
        finally:
            provoked.execute(f"ALTER {place} RESET ALL" if place else "ALTER SYSTEM RESET ALL")

    assert {each.check.id for each in before} == (
        OF_ANY_SCOPE if place else {"damage-ignored", "planner-switches"}
    )
    assert after == []


async def findings(url: str) -> list[Result]:
    results = (await examined(url, *sorted(OF_ANY_SCOPE))).results
    return [each for each in results if each.observation]


def sql_of(result: Result) -> tuple[str, ...]:
    return result.observation.sql if result.observation else ()


def change(server: PostgresServer, statements: list[str], database: str = "postgres") -> None:
    run(server, tuple(statements), database)


def add_to_file(server: PostgresServer, settings: dict[str, str]) -> None:
    assert server.directory is not None
    with (server.directory / "data" / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    server.execute("SELECT pg_reload_conf()")


async def seen(server: PostgresServer, statement: str, value: str, database: str) -> None:
    await eventually(lambda: server.execute(statement, database) == [(value,)])


@pytest.fixture(scope="module")
def untuned_examination(untuned: PostgresServer) -> Examination:
    """What is found on the server with bad settings, after it has written a lot."""
    untuned.execute("CREATE TABLE t AS SELECT repeat('x', 500) FROM generate_series(1, 50000)")
    return asyncio.run(examined(untuned.url()))


@pytest.mark.parametrize("wrong", WRONG_SETTINGS, ids=str)
def test_a_wrong_setting_is_found(wrong: WrongSetting, untuned_examination: Examination) -> None:
    (result,) = (each for each in untuned_examination.results if each.check.id == wrong.check)

    assert result.status == wrong.severity, result.skipped
    assert result.observation is not None
    assert wrong.name in result.observation.evidence


def test_full_buffers_of_the_log_are_found(untuned_examination: Examination) -> None:
    (result,) = (each for each in untuned_examination.results if each.check.id == "wal-buffers")

    assert result.status == Severity.INFO
    assert result.observation is not None
    assert "found its buffers full (wal_buffers 32kB)" in result.observation.evidence


def test_each_check_of_a_server_is_provoked_or_judged_on_rows() -> None:
    provoked = {each.check for each in PROVOCATIONS} | {each.check for each in WRONG_SETTINGS}
    elsewhere = ON_A_CLUSTER | WITH_TLS | {"wal-buffers"}
    on_rows = {case[0] for case in CASES} | {"huge-pages"}
    of_server = {check.id for check in CHECKS.values() if not check.query.of_pgbouncer}

    assert of_server == provoked | elsewhere | on_rows
    assert len(provoked | elsewhere) >= 80
