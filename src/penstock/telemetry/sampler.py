"""The sampler: once a second, the pool's numbers and its leases go into the worker's file."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING, Any

from penstock.drivers.effects import Effect
from penstock.drivers.sql_text import shape
from penstock.pool.record import STATEMENT_KEY, Lease
from penstock.pool.slot import CHECKED_OUT, Slot
from penstock.telemetry.layout import LEASES
from penstock.telemetry.reading import NO_ROUTE, STATES, LeaseSample
from penstock.telemetry.recorder import Recorder, ReplicaNumbers
from penstock.telemetry.statement_watch import IDLE_IN_TRANSACTION_KEY

if TYPE_CHECKING:
    from penstock.pool import PenstockPool


IDLE_IN_TRANSACTION_AFTER = 5.0
"""Seconds without a statement after which a transaction counts as idle."""


def count_idle_in_transaction(slots: Iterable[Slot], now: float) -> int:
    """Return how many checked-out connections have been idle in transaction for 5 seconds.

    Args:
        slots: Slots of the pool's ledger.
        now: Monotonic time, in seconds.
    """
    return sum(slot.state is CHECKED_OUT and _is_idle_in_transaction(slot, now) for slot in slots)


def _is_idle_in_transaction(slot: Slot, now: float) -> bool:
    record = slot.content
    since = record.info.get(IDLE_IN_TRANSACTION_KEY, inf)
    # A time before the checkout is the previous holder's.
    if since < slot.checked_out_at or now - since < IDLE_IN_TRANSACTION_AFTER:
        return False
    return in_transaction(record)


def in_transaction(record: Any) -> bool:
    """Return whether the driver of a pool's connection knows of an open transaction on it."""
    connection = record.dbapi_connection
    if connection is None:
        return False
    try:
        is_open: bool = record.runtime.driver_of(connection).is_in_transaction(connection)
    except Exception:  # noqa: BLE001 - the connection is closed
        return False
    return is_open


_LONGEST_STATEMENT = 2_000
"""Characters of a statement that are read each second; its shape is cached."""


class Leases:
    """Samples the leases of one pool.

    Args:
        leak_after: The pool's setting, in seconds; None when it is off.
        is_mysql: Whether the statements are written for MySQL or MariaDB.
    """

    def __init__(self, leak_after: float | None, *, is_mysql: bool) -> None:
        self._leak_after = inf if leak_after is None else leak_after
        self._is_mysql = is_mysql

    def sample(
        self, slots: Iterable[Slot], monotonic: float, now: float, most: int
    ) -> list[LeaseSample]:
        """Return the oldest leases, the oldest first.

        Args:
            slots: Slots of the pool's ledger.
            monotonic: Time on the pool's clock, in seconds.
            now: The same moment as Unix time.
            most: Largest number of leases to return.
        """
        checked_out = sorted(
            (slot for slot in slots if slot.state is CHECKED_OUT),
            key=lambda slot: slot.checked_out_at,
        )
        return [self._lease(slot, monotonic, now) for slot in checked_out[:most]]

    def _lease(self, slot: Slot, monotonic: float, now: float) -> LeaseSample:
        age = monotonic - slot.checked_out_at
        record, route = slot.content, slot.route
        lasts = bool(record.trace.effects & Effect.LASTING)
        return LeaseSample(
            route=NO_ROUTE if route is None else _route_of(route),
            since=now - age,
            state=_state(slot),
            is_overdue=age >= self._leak_after and not lasts,
            statement=self._statement(slot),
        )

    def _statement(self, slot: Slot) -> str:
        # Without a recorded lease, the statement may be the previous holder's.
        statement = slot.content.info.get(STATEMENT_KEY) if isinstance(slot.lease, Lease) else None
        return shape(statement[:_LONGEST_STATEMENT], is_mysql=self._is_mysql) if statement else ""


def _route_of(route: Callable[[], str]) -> str:
    try:
        return route()
    except Exception:  # noqa: BLE001 - the application's code; it must not hide the other leases
        return NO_ROUTE


def _state(slot: Slot) -> str:
    info: dict[Any, Any] = slot.content.info
    if info.get(IDLE_IN_TRANSACTION_KEY) == inf:
        return STATES[0]
    return STATES[1] if in_transaction(slot.content) else STATES[2]


HEARTBEAT_INTERVAL = 0.1
"""Seconds between two measurements of the event loop's delay; a longer block is always seen."""


class Sampler:
    """Takes a sample of the pool at each full second, so that the samples of all workers add up.

    It begins at once, on the running event loop.

    Args:
        pool: Returns the current pool, which ``engine.dispose()`` replaces.
        recorder: Writes the samples.
        replicas: Returns what was counted of the replicas; None where there are none.
    """

    def __init__(
        self,
        pool: "Callable[[], PenstockPool]",
        recorder: Recorder,
        replicas: Callable[[], ReplicaNumbers] | None = None,
    ) -> None:
        self._pool = pool
        self._replicas = replicas
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        dialect = getattr(pool()._dialect, "name", "")  # noqa: SLF001 - the base class's
        self._leases = Leases(pool().policy.leak_after, is_mysql=dialect in ("mysql", "mariadb"))
        self._longest_delay = 0.0
        self._second = int(time.time())
        """Second of the newest sample. The clock may be set back: any other second is the next."""
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._schedule()

    def is_running(self) -> bool:
        """Return whether its event loop is still open."""
        return not self._loop.is_closed()

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._due = self._loop.time() + HEARTBEAT_INTERVAL
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        self._longest_delay = max(self._longest_delay, self._loop.time() - self._due)
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self.sample(now)
        self._schedule()

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
        delay, self._longest_delay = self._longest_delay, 0.0
        with contextlib.suppress(ValueError):  # the database, and with it the file, is closed
            if self._replicas is not None:
                self._recorder.replicas(self._replicas())
            self._recorder.sample(
                pool.snapshot(),
                count_idle_in_transaction(ledger, monotonic),
                waited,
                delay,
                now,
            )
            self._recorder.leases(self._leases.sample(ledger, monotonic, now, LEASES))
