"""Generated files of PgBouncer, in front of a real PostgreSQL, with a service behind them."""

import asyncio
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from tests.integration.provision.pooler import PROGRAMS, generated, role_on, service
from tests.servers.pgbouncer import PgbouncerServer
from tests.servers.postgres import PostgresServer

from penstock import Database, DatabaseSettings, query
from penstock.doctor import CHECKS, examine_pgbouncer
from penstock.errors import SettingsError
from penstock.provision import pgbouncer_files

OF_PGBOUNCER = [check for check in CHECKS.values() if check.query.of_pgbouncer]

NUMBER = query(select(text("1 AS number")))


async def use(database: Database) -> None:
    """Write, read and run the express lane, in more tasks than there are connections."""

    async def one(number: int) -> None:
        async with database.write() as session:
            await session.execute(text("INSERT INTO things VALUES (:n)"), {"n": number})
        async with database.read() as session:
            sql = text("SELECT count(*) FROM things WHERE n = :n")
            assert await session.scalar(sql, {"n": number}) == 1
        assert (await database.reader.one(NUMBER)).number == 1

    async with database.write() as session:
        await session.execute(text("CREATE TABLE things (n int)"))
    await asyncio.gather(*(one(number) for number in range(60)))


async def findings(pooler: PgbouncerServer) -> dict[str, str]:
    """What the doctor finds, with its severity, but for the version of this machine."""
    account = pooler.postgres
    url = f"postgresql://{account.user}:{account.password}@127.0.0.1:{pooler.port}/pgbouncer"
    results = await examine_pgbouncer(url, OF_PGBOUNCER)
    return {
        each.check.id: each.status
        for each in results
        if each.status not in {"ok", "skipped"} and each.check.id != "pgbouncer-version"
    }


@pytest.mark.parametrize(
    ("program", "mode", "cache"),
    [
        (program, mode, cache)
        for program in PROGRAMS
        for mode, cache in [("transaction", None), ("transaction", 100), ("session", None)]
        if (program, cache) != ("before-1.21", 100)  # which is refused
    ],
)
async def test_a_service_works_behind_it_and_the_doctor_is_content(
    program: str, mode: str, cache: int | None, postgres: PostgresServer
) -> None:
    fast: Any = {} if cache is None else {"statement_cache_size": cache}
    with role_on(postgres, "provisioned", "hunter2") as role:
        settings = DatabaseSettings.of(
            role.url,
            environment="production",
            workers=2,
            instances=2,
            server_settings={"search_path": "a, public", "app.tenant": "it's"},
            isolation_level="REPEATABLE READ",
            **fast,
        )
        with generated(role, postgres, PROGRAMS[program](), settings, pool_mode=mode) as (
            pooler,
            env,
        ):
            database = service(pooler, role, env)
            async with database:
                await use(database)
                async with database.read() as session:
                    in_force = [
                        await session.scalar(text(f"SHOW {name}"))
                        for name in ("search_path", "app.tenant", "transaction_isolation", "jit")
                    ]
            assert in_force == ["a, public", "it's", "repeatable read", "off"]
            told = {"pgbouncer-session-mode": "info"} if mode == "session" else {}
            assert await findings(pooler) == told
            assert len(pooler.admin("SHOW SERVERS")) <= 25
            assert differing(env.with_name("pgbouncer.ini"), pooler) == {}
            assert database.settings.max_overflow == 0


def differing(path: Path, pooler: PgbouncerServer) -> dict[str, tuple[str, object]]:
    """Settings of the file that are not in force."""
    file = RawConfigParser(delimiters="=")
    file.read(path)
    config = {row["key"]: row["value"] for row in pooler.admin("SHOW CONFIG")}
    return {
        name: (value, config[name])
        for name, value in file["pgbouncer"].items()
        if (config[name] or "") != value
    }


HOSTILE = [
    ('say "hi"', '""quoted"'),
    ("o'brien", "'; DROP ROLE postgres; --"),
    ("a b  c", " spaces "),
    ("100%include", "%include /etc/passwd %s"),
    ("back\\slash\\n", "\\n\\\\"),
    ("semi;colon", "; comment"),
    ("#[databases]", "# $HOME ${x} `id`"),
    ("a=b host=evil", "user=postgres"),
    ("*", "*"),
    ("-", "-"),
    ("$user", "line\nbreak\ttab"),
    ("größe.ß", "I\u00adX \u2168 \u00a0"),
    ("x" * 63, "p" * 500),
    (".", "SCRAM-SHA-256$4096:c2FsdA==$a:b"),
]


@pytest.mark.parametrize(
    ("name", "password", "version"),
    [(*each, "before-1.21") for each in HOSTILE] + [(*each, "since-1.26") for each in HOSTILE[::4]],
    ids=range(len(HOSTILE) + len(HOSTILE[::4])),
)
async def test_names_and_passwords_of_any_characters_come_through(
    name: str, password: str, version: str, postgres: PostgresServer
) -> None:
    database = "any" if name == "*" else name
    with role_on(postgres, name, password, database) as role:
        settings = DatabaseSettings.of(role.url, environment="production")
        with generated(role, postgres, PROGRAMS[version](), settings) as (pooler, env):
            async with service(pooler, role, env) as opened, opened.read() as session:
                row = await session.execute(text("SELECT current_user, current_database()"))
                assert tuple(row.one()) == (name, database)
            texts = [path.read_text() for path in env.parent.glob("*.*")]
            assert len(texts) >= 4
            assert not any(len(password) > 1 and password in each for each in texts)


@pytest.mark.parametrize(
    ("user", "database"),
    [
        ("a%0Ab", "app"),
        ("app", "a%09b"),
        ("x" * 64, "app"),
        ("app", "x" * 64),
        ("app", "pgbouncer"),
        ("app", "*"),
        ("app", ""),
    ],
)
def test_names_that_cannot_be_are_refused(user: str, database: str) -> None:
    settings = DatabaseSettings.of(f"postgresql://{user}:hunter2@db/{database}")

    with pytest.raises(SettingsError, match=r"^url: ") as refused:
        pgbouncer_files(settings)

    assert "hunter2" not in str(refused.value)
