"""Where a database is, in OpenTelemetry's attributes: never who connects, nor by which password."""

import re

from sqlalchemy import URL

from penstock.exporters.opentelemetry import conventions as names

__all__ = ["attributes_of", "pool_name_of"]

_WITH_PORT = re.compile(r"([^:/]+):(\d+)")
"""How the query of a URL names one of several hosts."""
DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


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
        address, port = _address(url)
        attributes[names.SERVER_ADDRESS] = address
        if not address.startswith("/"):  # a socket of this machine
            attributes[names.SERVER_PORT] = port or DEFAULT_PORTS[system]
    return attributes


def _address(url: URL) -> tuple[str, int | None]:
    if url.host:
        return url.host, url.port
    named = url.query.get("host") or url.query.get("unix_socket") or "localhost"
    first = named if isinstance(named, str) else named[0]
    with_port = _WITH_PORT.fullmatch(first)
    return (with_port[1], int(with_port[2])) if with_port else (first, url.port)


def pool_name_of(attributes: dict[str, str | int]) -> str:
    """Return a pool's name as the conventions have it made: ``address:port/database``.

    Args:
        attributes: From :func:`attributes_of`.
    """
    address = attributes.get(names.SERVER_ADDRESS, attributes[names.SYSTEM])
    port = attributes.get(names.SERVER_PORT)
    database = attributes.get(names.NAMESPACE, "")
    return f"{address}{'' if port is None else f':{port}'}/{database}"
