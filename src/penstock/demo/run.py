"""The demo from its first line to its last: database, users, service, load run, results."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from penstock.database import Database
from penstock.demo.figures import DemoFigures
from penstock.demo.interruption import Interruption
from penstock.demo.pool_watch import watch_pool
from penstock.demo.report import report
from penstock.demo.seed import seed
from penstock.demo.service import UsersService, listen
from penstock.demo.storage import Storage
from penstock.demo.storage_choice import open_storage
from penstock.demo.traffic import traffic
from penstock.demo.users import upgrade
from penstock.errors import PenstockError
from penstock.load import run_closed_loop

__all__ = ["Demo", "DemoOptions"]

_SEED = 29
_REQUEST_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a demo does.

    Args:
        port: Where to serve on the loopback interface; None for 8000 or any free port.
        workers: Processes that serve.
        users: Users at the beginning; at least 1.
        requests: Requests of the load run.
        clients: Requests under way at once.
        once: Whether to end after the load run.
        json: File for the figures; None for none.
    """

    port: int | None = None
    workers: int = 2
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
        storage = await open_storage(stack, directory, self._say)
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
            with self._progress("Inserting users", self._options.users) as on_progress:
                await seed(database, self._options.users, on_progress)
        return version

    async def _measure(
        self, service: UsersService, storage: Storage, server_version: str, start_seconds: float
    ) -> DemoFigures:
        options = self._options
        with self._progress("Sending requests", options.requests) as on_progress:
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

    @contextlib.contextmanager
    def _progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        with Progress(*columns, TimeElapsedColumn(), console=self._console) as progress:
            task = progress.add_task(what, total=total)
            yield lambda finished: progress.update(task, completed=finished)

    def _say(self, what: str | Table) -> None:
        self._console.print(what, markup=False, highlight=False, soft_wrap=isinstance(what, str))


def _worker_variables(storage: Storage, workers: int, directory: Path) -> Mapping[str, str]:
    """Return a worker's environment: ``/pool`` open to everybody, statements not logged."""
    return {
        **storage.variables,
        "ENVIRONMENT": "development",
        "DATABASE_ECHO": "false",
        "DATABASE_TELEMETRY_DIR": str(directory / "telemetry"),
        "DATABASE_WORKERS": str(workers),
    }
