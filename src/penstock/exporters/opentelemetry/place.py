"""Where a database is, in OpenTelemetry's attributes: never who connects, nor by which password."""

from sqlalchemy import URL

from penstock.engine.address import DEFAULT_PORTS, hosts_of
from penstock.exporters.opentelemetry import conventions as names

__all__ = ["attributes_of", "pool_name_of"]


def attributes_of(url: URL) -> dict[str, str | int]:
    """Return what every span of a database says of it.

    Args:
        url: As the engine has it.
    """
    system = url.get_backend_name()
    attributes: dict[str, str | int] = {names.SYSTEM: system}
    if url.database:
        attributes[names.NAMESPACE] = url.database
    if system in DEFAULT_PORTS:
        (address, port), *_ = hosts_of(url)
        attributes[names.SERVER_ADDRESS] = address
        if port is not None:  # which a socket of this machine has not
            attributes[names.SERVER_PORT] = port
    return attributes


def pool_name_of(attributes: dict[str, str | int]) -> str:
    """Return a pool's name as the conventions have it made: ``address:port/database``.

    Args:
        attributes: From :func:`attributes_of`.
    """
    address = attributes.get(names.SERVER_ADDRESS, attributes[names.SYSTEM])
    port = attributes.get(names.SERVER_PORT)
    database = attributes.get(names.NAMESPACE, "")
    return f"{address}{'' if port is None else f':{port}'}/{database}"
