"""Generated files of PgBouncer, in front of a real PostgreSQL, with a service behind them."""

import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dotenv import dotenv_values
from sqlalchemy import select, text
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.parts import require_part
from tests.servers.pgbouncer import (
    Era,
    PgbouncerServer,
    configured_pgbouncer,
    newest_pgbouncer,
    pgbouncer_of,
    version_of,
)
from tests.servers.postgres import PostgresServer, own_postgres, postgres_programs
from tests.servers.process import ServerProcess, ServerStartError

from penstock import Database, DatabaseSettings, query
from penstock.doctor import CHECKS, examine_pgbouncer
from penstock.errors import ConnectFailed, SettingsError
from penstock.planner import ServerLimits
from penstock.provision import PgbouncerOptions, pgbouncer_files
from penstock.settings import settings_from_environment

PROGRAMS: dict[str, Callable[[], Path]] = {
    "before-1.21": lambda: pgbouncer_of(Era.BLIND),
    "since-1.21": lambda: pgbouncer_of(Era.FOLLOWING),
    "since-1.26": newest_pgbouncer,
}
OF_PGBOUNCER = [check for check in CHECKS.values() if check.query.of_pgbouncer]
LIMITS = ServerLimits(40, 3)


@dataclass(frozen=True)
class Role:
    """A role with a database of its own.

    Args:
        postgres: The server, with the role as the one that logs in.
        database: The database's name.
    """

    postgres: PostgresServer
    database: str

    @property
    def url(self) -> str:
        """Where the database is, without a pooler."""
        server = self.postgres
        login = f"{quote(server.user, safe='')}:{quote(server.password, safe='')}"
        return f"postgresql+asyncpg://{login}@{server.host}:{server.port}/{self.path}"

    @property
    def path(self) -> str:
        """The database's name as a URL has it."""
        return quote(self.database, safe="")


@contextmanager
def role_on(
    server: PostgresServer, name: str, password: str, database: str | None = None
) -> Iterator[Role]:
    """Make a role and a database of a name, of whatever characters, and drop them at the end."""
    role, base = (f'"{each.replace(chr(34), 2 * chr(34))}"' for each in (name, database or name))
    secret = password.replace("'", "''")
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{secret}'")
    server.execute(f"CREATE DATABASE {base} OWNER {role} STRATEGY file_copy")
    try:
        yield Role(replace(server, user=name, password=password), database or name)
    finally:
        server.execute(f"DROP DATABASE {base} WITH (FORCE)")
        server.execute(f"DROP ROLE {role}")


@contextmanager
def generated(
    role: Role,
    admin: PostgresServer,
    program: Path,
    settings: DatabaseSettings,
    certificates: Certificates | None = None,
    **options: Any,
) -> Iterator[tuple[PgbouncerServer, Path]]:
    """Run a PgBouncer of generated files; gives it and the settings of the service behind it."""
    version = version_of(program)
    directory = Path()

    def write(process: ServerProcess, port: int) -> Path:
        nonlocal directory
        directory = process.directory
        chosen = PgbouncerOptions(
            **{"version": version[:2], "server": LIMITS, "port": port, **options},
            directory=directory,
        )
        if certificates is not None:
            chosen = replace(
                chosen,
                tls_cert_file=directory / "server.pem",
                tls_key_file=directory / "server.key",
            )
            process.write("server.pem", certificates.certificate)
            process.write("server.key", certificates.key)
            process.write("authority.pem", certificates.authority.read_text())
        for file in pgbouncer_files(settings, chosen):
            # The settings' own file, where PgBouncer's account can read it.
            process.write(file.name, re.sub(r"/\S*/authority", f"{directory}/authority", file.text))
        _give_secret(admin, directory)
        return directory / "pgbouncer.ini"

    with configured_pgbouncer(role.postgres, binary=program, write=write) as pooler:
        yield pooler, directory / "service.env"


def _give_secret(admin: PostgresServer, directory: Path) -> None:
    subprocess.run(
        [
            *("psql", "--no-psqlrc", "--quiet", "--file=pgbouncer.sql"),
            f"postgresql://{admin.user}:{admin.password}@{admin.host}:{admin.port}/postgres",
        ],
        check=True,
        cwd=directory,
        capture_output=True,
    )


@contextmanager
def environment(file: Path) -> Iterator[None]:
    """The generated file as the service's environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dotenv_values(file).items():
            patch.setenv(name, str(value))
        patch.setenv("ENVIRONMENT", "production")
        yield


def service(pooler: PgbouncerServer, role: Role, env: Path, **tls: str) -> Database:
    """The service as it runs behind the pooler."""
    login = role.url.partition("@")[0]
    host = "localhost" if tls else "127.0.0.1"
    with environment(env), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", f"{login}@{host}:{pooler.port}/{role.path}")
        for name, value in tls.items():
            patch.setenv(name, value)
        return Database(settings_from_environment(env_file=None))


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
    """What the doctor finds that is more than information, but for the version of this machine."""
    account = pooler.postgres
    url = f"postgresql://{account.user}:{account.password}@127.0.0.1:{pooler.port}/pgbouncer"
    results = await examine_pgbouncer(url, OF_PGBOUNCER)
    return {
        each.check.id: str(each.observation)
        for each in results
        if each.status in ("warning", "critical") and each.check.id != "pgbouncer-version"
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
            assert await findings(pooler) == {}
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


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(certificates: Certificates) -> Iterator[PostgresServer]:
    """A server that has a certificate."""
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    files = {"server.pem": certificates.certificate, "server.key": certificates.key}
    settings = {"ssl": "on", "ssl_cert_file": "../server.pem", "ssl_key_file": "../server.key"}
    try:
        with own_postgres(programs, settings, files) as server:
            yield server
    except ServerStartError as error:
        if "SSL is not supported by this build" not in str(error):
            raise
        pytest.skip("this PostgreSQL was built without OpenSSL")


@pytest.mark.parametrize("version", ["before-1.21", "since-1.26"])
async def test_both_sides_are_encrypted_and_both_certificates_are_checked(
    version: str, encrypted: PostgresServer, certificates: Certificates
) -> None:
    with role_on(encrypted, "app", "hunter2") as role:
        # Not verify-full: the certificate is localhost's, which may be ::1 to PgBouncer.
        settings = DatabaseSettings.of(
            role.url,
            environment="production",
            tls="verify-ca",
            tls_ca_file=certificates.authority,
        )
        with generated(role, encrypted, PROGRAMS[version](), settings, certificates) as (
            pooler,
            env,
        ):
            trust = {
                "DATABASE_TLS": "verify-full",
                "DATABASE_TLS_CA_FILE": str(certificates.authority),
            }
            shown = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            async with service(pooler, role, env, **trust) as database, database.read() as session:
                assert await session.scalar(text(shown))


@pytest.mark.parametrize("version", ["before-1.21", "since-1.26"])
async def test_clients_have_to_encrypt_where_there_is_a_certificate(
    version: str, postgres: PostgresServer, certificates: Certificates
) -> None:
    with role_on(postgres, "app", "hunter2") as role:
        settings = DatabaseSettings.of(role.url, environment="production")
        with generated(role, postgres, PROGRAMS[version](), settings, certificates) as (
            pooler,
            env,
        ):
            trust = {
                "DATABASE_TLS": "verify-full",
                "DATABASE_TLS_CA_FILE": str(certificates.authority),
            }
            async with service(pooler, role, env, **trust) as database, database.read() as session:
                assert await session.scalar(select(1)) == 1
            with pytest.raises(ConnectFailed):
                await service(pooler, role, env, DATABASE_TLS="disable").open()
