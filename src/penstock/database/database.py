"""The database as a service sees it: opened once, read and written many times."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack, cast

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from penstock.base_error import PenstockError, SettingsError
from penstock.cluster import Position, ReadPolicy, RoutedLane
from penstock.cluster.position import Reads
from penstock.context import (
    ContextSource,
    SessionContext,
    SettingValue,
    context_of,
    request_context,
)
from penstock.database.lifecycle import (
    Lifecycle,
    check_budget,
    finish,
    keep_state_of,
    ping,
    pool_of,
    server_numbers,
    settings_only,
    warn_of_unnamed_environment,
)
from penstock.database.members import Members
from penstock.database.nesting import kept_after_cancellation
from penstock.database.read_session import ReadOnlyAsyncSession
from penstock.database.unit import MakeUnit, SessionKinds, UnitOfWork
from penstock.database.write_session import record_failures
from penstock.deadlines import Deadline
from penstock.drivers.driver import NO_OPTIONS, BeginOptions
from penstock.engine import EngineKeywords, EngineOptions, ReadOnlyConnections, identity_of
from penstock.express import Lane, Reader, Writer
from penstock.findings import Finding
from penstock.fleet import Fleet
from penstock.pool import PenstockPool
from penstock.settings import (
    DatabaseSettings,
    SettingsKeywords,
    settings_from_environment,
)
from penstock.telemetry import Telemetry
from penstock.telemetry.rules import find

if TYPE_CHECKING:
    from penstock.planner import Plan


class DatabaseKeywords(SettingsKeywords, EngineKeywords, total=False):
    """What :meth:`Database.from_url` takes by name."""

    session_class: type[AsyncSession] | None


class Database:
    """One database: its pool of connections, and the sessions over it.

    A ``Database`` does nothing until it is opened or first used, so that it can be made at
    import time. :func:`penstock.fastapi.install` opens and closes it with the application;
    elsewhere, ``async with database:`` does. Opens are counted: see :meth:`open`.

    Args:
        settings: What to connect to and how; see :meth:`from_url`, :meth:`from_environment`.
        session_class: A subclass of ``AsyncSession`` that the sessions are; None for none.
        engine_options: What the engine is given in Python alone, such as a ``json_serializer``.

    Raises:
        PenstockError: ``session_class`` is something else.
        SettingsError: ``settings`` is something else, such as a URL.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        session_class: type[AsyncSession] | None = None,
        engine_options: EngineOptions | None = None,
    ) -> None:
        self.settings = settings = settings_only(settings)
        """What it connects to and how."""
        self.telemetry = Telemetry(identity_of(settings), settings.telemetry_dir)
        """What is counted, of all workers of this machine."""
        if settings.plan is not None:
            from penstock.database.planned import planned_load  # noqa: PLC0415 - most have no plan

            self.telemetry.plan = planned_load(settings)
        kinds = SessionKinds.of(session_class, autoflush=settings.autoflush)
        self._members = Members(settings, engine_options or EngineOptions(), kinds, self.telemetry)
        self._engine = self._members.engine()
        record_failures(self._engine.sync_engine)
        self._read_only_connections = ReadOnlyConnections(self._engine, settings)
        self.fleet = Fleet(self._engine, settings) if settings.fleet else None
        """What divides the server's connections among processes; None where ``fleet`` is off."""
        self._lifecycle = Lifecycle(self._start, self._stop)
        self._units = self._members.units(self._engine)
        if isinstance(self._engine.pool, PenstockPool):
            self.telemetry.probe = self.ping
        if settings.driver == "asyncpg" and isinstance(self._engine.pool, PenstockPool):
            self.telemetry.ask_server = lambda: server_numbers(
                self._engine, self._read_only_connections
            )
        self.lane = self._members.lane(self._engine, self._read_only_connections)
        self.cluster = self._units.cluster = self._members.cluster(
            self._engine, self.lane, self._read_only_connections
        )
        """The primary and its replicas; None where no setting tells of any."""
        if self.cluster is not None:
            self.lane = RoutedLane(self.cluster)
            self.telemetry.replicas = self.cluster.numbers
        self.context = ContextSource(self, settings.requires_context, self._engine.dialect.name)
        """Where the role and the settings of transactions come from, and which are required."""
        self.reader = Reader(self.lane, self.context)
        """The express lane for what only reads."""
        self.writer = Writer(self.lane, self.context)
        """The express lane for what writes."""

    @classmethod
    def from_url(cls, url: object, **keywords: Unpack[DatabaseKeywords]) -> Self:
        """Make a database from its URL.

        Args:
            url: Such as ``postgresql://user:password@host/name`` or ``sqlite:///file.db``; as text,
                a ``SecretStr``, or a URL object of SQLAlchemy's or Pydantic's.
            **keywords: Settings by their Python names, such as ``pool_size=10``; the arguments of
                :class:`penstock.engine.EngineOptions`, such as ``json_serializer=dumps``; and
                ``session_class``, a subclass of ``AsyncSession`` that the sessions are.

        Raises:
            SettingsError: A value is wrong; the message names it and what is accepted.
        """
        url = SecretStr(url) if isinstance(url, str) else url  # in no traceback with locals
        session_class = keywords.pop("session_class", None)
        options, settings = EngineOptions.among(keywords)
        return cls(
            DatabaseSettings.of(url, **settings),
            session_class=session_class,
            engine_options=options,
        )

    @classmethod
    def from_environment(
        cls,
        prefix: str = "DATABASE_",
        env_file: str | Path | None = ".env",
        *,
        environment: str | None = None,
        session_class: type[AsyncSession] | None = None,
        **options: Unpack[EngineKeywords],
    ) -> Self:
        """Make a database from environment variables.

        Args:
            prefix: What the variables begin with; a second database has another one.
            env_file: A file with variables that the environment itself lacks; None for none.
            environment: Whose profile applies, whatever ``ENVIRONMENT`` says; None to read that.
            session_class: A subclass of ``AsyncSession`` that the sessions are; None for none.
            **options: The arguments of :class:`penstock.engine.EngineOptions`.

        Raises:
            SettingsError: A variable is missing or wrong; the message names it.
        """
        engine_options, unknown = EngineOptions.among(options)
        if unknown:
            raise SettingsError(
                f"{', '.join(unknown)}: from_environment() reads settings from the environment; in "
                "Python they are given to from_url()"
            )
        return cls(
            settings_from_environment(prefix, env_file, environment=environment),
            session_class=session_class,
            engine_options=engine_options,
        )

    @property
    def engine(self) -> AsyncEngine:
        """SQLAlchemy's engine, for what this class has no method for."""
        return self._engine

    @property
    def pool(self) -> PenstockPool:
        """The connection pool: ``pool.snapshot()`` has its numbers, ``pool.resize()`` changes it.

        Raises:
            PenstockError: There is none, in ``serverless``.
        """
        return pool_of(self._engine, self.settings)

    def diagnose(self) -> list[Finding]:
        """Return what is wrong with the database's connections, the most severe first.

        Returns:
            What each rule finds in the telemetry of all workers of this machine, nothing where
            that is off; and whether the pool suits the pooler in between. ``docs/findings.md``
            explains each.
        """
        return find(self.telemetry.read(), self.pooler_findings)

    @property
    def pooler_findings(self) -> list[Finding]:
        """Whether the pool suits the pooler in between: one finding where it does not."""
        finding = self._read_only_connections.finding
        return [] if finding is None else [finding]

    def plan(self, **inputs: object) -> "Plan":
        """Return the sizes that a load needs, and what to expect; see ``docs/planning.md``.

        Args:
            **inputs: What :class:`penstock.planner.PlanInputs` has, such as ``rate=800`` and
                ``query_time="4ms"``; without these, what the telemetry of this service measures.

        Raises:
            SettingsError: An input is wrong or missing; the message says what is accepted.
        """
        from penstock.database.planned import plan_of  # noqa: PLC0415 - a service rarely plans

        return plan_of(self.settings, self.telemetry.read(), inputs)

    async def open(self) -> None:
        """Connect, check the connection budget against the server's limit, and fill ``min_idle``.

        Opens are counted: only the first does all that and starts telemetry; each needs a
        :meth:`close`. While the first is in progress others wait for its outcome, and where it
        fails, the next of them tries for itself. An open that fails or is cancelled does not count
        and leaves things as they were. In ``serverless`` each open connects, and none is counted.

        Raises:
            ConnectFailed: The server cannot be reached; the message says why.
            BudgetExceeded: The fleet may open too many connections, under ``budget="refuse"``.
            PoolInAnotherLoop: It is open, or its connections are in use, in another event loop.
        """
        if isinstance(self._engine.pool, PenstockPool):
            await self._lifecycle.open()
        else:
            await self._connect()

    async def close(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - a bound, for callers
        """Take one :meth:`open` back; the last stops checkouts and closes every connection.

        While an ``open`` is in progress, it waits for the outcome and takes that back. Without an
        ``open`` it closes what was connected by use alone. The database may be opened again.

        Args:
            timeout: Seconds to wait for what is checked out, before it is closed by force.

        Raises:
            PoolInAnotherLoop: It is open, or its connections are in use, in another event loop.
        """
        if isinstance(self._engine.pool, PenstockPool):
            await self._lifecycle.close(timeout)
        else:
            await self._engine.dispose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _start(self) -> None:
        pool = await self._bound_pool()
        found = pool.ledger.open
        warn_of_unnamed_environment(self.settings)
        try:
            if self.settings.telemetry:
                self.telemetry.start(lambda: self.pool)
            if self.fleet is not None:
                await self.fleet.join()
            await self._connect()
            await self.pool.prefill()
            if self.cluster is not None:
                await self.cluster.start()
        except BaseException:
            self.telemetry.stop()
            if self.cluster is not None:
                await finish(self.cluster.stop(0))
            if self.fleet is not None:
                self.fleet.leave()
            if not found:  # else they are in use by sessions of before
                await finish(self._engine.dispose())
            raise

    async def _stop(self, timeout: float) -> None:  # noqa: ASYNC109 - as close()
        pool = await self._bound_pool()
        try:
            if self.cluster is not None:
                await self.cluster.stop(timeout)
            await pool.drain(timeout)
        finally:
            self.telemetry.stop()
            if self.fleet is not None:
                self.fleet.leave()
            await finish(self._engine.dispose())

    async def _connect(self) -> None:
        async with self._engine.connect() as connection:
            if self.fleet is None or not self.fleet.is_joined:
                await check_budget(connection, self.settings)

    async def _bound_pool(self) -> PenstockPool:
        """Return the pool on the running event loop, without what belonged to one that has ended.

        Raises:
            PoolInAnotherLoop: It belongs to another that has not.
        """
        if self.pool.has_outlived_its_loop():
            await finish(self._engine.dispose())
        pool = self.pool
        pool.bind_to_loop()
        return pool

    async def ping(self, timeout: float = 2.0) -> None:  # noqa: ASYNC109 - a bound, for callers
        """Check out a connection and make one round trip.

        Args:
            timeout: Seconds for the whole of it, the wait for a connection included.

        Raises:
            TimeoutError: No answer came in time.
            PoolTimeout: No connection came free in time, or the pool rejected the checkout.
            ConnectFailed: There was no connection to be had.
            sqlalchemy.exc.SQLAlchemyError: The pool or the server refused.
        """
        await ping(self._engine, timeout)

    def unit(self, options: BeginOptions = NO_OPTIONS) -> UnitOfWork:
        """Make a unit of work, which the caller has to commit and end.

        What ``session_context`` of ``install`` says of a request holds for its transactions, also
        if they begin elsewhere than in the request.

        Args:
            options: How its transactions begin. Their settings take the place of the request's.
        """
        context = self.context
        if options.settings:
            context = context.overridden_by(SessionContext.of_pairs(options.settings))
            options = replace(options, settings=())
        unit = self._units.make(options)
        unit.context = context if request_context.get() is None else context.bound()
        return unit

    @contextmanager
    def sessions_from(self, make: MakeUnit | None) -> Iterator[None]:
        """Have every unit of work made by ``make`` for the length of a block.

        Args:
            make: Called for each unit with how its transactions begin; None for the database's
                own way, by its pool.
        """
        before = self.writer.lane
        lane: Lane = (
            self.lane if make is None else self._members.session_lane(self._units, self._engine)
        )
        self.reader.lane = self.writer.lane = lane
        try:
            with self._units.made_by(make):
                yield
        finally:
            self.reader.lane = self.writer.lane = before

    @contextmanager
    def sessions_on(self, connection: AsyncConnection) -> Iterator[None]:
        """Have every unit of work of a block work within a connection's transaction, by savepoints.

        They work one at a time, but for those that one has within it.

        Args:
            connection: Whose transaction it is.
        """
        assert connection.sync_connection is not None  # noqa: S101 - as it is open
        kept = kept_after_cancellation(connection.sync_connection)
        with kept, self.sessions_from(self._units.nested_in(connection)):
            yield

    @asynccontextmanager
    async def connection(self, *, keep_state: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection of SQLAlchemy's; what is not committed is rolled back at the end.

        Args:
            keep_state: Whether the connection is to be held for long and set up as one likes, with
                LISTEN, session settings or advisory locks: no leak is reported, and the connection
                is closed at the end. It counts towards the pool's limit.

        Raises:
            PenstockError: State is to be kept, and a pooler gives the server's session to others.
        """
        async with self._engine.connect() as connection:
            if keep_state:
                self._read_only_connections.check_keeps_state()
                await keep_state_of(connection)
            yield connection

    @asynccontextmanager
    async def write(
        self,
        *,
        isolation_level: str | None = None,
        role: str | None = None,
        settings: Mapping[str, SettingValue] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a bound of the database's work alone
    ) -> AsyncIterator[AsyncSession]:
        """A session that is committed when the block ends, and rolled back when it raises.

        Args:
            isolation_level: As SQLAlchemy spells it, such as ``SERIALIZABLE``; None for the
                server's default.
            role: The role of its transactions; None for that of the request, if it has one.
            settings: Server settings of its transactions, such as ``{"app.tenant": "7"}``, in
                place of those that the request has by the same name; see
                :class:`penstock.SessionContext`.
            timeout: Seconds from now on by which all of its work on the database has to be done,
                waits for a connection and the COMMIT included; None for no such bound.

        Raises:
            CommitOutcomeUnknown: The COMMIT was sent and its answer lost.
            ContextError: The role or a setting is refused, or the database is no PostgreSQL.
            ContextRequired: A setting is missing that ``requires_context`` declares.
            DeadlineExceeded: The time was up.
        """
        context = self.context.overridden_by(context_of(role, settings))
        options = BeginOptions(
            isolation=isolation_level,
            settings=await context.settings(),
            deadline=Deadline.after(timeout),
        )
        async with self._units.writing(options) as session:
            yield session

    @asynccontextmanager
    async def read(
        self,
        *,
        isolation_level: str | None = None,
        deferrable: bool = False,
        role: str | None = None,
        settings: Mapping[str, SettingValue] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        after: Position | str | None = None,
        policy: ReadPolicy | None = None,
    ) -> AsyncIterator[ReadOnlyAsyncSession]:
        """A session that can only read, in one transaction; the server refuses everything else.

        Args:
            isolation_level: As SQLAlchemy spells it; None for the server's default. At
                ``REPEATABLE READ`` all statements see the database as it was at the first of them.
            deferrable: Whether a ``SERIALIZABLE`` one waits at its begin until it cannot fail.
            role: The role of its transaction; None for that of the request, if it has one.
            settings: Server settings of its transaction, in place of those that the request has by
                the same name.
            timeout: Seconds from now on by which all of its reads have to be done; None for no such
                bound.
            after: A position that it has to see, as :meth:`position` has returned it, or its text;
                None for what the request, or the task, has written itself.
            policy: Which servers may read; None for what holds for the request.

        Raises:
            ContextError: The role or a setting is refused, or the database is no PostgreSQL.
            ContextRequired: A setting is missing that ``requires_context`` declares.
            DeadlineExceeded: The time was up.
            ReadOnlyError: An object that it loaded was changed, which nothing would save.
        """
        context = self.context.overridden_by(context_of(role, settings))
        options = BeginOptions(
            isolation=isolation_level,
            deferrable=deferrable,
            settings=await context.settings(),
            deadline=Deadline.after(timeout),
        )
        async with self._units.reading(options, self._reads(after, policy)) as session:
            yield cast("ReadOnlyAsyncSession", session)

    def _reads(self, after: Position | str | None, policy: ReadPolicy | None) -> Reads | None:
        if self.cluster is None or (after is None and policy is None):
            return None
        return self.cluster.reads(after, policy)

    async def position(self) -> Position:
        """Return how far the database has been written: all that was committed before this call.

        It is a value. Sent along with a job, it has :meth:`read` see there what was written here.

        Raises:
            ConnectFailed: The primary cannot be reached.
            PenstockError: Neither ``replicas`` nor ``position_key`` is set.
        """
        if self.cluster is None:
            raise PenstockError("position(): set replicas, or position_key, to have positions.")
        return await self.cluster.position()
