"""The demo from its first line to its last: database, users, service, load run, results."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Self

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from penstock.base_error import PenstockError, SettingsError
from penstock.database import Database
from penstock.demo.embedded_postgres import EmbeddedPostgres, PostgresUnavailable
from penstock.demo.report import DemoFigures, report, watch_pool
from penstock.demo.service import UsersService, listen
from penstock.demo.storage import OwnSchema, Storage, sqlite_file
from penstock.demo.users import upgrade
from penstock.demo.users.model import Passwords, User
from penstock.load import Request, RequestKind, Scenario, progress, run_closed_loop

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Turns the first signal into the cancellation of one task; later signals do nothing.

    What is put away after that task cannot be interrupted: not by a second Ctrl-C, and not by a
    first one that comes when the task has ended already.

    Attributes:
        signal: The first signal; None while there was none.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._note, number)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    async def guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` until it ends or a signal comes; raise what it raises."""
        self._task = asyncio.create_task(work)
        await asyncio.wait([self._task])
        if not (self.signal and self._task.cancelled()):
            self._task.result()

    def _note(self, number: signal.Signals) -> None:
        if self.signal is None:
            self.signal = number
            if self._task is not None:
                self._task.cancel()


async def open_storage(
    stack: AsyncExitStack, directory: Path, say: Callable[[str], None], replicas: int = 0
) -> Storage:
    """Open a schema on the server of ``DATABASE_URL``, or else an own PostgreSQL, or else SQLite.

    Args:
        stack: Puts the database away when it closes; also if this fails or is cancelled.
        directory: Where an SQLite file may go.
        say: Tells a person which database it is, and why.
        replicas: How many the own PostgreSQL has.

    Raises:
        SettingsError: ``DATABASE_URL`` or a variable beside it is of no use, or forbids replicas.
        PenstockError: The server of ``DATABASE_URL`` cannot be reached or refuses.
    """
    if any(name.upper() == "DATABASE_URL" for name in os.environ):
        if replicas:
            raise SettingsError(
                f"--replicas {replicas}: only a PostgreSQL of the demo's own gets replicas; unset "
                "DATABASE_URL, or name those of its server in DATABASE_REPLICAS"
            )
        schema = OwnSchema()
        say("DATABASE_URL is set: using its server, in a schema of its own, dropped at the end")
        stack.push_async_callback(schema.stop)
        return await schema.start()
    say("Starting a PostgreSQL of its own in a temporary directory")
    server = EmbeddedPostgres()
    stack.push_async_callback(server.stop)
    try:
        storage = await server.start()
        return await _with_replicas(stack, server, storage, replicas) if replicas else storage
    except PostgresUnavailable as reason:
        say(f"The embedded PostgreSQL does not run on this machine. {reason}")
        say("Using SQLite in a temporary file instead: its figures say nothing about PostgreSQL")
        return sqlite_file(directory)


async def _with_replicas(
    stack: AsyncExitStack, primary: EmbeddedPostgres, storage: Storage, count: int
) -> Storage:
    servers = [EmbeddedPostgres(primary) for _ in range(count)]
    for server in servers:
        stack.push_async_callback(server.stop)
    started = [await server.start() for server in servers]
    variables = {
        **storage.variables,
        "DATABASE_REPLICAS": " ".join(each.variables["DATABASE_URL"] for each in started),
        "DATABASE_POSITION_KEY": secrets.token_hex(16),
    }
    kind = f"{storage.kind} with {count} replica{'' if count == 1 else 's'}"
    return replace(storage, kind=kind, variables=variables)


_ROWS_AT_ONCE = 1000


async def seed(database: Database, users: int, on_progress: Callable[[int], None]) -> None:
    """Insert users into an empty table, in one transaction.

    All have the hash of one random password that is not kept: thousands of hashes would take
    minutes.

    Args:
        database: Migrated.
        users: How many.
        on_progress: Called with the number of inserted users after each thousand.
    """
    hashed_password = await Passwords().hash(SecretStr(secrets.token_urlsafe()))
    async with database.write() as session:
        for first in range(1, users + 1, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE - 1, users)
            rows = [
                {
                    "email": f"user{number}@example.com",
                    "username": f"user{number}",
                    "hashed_password": hashed_password,
                }
                for number in range(first, last + 1)
            ]
            await session.execute(insert(User), rows)
            on_progress(last)


_PAGE = 20


def traffic(users: int) -> Scenario:
    """Return a mixture of mostly reads; creating is rare, because each one hashes a password.

    Args:
        users: How many there are, with the ids from 1 on.
    """

    def create(random: Random) -> Request:
        name = f"visitor-{random.getrandbits(64):016x}"
        password = f"{random.getrandbits(128):032x}"
        body = {"email": f"{name}@example.com", "username": name, "password": password}
        return Request("/users/", method="POST", json=body)

    def read_page(random: Random) -> Request:
        return Request(f"/users/?skip={random.randrange(users)}&limit={_PAGE}")

    def read_one(random: Random) -> Request:
        return Request(f"/users/{random.randint(1, users)}")

    def check_health(_: Random) -> Request:
        return Request("/health")

    return Scenario(
        (
            RequestKind("GET /users/{id}", 70, read_one),
            RequestKind("GET /users/", 17, read_page),
            RequestKind("POST /users/", 3, create),
            RequestKind("GET /health", 10, check_health),
        )
    )


_SEED = 29
_REQUEST_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a demo does.

    Args:
        port: Where to serve on the loopback interface; None for 8000 or any free port.
        workers: Processes that serve.
        replicas: Servers that the demo's own PostgreSQL is copied to, and reads go to.
        users: Users at the beginning; at least 1.
        requests: Requests of the load run.
        clients: Requests under way at once.
        once: Whether to end after the load run.
        json: File for the figures; None for none.
    """

    port: int | None = None
    workers: int = 2
    replicas: int = 0
    users: int = 10_000
    requests: int = 8_000
    clients: int = 16
    once: bool = False
    json: Path | None = None


class Demo:
    """One run, from nothing to nothing: what it starts and writes is gone at the end.

    Args:
        options: What to do.
        console: Where to tell about it.
    """

    def __init__(self, options: DemoOptions, console: Console) -> None:
        self._options = options
        self._console = console
        self._figures: DemoFigures | None = None
        self._begun = time.monotonic()

    async def run(self) -> int:
        """Run it until it is done, or until Ctrl-C, SIGTERM or SIGHUP.

        Returns:
            The exit status: 0 if every request of the load run succeeded, 1 if not, 128 and the
            signal's number if it was stopped before the results were there.

        Raises:
            PenstockError: It cannot be done; the message says why.
        """
        with Interruption() as interruption:
            async with AsyncExitStack() as stack:
                await interruption.guard(self._work(stack))
                self._say("Stopping")
            self._say("Stopped: no process and no file of the demo is left")
            if self._figures is None and interruption.signal is not None:
                return 128 + interruption.signal
            return int(self._figures is None or not self._figures.flawless)

    async def _work(self, stack: AsyncExitStack) -> None:
        options = self._options
        listener = stack.enter_context(listen(options.port))
        directory = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        storage = await open_storage(stack, directory, self._say, options.replicas)
        server_version = await self._fill(storage)
        service = UsersService(listener, directory)
        stack.push_async_callback(service.stop)
        await service.start(options.workers, _worker_variables(storage, options.workers, directory))
        start_seconds = time.monotonic() - self._begun
        self._say(f"Serving on {service.url} after {start_seconds:.1f} s")
        self._figures = await self._measure(service, storage, server_version, start_seconds)
        self._tell(self._figures)
        if not options.once:
            await self._stay(service)

    async def _fill(self, storage: Storage) -> str:
        """Migrate and insert the users; return the server's version."""
        # Only what the workers do is to be seen on the live page.
        async with Database(storage.settings.model_copy(update={"telemetry": False})) as database:
            dialect = database.engine.dialect
            version = ".".join(str(part) for part in dialect.server_version_info or ())
            self._say(f"{storage.kind} {version} is up; making the table of users by Alembic")
            await upgrade(database)
            with progress(self._console, "Inserting users", self._options.users) as on_progress:
                await seed(database, self._options.users, on_progress)
        return version

    async def _measure(
        self, service: UsersService, storage: Storage, server_version: str, start_seconds: float
    ) -> DemoFigures:
        options = self._options
        with progress(self._console, "Sending requests", options.requests) as on_progress:
            async with watch_pool(service.ask) as pool:
                load = await run_closed_loop(
                    service.url,
                    traffic(options.users),
                    random=Random(_SEED),  # noqa: S311 - the same requests in every run
                    clients=options.clients,
                    requests=options.requests,
                    request_timeout=_REQUEST_TIMEOUT,
                    on_progress=on_progress,
                )
        return DemoFigures(
            database=storage.kind,
            server_version=server_version,
            workers=options.workers,
            users=options.users,
            clients=options.clients,
            start_seconds=start_seconds,
            load=load,
            pool=pool,
        )

    def _tell(self, figures: DemoFigures) -> None:
        for part in report(figures):
            self._say(part)
        if self._options.json is not None:
            self._options.json.write_text(json.dumps(figures.as_json(), indent=2) + "\n")
            self._say(f"Figures written to {self._options.json}")

    async def _stay(self, service: UsersService) -> None:
        for path, what in (
            ("/docs", "try the routes"),
            ("/health", "is the database within reach"),
            ("/pool-stats", "the pool of the worker that answers"),
            ("/pool", "the live page: all workers' pools, second by second"),
        ):
            self._say(f"  {service.url}{path:<12} {what}")
        self._say("Open until Ctrl-C")
        await service.end()
        raise PenstockError("The users service has ended by itself.")

    def _say(self, what: str | Table) -> None:
        self._console.print(what, markup=False, highlight=False, soft_wrap=isinstance(what, str))


def _worker_variables(storage: Storage, workers: int, directory: Path) -> Mapping[str, str]:
    """Return a worker's environment: ``/pool`` open to all, statements not logged."""
    return {
        **storage.variables,
        "ENVIRONMENT": "development",
        "DATABASE_ECHO": "false",
        "DATABASE_TELEMETRY_DIR": str(directory / "telemetry"),
        "DATABASE_WORKERS": str(workers),
    }
