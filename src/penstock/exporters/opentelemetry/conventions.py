"""OpenTelemetry's names for what a database client tells, and what each of them means here.

As of the semantic conventions 1.44.0, https://opentelemetry.io/docs/specs/semconv/database/. Those
of spans are stable; those of connection pools are still in development.
"""

from sqlalchemy import URL

from penstock.engine.connector import DEFAULT_PORTS, hosts_of

__all__ = ["attributes_of", "pool_name_of"]

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

# Of spans.
COLLECTION = "db.collection.name"
NAMESPACE = "db.namespace"
OPERATION = "db.operation.name"
BATCH_SIZE = "db.operation.batch.size"
QUERY_SUMMARY = "db.query.summary"
QUERY_TEXT = "db.query.text"
RETURNED_ROWS = "db.response.returned_rows"
STATUS_CODE = "db.response.status_code"
SYSTEM = "db.system.name"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
EXCEPTION = "exception"
EXCEPTION_TYPE = "exception.type"
EXCEPTION_STACKTRACE = "exception.stacktrace"

# Of the pool; the names of its metrics are in the telemetry's schema.
POOL_NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
IDLE_MIN = "db.client.connection.idle.min"

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
"""Upper bounds in seconds, which the conventions have for ``db.client.operation.duration``; they
advise none for the times of a pool."""


def attributes_of(url: URL) -> dict[str, str | int]:
    """Return what every span of a database says of it.

    Args:
        url: As the engine has it.
    """
    system = url.get_backend_name()
    attributes: dict[str, str | int] = {SYSTEM: system}
    if url.database:
        attributes[NAMESPACE] = url.database
    if system in DEFAULT_PORTS:
        (address, port), *_ = hosts_of(url)
        attributes[SERVER_ADDRESS] = address
        if port is not None:  # which a socket of this machine has not
            attributes[SERVER_PORT] = port
    return attributes


def pool_name_of(attributes: dict[str, str | int]) -> str:
    """Return a pool's name as the conventions have it made: ``address:port/database``.

    Args:
        attributes: From :func:`attributes_of`.
    """
    address = attributes.get(SERVER_ADDRESS, attributes[SYSTEM])
    port = attributes.get(SERVER_PORT)
    database = attributes.get(NAMESPACE, "")
    return f"{address}{'' if port is None else f':{port}'}/{database}"
