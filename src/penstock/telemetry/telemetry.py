"""The telemetry of one database in one process: what writes it, and what reads it."""

import asyncio
import contextlib
import hashlib
import logging
import os
import time
import weakref
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.telemetry.layout import LEASES
from penstock.telemetry.leases import Leases, count_idle_in_transaction
from penstock.telemetry.reading import Reading
from penstock.telemetry.recorder import NOT_KNOWN, Recorder, ServerNumbers
from penstock.telemetry.worker_file import IS_POSSIBLE, WorkerFile
from penstock.telemetry.workers import Workers, group_directory, leave_nothing

if TYPE_CHECKING:
    from penstock.pool import PenstockPool

__all__ = ["Sampler", "Telemetry"]

HEARTBEAT_INTERVAL = 0.1
"""Seconds between two looks at how late the event loop is: what blocks it for longer is seen."""


class Sampler:
    """Takes a sample of the pool at each full second, so that those of all workers add up.

    Args:
        pool: Gives the pool of this moment, which ``engine.dispose()`` replaces.
        recorder: Where they go.
    """

    def __init__(self, pool: "Callable[[], PenstockPool]", recorder: Recorder) -> None:
        self._pool = pool
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        dialect = getattr(pool()._dialect, "name", "")  # noqa: SLF001 - the base class's
        self._leases = Leases(pool().policy.leak_after, is_mysql=dialect in ("mysql", "mariadb"))
        self._latest = 0.0
        self._second = int(time.time())
        """Of the newest sample. The clock may be set back: any other one is the next."""
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def is_at_work(self) -> bool:
        """Return whether its event loop may still run."""
        return not self._loop.is_closed()

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._due = self._loop.time() + HEARTBEAT_INTERVAL
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        self._latest = max(self._latest, self._loop.time() - self._due)
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self.sample(now)
        self._wait()

    def sample(self, now: float) -> None:
        """Take a sample.

        Args:
            now: Unix time.
        """
        pool = self._pool()
        ledger = pool.ledger
        monotonic = time.monotonic()
        oldest = next(iter(ledger.waiters.queue), None)
        waited = 0.0 if oldest is None else monotonic - oldest.arrived
        late, self._latest = self._latest, 0.0
        with contextlib.suppress(ValueError):  # the file is closed: the database is, too
            self._recorder.sample(
                pool.snapshot(), count_idle_in_transaction(ledger, monotonic), waited, late, now
            )
            self._recorder.leases(self._leases.look(ledger, monotonic, now, LEASES))


_logger = logging.getLogger("penstock.telemetry")

ASK_FIRST = 1.0
ASK_EVERY = 15.0
"""Seconds between two questions to the server; one of its workers asks."""
ANSWER_LASTS = 60.0
"""Seconds for which an answer counts where the next ones do not come, as from a busy pool."""


class Telemetry:
    """Counts what happens to one database, and says what all workers together have counted.

    Args:
        identity: What tells the database from others, without a secret; the workers of one service
            have the same.
        directory: The setting ``telemetry_dir``.

    Attributes:
        name: What the database is called where there are several; of the same one, those of
            another name are counted apart.
        ask_server: Asks the server for its own numbers; None where that cannot be done.
        probe: Opens a connection; None where none is kept. Without traffic nobody else finds out
            whether the server that has dropped the last one is there.
    """

    def __init__(self, identity: str, directory: Path | None = None) -> None:
        self.name = "default"
        self.ask_server: Callable[[], Awaitable[ServerNumbers | None]] | None = None
        self.probe: Callable[[], Awaitable[object]] | None = None
        self._identity = identity
        self._chosen = directory
        self._file: WorkerFile | None = None
        self._workers: Workers | None = None
        self._recorder: Recorder | None = None
        self._sampler: Sampler | None = None
        self._executor: asyncio.Task[None] | None = None
        self._pool: Callable[[], PenstockPool] | None = None

    @property
    def _key(self) -> str:
        named = f"{self.name} {self._identity}"
        return hashlib.sha256(named.encode()).hexdigest()[:12]

    @property
    def recorder(self) -> Recorder | None:
        """What counts; None while the database is closed, or where nothing is to be counted."""
        return self._recorder

    def committed(self, seconds: float) -> None:
        """Record a COMMIT that the server has answered."""
        if self._recorder is not None:
            self._recorder.committed(seconds)

    def slow(self, statement: str, route: str, seconds: float, rows: int) -> None:
        """Record a slow statement; as :class:`StatementSink` says, as the next."""
        if self._recorder is not None:
            self._recorder.slow(statement, route, seconds, rows)

    def repeated(self, statement: str, route: str, times: int) -> None:
        """Record a statement that one request ran again and again."""
        if self._recorder is not None:
            self._recorder.repeated(statement, route, times)

    def start(self, pool: "Callable[[], PenstockPool]") -> None:
        """Begin to count; where no file can be made, say so in the log and count nothing.

        Args:
            pool: Gives that of the database at this moment, on the running event loop.
        """
        if self._sampler is not None and self._sampler.is_at_work():
            return
        self.detach()  # of what began in an event loop that is over
        if not IS_POSSIBLE:
            _logger.info("No telemetry: this system has no locks that end with their process")
            return
        try:
            directory, self._file = self._make_file()
        except OSError as error:
            _logger.warning(
                "No telemetry: %s. Set telemetry_dir to a directory that this user alone can "
                "write to, or telemetry=false.",
                error,
            )
            return
        self._workers = Workers(directory, self._key)
        self._recorder = Recorder(self._file)
        _COUNTING.add(self)
        pool().listeners.measure_by(self._recorder)  # they go on to the pool that replaces it
        self._pool = pool
        self._sampler = Sampler(pool, self._recorder)
        self._sampler.sample(time.time())
        asking = self._ask(self._recorder, self._workers, self._file.path)
        self._executor = asyncio.get_running_loop().create_task(asking, name="penstock: server")

    def _make_file(self) -> tuple[Path, WorkerFile]:
        directory = group_directory(self._chosen)
        try:
            return directory, WorkerFile.create(directory, self._key)
        except FileNotFoundError:  # somebody was the last to leave it, and took it away
            directory = group_directory(self._chosen)
            return directory, WorkerFile.create(directory, self._key)

    def stop(self) -> None:
        """Count no more; what was counted goes on counting for the workers that remain."""
        file, workers = self._file, self._workers
        if file is not None and workers is not None:
            self.detach()
            self._clean_up(workers, file.path)

    def detach(self, *, is_own: bool = True) -> None:
        """Count no more, and leave the file as it is.

        Args:
            is_own: Whether its worker closes, and not one that it has forked.
        """
        if self._file is None:
            return
        if self._executor is not None:
            with contextlib.suppress(RuntimeError):  # its event loop has been closed
                self._executor.cancel()
        if self._sampler is not None:
            self._sampler.stop()
        if self._pool is not None:
            self._pool().listeners.measure_by(None)
        self._file.close(is_own=is_own)
        self._file = self._recorder = self._sampler = self._executor = self._pool = None

    def _clean_up(self, workers: Workers, own: Path) -> None:
        with contextlib.suppress(OSError):  # no reason for a service not to end as it should
            workers.add_up(only=own)
            workers.forget()
            if self._chosen is None:
                leave_nothing(own.parent)

    def read(self) -> Reading:
        """Return what all workers of this machine say; an empty reading while nothing counts."""
        if self._workers is None or self._file is None:
            return Reading(self.name, ())
        return self._workers.read(self.name)

    def _began_anew(self, path: Path) -> bool:
        # What is counted in a file that was deleted, nobody can read.
        if self._pool is None or path.exists():
            return False
        _logger.warning("%s was deleted: telemetry begins anew", path)
        pool = self._pool
        self.stop()
        self.start(pool)
        return True

    async def _probe(self, recorder: Recorder, *, is_first: bool) -> None:
        if not is_first or not recorder.is_cut_off or self.probe is None:
            return
        with contextlib.suppress(Exception):  # the pool has told the recorder
            await self.probe()

    async def _ask(self, recorder: Recorder, workers: Workers, own: Path) -> None:
        pause, heard_at = ASK_FIRST, -inf
        # In a thread, for they may be many.
        await asyncio.to_thread(workers.add_up)
        while True:
            await asyncio.sleep(pause)
            pause = ASK_EVERY
            if self._began_anew(own):
                return
            is_first, answer = False, None
            try:
                is_first = await asyncio.to_thread(workers.first) == own
                if is_first:
                    # Those of workers that were killed, of whose end nobody else hears.
                    await asyncio.to_thread(workers.add_up)
                if is_first and self.ask_server is not None:
                    answer = await self.ask_server()
            except Exception:
                _logger.warning("The server's numbers are not known", exc_info=True)
            await self._probe(recorder, is_first=is_first)
            now = time.monotonic()
            if answer is not None:
                recorder.server, heard_at = answer, now
            elif not is_first or now - heard_at > ANSWER_LASTS:
                recorder.server = NOT_KNOWN


# A process that was forked has its parent's file open, and so would keep it locked when that ends.
_COUNTING: "weakref.WeakSet[Telemetry]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    for telemetry in list(_COUNTING):
        telemetry.detach(is_own=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
