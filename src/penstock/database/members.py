"""The servers of a database: for each an engine, and the express lane on it."""

from dataclasses import replace
from typing import Any

from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.cluster import Cluster
from penstock.cluster.cluster import ClusterPolicy
from penstock.cluster.discovery import Discovery, address
from penstock.cluster.member import Endpoint, Member
from penstock.cluster.monitor import Probe
from penstock.database.unit import SessionKinds, UnitFactory, reading_within
from penstock.drivers.capabilities import runs_express
from penstock.engine import (
    EngineOptions,
    ReadOnlyConnections,
    build_engine,
    credential_source,
    watch_for_standby,
)
from penstock.engine.address import hosts_of
from penstock.express import DriverLane, Lane, SqlalchemyLane
from penstock.pool import PenstockPool
from penstock.settings import DatabaseSettings, Environment, IsolationLevel
from penstock.telemetry import StatementWatch, Telemetry
from penstock.telemetry.statement_watch import watch_statements

TARGET = "target_session_attrs"
_PRIMARY = "primary"
_SNAPSHOTS = frozenset({IsolationLevel.REPEATABLE_READ.value, IsolationLevel.SERIALIZABLE.value})
"""Levels at which all statements of a transaction see the database at one moment."""


class Members:
    """Makes the servers of one database, which have its settings but for the place.

    Args:
        settings: Of the database.
        options: Of its engines.
        kinds: The classes of its sessions.
        telemetry: Where its statements are counted.

    Attributes:
        settings: Those of the database, whose URL leads to the server that writes, of several.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        options: EngineOptions,
        kinds: SessionKinds,
        telemetry: Telemetry,
    ) -> None:
        self.settings = of_primary(settings)
        self._options = replace(options, credentials=credential_source(settings, options))
        self._kinds = kinds
        self._telemetry = telemetry
        self._cluster: Cluster | None = None
        self._watch: StatementWatch | None = None
        if settings.telemetry or settings.slow_query is not None:
            self._watch = StatementWatch(settings.slow_query, telemetry)

    def engine(self) -> AsyncEngine:
        """Return the engine that writes."""
        accepts = self._accepts if self.settings.is_clustered else None
        engine = build_engine(self.settings, self._options, accepts=accepts)
        watch_for_standby(engine.sync_engine)
        return engine

    def units(self, engine: AsyncEngine) -> UnitFactory:
        """Return what makes units of work on an engine."""
        return UnitFactory(engine, self._kinds, self._telemetry, self.settings.pool_timeout)

    def lane(self, engine: AsyncEngine, read_only: ReadOnlyConnections) -> Lane:
        """Return the express lane on an engine, whose statements are counted from now on.

        Args:
            engine: Not connected yet.
            read_only: Whether its connections may be kept read-only.
        """
        if self._watch is not None:
            watch_statements(engine, self._watch)
        # By what is compiled once, options of the engine would be passed over.
        is_plain = not self._options.execution_options
        is_pooled = isinstance(engine.pool, PenstockPool)
        if not (is_pooled and is_plain and runs_express(engine.dialect)):
            return self.session_lane(self.units(engine), engine)
        lane = DriverLane(
            engine,
            read_only,
            self.settings.command_timeout,
            session_class=self._kinds.writing.sync_session_class,
            isolates=self._isolates,
            batches=self.settings.batch_reads,
        )
        lane.observer.watch = self._watch
        return lane

    def session_lane(self, units: UnitFactory, engine: AsyncEngine) -> SqlalchemyLane:
        """Return the express lane through sessions.

        Args:
            units: Make them.
            engine: Whose they are.
        """
        return SqlalchemyLane(
            units.reading,
            units.writing,
            reading_within,
            dialect=engine.dialect,
            isolates=self._isolates,
        )

    @property
    def _isolates(self) -> bool:
        level = self.settings.isolation_level
        set_by_name = self.settings.server_settings.get("default_transaction_isolation", "")
        return (level.value if level else set_by_name.upper()) in _SNAPSHOTS

    def cluster(
        self, primary: AsyncEngine, lane: Lane, read_only: ReadOnlyConnections
    ) -> Cluster | None:
        """Return the cluster of a primary; None where the settings tell of nothing but that.

        Args:
            primary: The engine that writes.
            lane: The express lane on it.
            read_only: Which knows whether a pooler stands between it and the server.
        """
        settings = self.settings
        if not settings.is_clustered and settings.position_key is None:
            return None
        hosts = hosts_of(make_url(settings.url.get_secret_value()))
        endpoint = Endpoint(_PRIMARY, settings.url, hosts=tuple(map(address, hosts)))
        self._cluster = Cluster(
            Member(endpoint, primary, lane),
            ClusterPolicy(
                max_lag=settings.replica_max_lag,
                wait=settings.replica_wait,
                primary_share=settings.replica_primary_share,
                interval=settings.replica_check_interval,
                pool_timeout=settings.pool_timeout,
                hold_writes=settings.hold_writes,
            ),
            is_direct=lambda: read_only.are_possible,
            make=self._replica,
            probe=self._probe,
            discover=Discovery(settings),
        )
        return self._cluster

    async def _accepts(self, connection: Any) -> bool:
        return self._cluster is None or await self._cluster.accepts(connection)

    def _replica(self, endpoint: Endpoint) -> Member:
        # Another server can read at once: nobody waits until a dead one is back.
        own = {"url": endpoint.url, "replicas": (), "hold_writes": 0.0}
        settings = self.settings.model_copy(update=own)
        engine = build_engine(settings, self._options)
        return Member(endpoint, engine, self.lane(engine, ReadOnlyConnections(engine, settings)))

    def _probe(self, endpoint: Endpoint) -> Probe:
        unpooled = {"url": endpoint.url, "environment": Environment.SERVERLESS, "echo": False}
        options = EngineOptions(credentials=self._options.credentials)
        settings = self.settings.model_copy(update=unpooled)
        accepts = self._accepts if endpoint.name == _PRIMARY and settings.is_clustered else None
        return Probe(build_engine(settings, options, accepts=accepts))


def of_primary(settings: DatabaseSettings) -> DatabaseSettings:
    """Return settings whose connections lead to the server that writes, of several.

    Args:
        settings: Where the URL says itself which of its servers is meant, it stays.
    """
    url = make_url(settings.url.get_secret_value())
    is_postgresql = settings.driver in ("asyncpg", "psycopg")
    if not (is_postgresql and settings.is_clustered) or TARGET in url.query:
        return settings
    text = url.update_query_pairs([(TARGET, "primary")]).render_as_string(hide_password=False)
    return settings.model_copy(update={"url": SecretStr(text)})
