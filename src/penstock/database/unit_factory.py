"""Making units of work, and the blocks of one session each."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from penstock.database.connection_lock import NestedLock
from penstock.database.read_session import ReadOnlySession, reading_engine
from penstock.database.sessions import SessionKinds, WritingSession
from penstock.database.unit import UnitOfWork
from penstock.drivers.driver import BeginOptions
from penstock.pool.leak import OpenLease
from penstock.telemetry import Telemetry

MakeUnit = Callable[[BeginOptions], UnitOfWork]
"""Makes a unit of work, given how its transactions begin."""

_LEFT = "its async with block was left"
_ABANDONED = "its request was over, where its async with block was still open"


class UnitFactory:
    """Makes the units of work of one database.

    Args:
        engine: Where their sessions get connections.
        kinds: The classes of their sessions.
        telemetry: Told how many seconds each COMMIT took.
        lock_wait: Seconds that one statement waits for another on the same connection.

    Attributes:
        make: Makes a unit, given how its transactions begin; see :meth:`made_by`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        kinds: SessionKinds,
        telemetry: Telemetry,
        lock_wait: float,
    ) -> None:
        self._engine = engine
        self._reading = reading_engine(engine)
        self._kinds = kinds
        self._telemetry = telemetry
        self._lock_wait = lock_wait
        self.make: MakeUnit = self._on_pool

    def _on_pool(self, options: BeginOptions) -> UnitOfWork:
        return UnitOfWork(
            self._engine,
            self._reading,
            self._telemetry,
            options,
            self._lock_wait,
            kinds=self._kinds,
        )

    def nested_in(self, connection: AsyncConnection) -> MakeUnit:
        """Return what makes units within a connection's transaction, by savepoints.

        The units work one at a time, but for those that one has within it.

        Args:
            connection: Whose transaction it is.
        """
        lock = NestedLock(self._lock_wait)

        def make(options: BeginOptions) -> UnitOfWork:
            return UnitOfWork(
                connection, connection, options=options, kinds=self._kinds, nested=lock.within()
            )

        return make

    @contextmanager
    def made_by(self, make: MakeUnit | None) -> Iterator[None]:
        """Have all units made by ``make`` for the length of a block.

        Args:
            make: Called for each unit; None for units on the pool.
        """
        before, self.make = self.make, make or self._on_pool
        try:
            yield
        finally:
            self.make = before

    @asynccontextmanager
    async def writing(self, options: BeginOptions) -> AsyncIterator[WritingSession]:
        """Give the writing session of a new unit, which is committed when the block ends.

        Args:
            options: How its transactions begin.
        """
        unit = self.make(options)
        session = unit.writer
        session.block = OpenLease(partial(unit.end, _ABANDONED))
        try:
            yield session
            if session.is_over:
                session.refuse_if_ended()
            unit.check()
            await unit.commit()
        finally:
            if session.block.leave():
                await unit.end(_LEFT)

    @asynccontextmanager
    async def reading(self, options: BeginOptions) -> AsyncIterator[ReadOnlySession]:
        """Give the reading session of a new unit, which ends with the block.

        Args:
            options: How its transactions begin.
        """
        unit = self.make(options)
        session = unit.reader
        session.block = OpenLease(partial(unit.end, _ABANDONED))
        try:
            yield session
            unit.check()
        finally:
            if session.block.leave():
                await unit.end(_LEFT)


@asynccontextmanager
async def reading_within(
    connection: AsyncConnection, settings: tuple[tuple[str, str], ...]
) -> AsyncIterator[ReadOnlySession]:
    """Give a session that reads within a connection's transaction.

    Args:
        connection: Whose transaction it is.
        settings: Server settings that hold for what it reads.
    """
    unit = UnitOfWork(connection, connection, options=BeginOptions(settings=settings))
    try:
        yield unit.reader
    finally:
        await unit.end("its statement was over")
