"""Connections that cannot be opened: on each driver the same error, and never a password in it."""

import asyncio
import os
import secrets
import signal
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.integration.engine.engines import engine_on, scalar, with_driver, with_parts
from tests.servers.mariadb import MariadbServer
from tests.servers.parts import require_part
from tests.servers.postgres import PostgresServer, own_postgres, postgres_programs
from tests.servers.process import free_port

from penstock.engine import pool_snapshot
from penstock.errors import PenstockError, PoolTimeout
from penstock.pool import ConnectFailed, FailureReason
from penstock.pool.queue import RejectReason


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A listener whose kernel accepts connections, and on which nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def closing_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that is shutting down, and waits for a client that stays."""
    programs = postgres_programs()
    require_part("PostgreSQL", present=programs, remedy="set TEST_POSTGRES_BIN")
    assert programs is not None
    with own_postgres(programs) as server:
        assert server.directory is not None
        with psycopg.connect(server.url().replace("+asyncpg", "")):
            pid_file = server.directory / "data" / "postmaster.pid"
            os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGTERM)
            while server.answers():
                pass
            yield server


def on_port_of(listener: socket.socket, url: str) -> str:
    return with_parts(url, port=listener.getsockname()[1])


async def failure(url: str, **settings: Any) -> ConnectFailed:
    async with engine_on(url, **settings) as engine:
        with pytest.raises(ConnectFailed) as raised:
            async with asyncio.timeout(30):
                await scalar(engine, "SELECT 1")
        assert pool_snapshot(engine).checked_out == 0
    return raised.value


@asynccontextmanager
async def accepted(listener: socket.socket) -> AsyncIterator[asyncio.StreamReader]:
    async with asyncio.timeout(30):
        connected, _ = await asyncio.get_running_loop().sock_accept(listener)
        reader, writer = await asyncio.open_connection(sock=connected)
        yield reader
        writer.close()


async def test_a_server_that_does_not_answer_is_given_up_in_time(
    network_url: str, silent_server: socket.socket
) -> None:
    url = on_port_of(silent_server, network_url)
    failed = await failure(url, connect_timeout=0.5)
    assert failed.reason is FailureReason.TIMEOUT
    assert isinstance(failed.__cause__, TimeoutError)
    for part in (
        make_url(url).get_driver_name(),
        f"at 127.0.0.1:{make_url(url).port}",
        f"database {make_url(url).database}",
        "within connect_timeout=0.5 s",
        "pool_timeout is another limit",
    ):
        assert part in str(failed)


async def test_nothing_stays_connected_to_a_server_that_was_given_up(
    network_url: str, silent_server: socket.socket
) -> None:
    await failure(on_port_of(silent_server, network_url), connect_timeout=0.2)
    async with accepted(silent_server) as connected:
        await connected.read()


async def test_a_cancelled_request_leaves_no_half_open_connection(
    network_url: str, silent_server: socket.socket
) -> None:
    # On Python 3.11 asyncmy notices the cancellation only at the end of connect_timeout, if it
    # comes just as the server accepts (github.com/python/cpython/issues/86296).
    url = on_port_of(silent_server, network_url)
    async with engine_on(url, connect_timeout=1) as engine:
        asking = asyncio.create_task(scalar(engine, "SELECT 1"))
        async with accepted(silent_server) as connected:
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await connected.read()
        assert pool_snapshot(engine).checked_out == 0


async def test_a_refused_connection_is_unreachable(network_url: str) -> None:
    failed = await failure(with_parts(network_url, port=free_port()))
    assert failed.reason is FailureReason.UNREACHABLE
    assert "timeout" not in str(failed)


async def test_a_host_without_an_address_is_unreachable(network_url: str) -> None:
    failed = await failure(with_parts(network_url, host="nowhere.invalid"))
    assert failed.reason is FailureReason.UNREACHABLE
    assert "nowhere.invalid" in str(failed)


async def test_a_wrong_password_is_an_authentication_failure(network_url: str) -> None:
    failed = await failure(with_parts(network_url, password=secrets.token_hex(8)))
    assert failed.reason is FailureReason.AUTHENTICATION


async def test_an_unknown_user_is_an_authentication_failure(network_url: str) -> None:
    failed = await failure(with_parts(network_url, username="nobody-here"))
    assert failed.reason is FailureReason.AUTHENTICATION


async def test_an_unknown_database_is_named(network_url: str) -> None:
    failed = await failure(with_parts(network_url, database="not_there"))
    assert failed.reason is FailureReason.UNKNOWN_DATABASE
    assert "database not_there at" in str(failed)


async def test_a_full_postgresql_says_so(postgres: PostgresServer, postgresql_url: str) -> None:
    postgres.execute(f"ALTER ROLE {make_url(postgresql_url).username} CONNECTION LIMIT 1")
    async with engine_on(postgresql_url) as engine, engine.connect():
        failed = await failure(postgresql_url)
    assert failed.reason is FailureReason.TOO_MANY_CONNECTIONS


async def test_a_full_mariadb_says_so(mariadb: MariadbServer, mysql_url: str) -> None:
    user = f"user_{secrets.token_hex(4)}"
    mariadb.execute(f"CREATE USER {user} IDENTIFIED BY 'pw' WITH MAX_USER_CONNECTIONS 1")
    try:
        url = with_parts(mysql_url, username=user, password="pw", database="")
        async with engine_on(url) as engine, engine.connect():
            failed = await failure(url)
    finally:
        mariadb.execute(f"DROP USER {user}")
    assert failed.reason is FailureReason.TOO_MANY_CONNECTIONS


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_postgresql_that_is_not_ready_says_so(
    closing_postgres: PostgresServer, driver: str
) -> None:
    failed = await failure(with_driver(closing_postgres.url(), driver))
    assert failed.reason is FailureReason.NOT_READY
    assert "the database system is shutting down" in str(failed)


async def test_no_password_is_in_the_error_nor_in_its_causes(
    network_url: str, silent_server: socket.socket
) -> None:
    secret = "never-shown-4711-€"
    url = with_parts(network_url, password=secret)
    for wrong in (
        url,
        on_port_of(silent_server, url),
        with_parts(url, port=free_port()),
        with_parts(url, host="nowhere.invalid"),
        with_parts(url, database="not_there"),
    ):
        failed = await failure(wrong, connect_timeout=0.3)
        shown = "".join([repr(failed), *traceback.format_exception(failed)])
        assert "4711" not in shown
        assert secret[-1] not in shown


FAILURES = ["wrong password", "refused", "no address", "no answer", "no TLS", "no database"]


def failing(url: str, how: str, secret: str, silent: socket.socket) -> str:
    ways: dict[str, dict[str, object]] = {
        "wrong password": {},
        "refused": {"port": free_port()},
        "no address": {"host": "nowhere.invalid"},
        "no answer": {"port": silent.getsockname()[1]},
        "no TLS": {},
        "no database": {"database": "none"},
    }
    return with_parts(url, password=secret, **ways[how])


@pytest.mark.parametrize("environment", ["production", "serverless"])
@pytest.mark.parametrize("how", FAILURES)
async def test_no_password_is_in_a_local_variable_that_an_error_tracker_would_send(
    network_url: str, silent_server: socket.socket, how: str, environment: str
) -> None:
    secret = secrets.token_hex(8)
    url = failing(network_url, how, secret, silent_server)
    encrypted = {"tls": "require"} if how == "no TLS" else {}
    error = await failure(url, environment=environment, connect_timeout=0.5, **encrypted)

    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert _locals_with(secret, report) == []


def _locals_with(secret: str, report: traceback.TracebackException) -> list[str]:
    causes = [each for each in (report.__cause__, report.__context__) if each is not None]
    found = [
        f"{frame.filename}:{frame.lineno} {name}"
        for frame in report.stack
        if not frame.filename.startswith(str(Path(__file__).parent))
        for name, value in (frame.locals or {}).items()
        if secret in value
    ]
    return found + [place for cause in causes for place in _locals_with(secret, cause)]


async def test_only_what_took_too_long_reads_like_it(network_url: str) -> None:
    failed = await failure(with_parts(network_url, password=secrets.token_hex(8)))

    assert "timeout" not in str(failed)
    assert "within" not in str(failed)


async def test_the_drivers_own_error_is_the_cause(database_url: str) -> None:
    failed = await failure(with_parts(database_url, password="wrong"))
    assert type(failed.__cause__).__module__.startswith("asyncpg")
    assert isinstance(failed, PenstockError)
    assert isinstance(failed, SQLAlchemyError)


async def test_waiting_for_the_pool_is_another_error(network_url: str) -> None:
    limits = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1.0, "nested_checkout": "allow"}
    async with engine_on(network_url, **limits) as engine, engine.connect():
        with pytest.raises(PoolTimeout) as raised:
            await scalar(engine, "SELECT 1")
    assert isinstance(raised.value, SQLAlchemyTimeoutError)
    assert raised.value.phase is RejectReason.WAITING
    assert "connect_timeout" not in str(raised.value)
    assert not isinstance(raised.value, ConnectFailed)


async def answer_in_time(engine: AsyncEngine) -> object:
    """An answer as soon as a server that has refused is asked again."""
    async with asyncio.timeout(10):
        while True:
            with suppress(ConnectFailed):
                return await scalar(engine, "SELECT 1")
            await asyncio.sleep(0.01)


async def test_the_pool_connects_again_when_the_server_is_back(
    postgres: PostgresServer, postgresql_url: str
) -> None:
    role = make_url(postgresql_url).username
    postgres.execute(f"ALTER ROLE {role} NOLOGIN")
    async with engine_on(postgresql_url, pool_size=1, max_overflow=0) as engine:
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await scalar(engine, "SELECT 1")
        postgres.execute(f"ALTER ROLE {role} LOGIN")
        assert await answer_in_time(engine) == 1


async def test_a_ping_that_cannot_connect_anew_gives_the_place_in_the_pool_back(
    postgres: PostgresServer, postgresql_url: str
) -> None:
    role = make_url(postgresql_url).username
    async with engine_on(postgresql_url, pool_pre_ping=True) as engine:
        killed = await scalar(engine, "SELECT pg_backend_pid()")
        postgres.execute(f"ALTER ROLE {role} NOLOGIN")
        postgres.execute(f"SELECT pg_terminate_backend({killed}, 10000)")
        with pytest.raises(ConnectFailed):
            await scalar(engine, "SELECT 1")
        assert pool_snapshot(engine).checked_out == 0
