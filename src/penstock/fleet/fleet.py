"""One process's place in the fleet: it looks at the others, and keeps its pool to its share."""

import asyncio
import logging
from contextvars import Context
from importlib.resources import files
from random import Random
from time import monotonic
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from penstock.base_error import PenstockError
from penstock.drivers.capabilities import driver_of
from penstock.fleet.division import FLOOR
from penstock.fleet.member import Member
from penstock.fleet.share import FleetSnapshot, Share
from penstock.fleet.view import Row, View
from penstock.pool import PenstockPool, PoolClosed
from penstock.pool.errors import ConnectFailed, FailureReason
from penstock.pool.record import Record
from penstock.settings import DatabaseSettings

_logger = logging.getLogger("penstock.fleet")
_LOOK = files("penstock.fleet").joinpath("look.sql").read_text()

LOOK_INTERVAL = 1.0
"""Seconds between two looks, a fifth more or less, so that the members do not look together."""
LOOK_TIMEOUT = 2.0
"""Seconds for the server to answer."""
RETRY_INTERVAL = 0.2
"""Seconds between two attempts to connect to a server that is full, half as many more or less."""


class Fleet:
    """Divides the server's connections with the other processes that do so, while it is joined.

    The members see each other by the names of their connections in ``pg_stat_activity``, which
    every role may read, and which end with the process however that ends. Each looks once a second,
    by a connection of its pool, and sets the pool's size to its :class:`Share`.

    Args:
        engine: With a :class:`PenstockPool`, on asyncpg or psycopg; not connected yet.
        settings: Its database's.
    """

    def __init__(self, engine: AsyncEngine, settings: DatabaseSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._random = Random()  # noqa: S311 - jitter, no secret
        self._share: Share | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_seen = False
        """Whether a look has succeeded since the member has joined."""
        self._is_blind = False
        """Whether the last look has failed."""
        event.listen(engine.sync_engine, "do_connect", self._name_connection)

    @property
    def is_joined(self) -> bool:
        """Whether the pool is kept to a share."""
        return self._share is not None

    def snapshot(self) -> FleetSnapshot | None:
        """Return the fleet as this member has seen it last; None while it is not joined."""
        return None if self._share is None else self._share.snapshot

    async def join(self) -> None:
        """Connect with the least share, look at the others, and go on looking until :meth:`leave`.

        While the server has no connection left, it tries again for ``pool_timeout``. Where the
        first look fails otherwise, the share stays the least until one succeeds. Where a pooler is
        in between, or something else names the connections, a warning says that the pool keeps its
        configured size.

        Raises:
            ConnectFailed: The server cannot be reached.
            PoolTimeout: The pool had no connection for the look.
            PoolClosed: The pool is closed.
        """
        if self._settings.poolers:
            self._refuse(f"proxy={', '.join(self._settings.poolers)!r} {_POOLS}")
            return
        self._share = Share(
            Member.new(self._settings.fleet_weight, self._configured),
            reserve=self._settings.connection_reserve,
            surge=self._settings.fleet_surge,
        )
        self._has_seen = self._is_blind = False
        self._resize(FLOOR)
        if self._pool.ledger.open:
            self._pool.evict_all()  # without the member's name
        try:
            await self._look_until_admitted()
        except BaseException:
            self.leave()
            raise
        if self.is_joined:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._watch(), name="penstock fleet", context=Context())

    def leave(self) -> None:
        """Look no more, and give the pool its configured size back."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._share is not None:
            self._share = None
            self._resize(self._configured)

    @property
    def _configured(self) -> int:
        return self._settings.pool_size + self._settings.max_overflow

    @property
    def _pool(self) -> PenstockPool:
        return PenstockPool.of(self._engine)  # another one after each dispose()

    def _resize(self, share: int) -> None:
        size = min(share, self._settings.pool_size)
        self._pool.resize(size, share - size)

    def _refuse(self, why: str) -> None:
        self.leave()
        _logger.warning(
            "fleet=True has no effect: %s The pool keeps its configured size, and the connections "
            "of workers and instances are checked at start (budget=%r).",
            why,
            self._settings.budget.value,
        )

    # Looking.

    async def _look_until_admitted(self) -> None:
        ends_at = monotonic() + self._settings.pool_timeout
        while True:
            try:
                return await self._refresh()
            except ConnectFailed as error:
                is_full = error.reason is FailureReason.TOO_MANY_CONNECTIONS
                if not is_full or monotonic() >= ends_at:
                    raise
            except PenstockError:
                raise
            except Exception as error:  # noqa: BLE001 - the server did not answer, or not as it should
                return self._lost_sight(error)
            await asyncio.sleep(RETRY_INTERVAL * self._random.uniform(0.5, 1.5))

    async def _watch(self) -> None:
        while self.is_joined:
            await asyncio.sleep(LOOK_INTERVAL * self._random.uniform(0.8, 1.2))
            try:
                await self._refresh()
            except PoolClosed:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the share stays
                self._lost_sight(error)

    def _lost_sight(self, error: Exception) -> None:
        if not self._is_blind:
            _logger.warning(
                "The fleet is not seen, and the share of %s connection(s) stays: %s: %s",
                self._share and self._share.snapshot.share,
                type(error).__name__,
                error,
            )
        self._is_blind = True

    async def _refresh(self) -> None:
        asked_at = monotonic()
        rows, process = await self._look()
        self._is_blind = False
        share = self._share
        if share is None:
            return
        if process is not None and process != rows[0][2]:
            self._refuse(f"a pooler stands between this service and PostgreSQL, which {_POOLS}")
            return
        view = View.of_rows(rows)
        if not self._has_seen and share.member not in view.connections:
            self._refuse("the server does not show connections by the name that they are given.")
            return
        self._has_seen = True
        before = share.snapshot
        share.update(view, asked_at, monotonic())
        if share.snapshot.share != self._pool.ledger.limit:
            self._resize(share.snapshot.share)
        if share.snapshot != before:
            _report(share.snapshot)

    async def _look(self) -> tuple[list[Row], int | None]:
        """Return the rows of ``look.sql``, and which process of the server the driver talks to.

        It waits for a connection in front of every other caller: under load it would be late or
        rejected just when others need its connections.
        """
        pool = self._pool
        checkout = pool.checkout(records_checkout=False, asked_at=monotonic())
        record: Record = checkout if isinstance(checkout, Record) else await checkout
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                found = await greenlet_spawn(_rows, record.dbapi_connection, self._engine.dialect)
        except BaseException as error:
            await greenlet_spawn(record.runtime.evict, record, error)
            raise
        pool.release(record)
        return found

    # Naming.

    def _name_connection(
        self, _dialect: Any, _entry: Any, _arguments: Any, options: dict[str, Any]
    ) -> None:
        # A copy of the driver's arguments, for this connect alone; asyncpg has the name further in.
        if self._share is None:
            return
        named = dict(options["server_settings"]) if "server_settings" in options else options
        named["application_name"] = self._share.member.name(named.get("application_name", ""))
        if named is not options:
            options["server_settings"] = named


def _report(snapshot: FleetSnapshot) -> None:
    _logger.info("This member's share of the fleet's budget: %s", snapshot)
    if snapshot.members > snapshot.budget:
        _logger.warning(
            "The fleet has %d members and a budget of %d connections, which is exceeded: each "
            "member has one. Raise max_connections, lower connection_reserve, or run fewer "
            "processes.",
            snapshot.members,
            snapshot.budget,
        )


_POOLS = "hands the server's connections around, so that they cannot be told apart."


def _rows(adapter: Any, dialect: Any) -> tuple[list[Row], int | None]:
    cursor = adapter.cursor()
    cursor.execute(_LOOK)
    rows = cursor.fetchall()
    cursor.close()
    adapter.rollback()
    return rows, driver_of(dialect).server_pid(adapter)
