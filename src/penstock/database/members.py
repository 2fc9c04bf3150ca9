"""The servers of a database, each with its engine and its express lane."""

from collections.abc import Callable

from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock.cluster import Cluster
from penstock.cluster.cluster import ClusterPolicy
from penstock.cluster.discovery import Discovery
from penstock.cluster.member import Endpoint, Member
from penstock.cluster.monitor import Probe
from penstock.engine import EngineOptions, build_engine
from penstock.express import Lane
from penstock.settings import DatabaseSettings, Environment

PRIMARY = "target_session_attrs"


class Members:
    """Makes the servers of one database, with its settings but for the place.

    Args:
        settings: Of the database.
        options: Of its engine.
        lane: Makes the express lane of an engine.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        options: EngineOptions,
        lane: Callable[[AsyncEngine, DatabaseSettings], Lane],
    ) -> None:
        self._settings = settings
        self._options = options
        self._lane = lane

    def cluster(self, primary: AsyncEngine, lane: Lane) -> Cluster:
        """Return the cluster of a primary, which knows no replica before it is started.

        Args:
            primary: The engine that writes.
            lane: The express lane on it.
        """
        settings = self._settings
        return Cluster(
            Member(Endpoint("primary", settings.url), primary, lane),
            ClusterPolicy(
                max_lag=settings.replica_max_lag,
                wait=settings.replica_wait,
                primary_share=settings.replica_primary_share,
                interval=settings.replica_check_interval,
                pool_timeout=settings.pool_timeout,
            ),
            make=self.member,
            probe=self.probe,
            discover=Discovery(settings),
        )

    def member(self, endpoint: Endpoint) -> Member:
        """Return a replica, with a pool of its own.

        Args:
            endpoint: Where it is.
        """
        settings = self._settings.model_copy(update={"url": endpoint.url, "replicas": ()})
        engine = build_engine(settings, self._options)
        return Member(endpoint, engine, self._lane(engine, settings))

    def probe(self, endpoint: Endpoint) -> Probe:
        """Return the connection by which a server is asked for its position.

        Args:
            endpoint: Where it is.
        """
        unpooled = {"url": endpoint.url, "environment": Environment.SERVERLESS, "echo": False}
        return Probe(build_engine(self._settings.model_copy(update=unpooled)))


def of_primary(settings: DatabaseSettings) -> DatabaseSettings:
    """Return settings whose connections lead to the server that writes, of several hosts.

    Args:
        settings: Where the URL says itself which of its servers is meant, it stays.
    """
    url = make_url(settings.url.get_secret_value())
    is_of_several = bool(settings.replicas) or len(_hosts(url.query.get("host"))) > 1
    if settings.driver not in ("asyncpg", "psycopg") or PRIMARY in url.query or not is_of_several:
        return settings
    text = url.update_query_pairs([(PRIMARY, "primary")]).render_as_string(hide_password=False)
    return settings.model_copy(update={"url": SecretStr(text)})


def _hosts(named: str | tuple[str, ...] | None) -> list[str]:
    return named.split(",") if isinstance(named, str) else list(named or ())
