"""The databases of a test run: a template that is migrated once, and a copy for each process."""

import asyncio
import fcntl
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import MetaData, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateSchema

from penstock.base_error import PenstockError
from penstock.demo.embedded_postgres import EmbeddedPostgres, PostgresUnavailable
from penstock.engine import build_engine
from penstock.settings import DatabaseSettings
from pytest_penstock import Run

_logger = logging.getLogger("pytest_penstock")
_T = TypeVar("_T")
_TEMPLATE = "template"
_STOP_SECONDS = 20.0
_LINES_SHOWN = 20
_UNSAFE_AND_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_held: list[int] = []
"""Descriptors that keep the run's own server running; closed with the process."""
_servers: list[EmbeddedPostgres] = []


_SERVER_HINT = (
    ". TEST_DATABASE_URL leads to a PostgreSQL itself, by a role with CREATEDB, to a database that "
    "exists; without it a server is started for the run."
)


class Unavailable(Exception):  # noqa: N818 - it says what happened
    """There is no test database; the message says why."""


def prepare(run: Run, metadata: MetaData | None, alembic: Path | None, variable: str) -> None:
    """Make this process's database; the first of a run's processes makes what it is copied from.

    Args:
        run: Of this process.
        metadata: The tables to create; None where Alembic makes them.
        alembic: Its configuration; None where it makes none.
        variable: The environment variable from which the migrations take their URL.

    Raises:
        Unavailable: It cannot be done.
    """
    with _alone(run):
        made = run.directory / "made"
        try:
            if not made.exists():
                made.write_text("failed")
                _make_template(run, metadata, alembic, variable)
                made.write_text("")
            elif made.read_text():
                raise Unavailable("There is no test database; another worker has the reason.")
            if run.server_url is None and not _held:
                _held.append(os.open(run.directory / "held", os.O_WRONLY | os.O_NONBLOCK))
            copy = f'CREATE DATABASE "{_name(run)}" TEMPLATE "{_name(run, _TEMPLATE)}"'
            _in_thread(_execute(_server_url(run), copy))
        except (OSError, PenstockError, SQLAlchemyError) as error:
            hint = "" if run.server_url is None else _SERVER_HINT
            raise Unavailable(f"There is no test database: {_reason(error)}{hint}") from error


def remove(run: Run) -> None:
    """Remove what all processes of a run have made.

    Args:
        run: Whose tests are over.
    """
    if run.server_url is None:
        _stop_server(run)
    elif (run.directory / "created").exists():
        try:
            _in_thread(_drop_all(run))
        except (OSError, PenstockError, SQLAlchemyError) as error:
            _logger.warning("Databases %s... are left: %s", run.prefix, _reason(error))
    shutil.rmtree(run.directory, ignore_errors=True)


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    run.directory.mkdir(mode=0o711, exist_ok=True)  # the server's account passes through
    with (run.directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_template(
    run: Run, metadata: MetaData | None, alembic: Path | None, variable: str
) -> None:
    if run.server_url is None:
        _start_server(run)
    _in_thread(_execute(_server_url(run), f'CREATE DATABASE "{_name(run, _TEMPLATE)}"'))
    (run.directory / "created").touch()
    if metadata is not None:
        _in_thread(_create_all(run.url(_TEMPLATE), metadata))
    elif alembic is not None:
        _migrate(run.url(_TEMPLATE), alembic, variable)


def _start_server(run: Run) -> None:
    # The server runs for as long as one process has this open for writing. The system closes it
    # for those that are killed.
    held = run.directory / "held"
    os.mkfifo(held, 0o600)
    reading = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    _held.append(os.open(held, os.O_WRONLY))
    os.set_blocking(reading, True)
    server = EmbeddedPostgres(
        directory=run.directory / "server", options=_UNSAFE_AND_FAST, until_closed=reading
    )
    _servers.append(server)
    try:
        _in_thread(server.start())
        if run.worker is not None:
            server.detach()
    except PostgresUnavailable as error:
        raise Unavailable(
            f"There is no test database: {error} Install penstock[testing], or set "
            "TEST_DATABASE_URL to the URL of a server where databases may be created."
        ) from error
    finally:
        os.close(reading)


def _stop_server(run: Run) -> None:
    while _held:
        os.close(_held.pop())
    while _servers:
        _in_thread(_servers.pop().stop())
    until = time.monotonic() + _STOP_SECONDS
    while (run.directory / "server/data").exists() and time.monotonic() < until:
        time.sleep(0.02)


def _migrate(url: str, alembic: Path, variable: str) -> None:
    if not alembic.is_file():
        raise Unavailable(f"There is no file {alembic} (penstock_alembic).")
    # In a process of its own: its env.py may run an event loop and set up logging.
    done = subprocess.run(  # noqa: S603 - by the project's own configuration
        [sys.executable, "-m", "pytest_penstock.migrate", alembic],
        cwd=alembic.parent,
        env={
            **os.environ,
            variable: url,
            "DATABASE_MIGRATIONS_URL": url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(
            f"The migrations of {alembic} failed:\n{done.stdout}{done.stderr}".rstrip()
        )
    if not _in_thread(_has_tables(url)):
        raise Unavailable(
            f"The migrations of {alembic} left the test database empty: its env.py takes a URL "
            f"that is neither sqlalchemy.url nor in the variable {variable} (penstock_variable)."
        )


def _server_url(run: Run) -> str:
    return run.server_url or run.url().replace(f"/{_name(run)}?", "/postgres?")


def _name(run: Run, database: str | None = None) -> str:
    return run.url(database).partition("?")[0].rpartition("/")[2]


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)


def _in_thread(work: Coroutine[Any, Any, _T]) -> _T:
    """Run work to its end, also where an event loop is running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _engine(url: str) -> AsyncEngine:
    return build_engine(DatabaseSettings.of(url, environment="serverless"))


async def _execute(url: str, *statements: str) -> None:
    engine = _engine(url)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def _create_all(url: str, metadata: MetaData) -> None:
    async with _engine(url).begin() as connection:
        for schema in {table.schema for table in metadata.tables.values() if table.schema}:
            await connection.execute(CreateSchema(schema, if_not_exists=True))
        await connection.run_sync(metadata.create_all)


async def _has_tables(url: str) -> bool:
    async with _engine(url).connect() as connection:
        return bool(await connection.scalar(_TABLES))


_TABLES = text(
    "SELECT count(*) FROM information_schema.tables "
    "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
)
_MADE = text("SELECT datname FROM pg_database WHERE starts_with(datname, :prefix)")


async def _drop_all(run: Run) -> None:
    async with _engine(_server_url(run)).connect() as connection:
        names = list(await connection.scalars(_MADE, {"prefix": run.prefix}))
    await _execute(_server_url(run), *(f'DROP DATABASE "{n}" WITH (FORCE)' for n in names))
