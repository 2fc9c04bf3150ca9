"""The telemetry of one database in one process: its writer, and the reader of all workers."""

import asyncio
import contextlib
import hashlib
import logging
import os
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.telemetry.reading import PlannedLoad, Reading
from penstock.telemetry.recorder import NOT_KNOWN, Recorder, ReplicaNumbers, ServerNumbers
from penstock.telemetry.sampler import Sampler
from penstock.telemetry.worker_file import IS_POSSIBLE, WorkerFile
from penstock.telemetry.workers import Workers, group_directory, remove_group

if TYPE_CHECKING:
    from penstock.pool import PenstockPool


_logger = logging.getLogger("penstock.telemetry")

FIRST_QUERY_DELAY = 1.0
"""Seconds from the start to the first query for the server's numbers."""
QUERY_INTERVAL = 15.0
"""Seconds between two such queries; one of the workers sends them."""
SERVER_NUMBERS_LIFETIME = 60.0
"""Seconds for which the server's numbers are shown when later queries fail, as on a busy pool."""


class Telemetry:
    """Counts what happens to one database, and reads what all of its workers have counted.

    Args:
        identity: Tells the database from others, without a secret; the same in all workers of a
            service.
        directory: The setting ``telemetry_dir``.

    Attributes:
        recorder: Counts; None while the database is closed or telemetry is not available.
        name: The database's name in ``install``; the same database under another name is counted
            separately.
        ask_server: Queries the server for its own numbers; None when that is not possible.
        probe: Opens a connection; None when the pool keeps none. Without traffic nothing else
            finds out that a server that has closed every connection is back.
        replicas: Returns what was counted of the replicas; None where there are none.
        plan: What was planned; None without a plan.
    """

    def __init__(self, identity: str, directory: Path | None = None) -> None:
        self.recorder: Recorder | None = None
        self.name = "default"
        self.ask_server: Callable[[], Awaitable[ServerNumbers | None]] | None = None
        self.probe: Callable[[], Awaitable[object]] | None = None
        self.replicas: Callable[[], ReplicaNumbers] | None = None
        self.plan: PlannedLoad | None = None
        self._identity = identity
        self._chosen = directory
        self._file: WorkerFile | None = None
        self._workers: Workers | None = None
        self._sampler: Sampler | None = None
        self._server_task: asyncio.Task[None] | None = None
        self._pool: Callable[[], PenstockPool] | None = None

    @property
    def _key(self) -> str:
        named = f"{self.name} {self._identity}"
        return hashlib.sha256(named.encode()).hexdigest()[:12]

    def slow(self, statement: str, route: str, seconds: float, rows: int) -> None:
        """Record a statement that took longer than ``slow_query``.

        Args:
            statement: Its shape, without values.
            route: The route that ran it.
            seconds: Its duration.
            rows: Number of rows that it returned or changed.
        """
        if self.recorder is not None:
            self.recorder.slow(statement, route, seconds, rows)

    def repeated(self, statement: str, route: str, times: int) -> None:
        """Record a statement that one request ran many times.

        Args:
            statement: Its shape, without values.
            route: The request's route.
            times: How often the request ran it.
        """
        if self.recorder is not None:
            self.recorder.repeated(statement, route, times)

    def start(self, pool: "Callable[[], PenstockPool]") -> None:
        """Start counting; when no file can be created, log why and count nothing.

        Args:
            pool: Returns the current pool of the database, on the running event loop.
        """
        if self._sampler is not None and self._sampler.is_running():
            return
        self.detach()  # from an event loop that has ended
        if not IS_POSSIBLE:
            _logger.info("Telemetry is off: this system has no locks that end with their process")
            return
        try:
            directory, self._file = self._make_file()
        except OSError as error:
            _logger.warning(
                "Telemetry is off: %s. Set telemetry_dir to a directory that only this user can "
                "write to, or telemetry=false.",
                error,
            )
            return
        self._workers = Workers(directory, self._key)
        self.recorder = Recorder(self._file)
        _COUNTING.add(self)
        pool().listeners.measure_by(self.recorder)  # they move on to the pool that replaces it
        self._pool = pool
        self._sampler = Sampler(pool, self.recorder, self.replicas)
        self._sampler.sample(time.time())
        queries = self._query_server(self.recorder, self._workers, self._file.path)
        self._server_task = asyncio.get_running_loop().create_task(queries, name="penstock: server")

    def _make_file(self) -> tuple[Path, WorkerFile]:
        directory = group_directory(self._chosen)
        try:
            return directory, WorkerFile.create(directory, self._key)
        except FileNotFoundError:  # the last worker to leave it has removed it meanwhile
            directory = group_directory(self._chosen)
            return directory, WorkerFile.create(directory, self._key)

    def stop(self) -> None:
        """Stop counting; the remaining workers keep what was counted."""
        file, workers = self._file, self._workers
        if file is not None and workers is not None:
            self.detach()
            self._clean_up(workers, file.path)

    def detach(self, *, is_own: bool = True) -> None:
        """Stop counting, and leave the file as it is.

        Args:
            is_own: Whether the worker itself closes the file, and not a process forked from it.
        """
        if self._file is None:
            return
        if self._server_task is not None:
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                self._server_task.cancel()
        if self._sampler is not None:
            self._sampler.stop()
        if self._pool is not None:
            self._pool().listeners.measure_by(None)
        self._file.close(is_own=is_own)
        self._file = self.recorder = self._sampler = self._server_task = self._pool = None

    def _clean_up(self, workers: Workers, own: Path) -> None:
        with contextlib.suppress(OSError):  # it must not keep a service from shutting down
            workers.add_up(only=own)
            workers.forget()
            if self._chosen is None:
                remove_group(own.parent)

    def read(self) -> Reading:
        """Return what all workers of this machine report; an empty reading while not counting."""
        if self._workers is None or self._file is None:
            return Reading(self.name, ())
        return replace(self._workers.read(self.name), plan=self.plan)

    def _has_restarted(self, path: Path) -> bool:
        # No reader can see what is counted in a deleted file.
        if self._pool is None or path.exists():
            return False
        _logger.warning("%s was deleted; telemetry starts again from zero", path)
        pool = self._pool
        self.stop()
        self.start(pool)
        return True

    async def _probe(self, recorder: Recorder, *, is_first: bool) -> None:
        if not is_first or not recorder.is_cut_off or self.probe is None:
            return
        with contextlib.suppress(Exception):  # the pool reports it to the recorder
            await self.probe()

    async def _query_server(self, recorder: Recorder, workers: Workers, own: Path) -> None:
        delay, answered_at = FIRST_QUERY_DELAY, -inf
        # In a thread: there may be many files.
        await asyncio.to_thread(workers.add_up)
        while True:
            await asyncio.sleep(delay)
            delay = QUERY_INTERVAL
            if self._has_restarted(own):
                return
            is_first, answer = False, None
            try:
                is_first = await asyncio.to_thread(workers.first) == own
                if is_first:
                    # Nothing else notices the end of a worker that was killed.
                    await asyncio.to_thread(workers.add_up)
                if is_first and self.ask_server is not None:
                    answer = await self.ask_server()
            except Exception:
                _logger.warning("The server's numbers could not be read", exc_info=True)
            await self._probe(recorder, is_first=is_first)
            now = time.monotonic()
            if answer is not None:
                recorder.server, answered_at = answer, now
            elif not is_first or now - answered_at > SERVER_NUMBERS_LIFETIME:
                recorder.server = NOT_KNOWN


# A forked process inherits its parent's open file, and would keep it locked after the parent's end.
_COUNTING: "weakref.WeakSet[Telemetry]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    for telemetry in list(_COUNTING):
        telemetry.detach(is_own=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
