"""Where a database is, as messages, exporters and providers of credentials are told."""

from itertools import cycle

from sqlalchemy import URL, make_url

from penstock.credentials.provider import Server
from penstock.settings import DatabaseSettings, TlsMode

DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


def address_of(settings: DatabaseSettings) -> str:
    """Name a database's host, port and name.

    Args:
        settings: Whose URL is looked at.

    Returns:
        Such as ``database app at db.internal:5432``, or ``the file app.db`` for SQLite.
    """
    url = make_url(settings.url.get_secret_value())
    if url.get_backend_name() == "sqlite":
        return f"the file {url.database or ':memory:'}"
    hosts = ", ".join(_written(host, port) for host, port in hosts_of(url))
    return f"database {url.database} at {hosts}" if url.database else hosts


def identity_of(settings: DatabaseSettings) -> str:
    """Return what tells one service's database from another's: its name and URL, no password."""
    url = make_url(settings.url.get_secret_value())
    return f"{settings.application_name} {url.render_as_string(hide_password=True)}"


def hosts_of(url: URL) -> list[tuple[str, int | None]]:
    """Tell which hosts a network driver tries, in their order.

    Args:
        url: As the engine has it. Its parameters outrank what stands in front of them.

    Returns:
        Each host's name and port; of a Unix socket its path and None.
    """
    path = url.query.get("unix_socket")
    hosts = _each(path or url.query.get("host") or url.host or "localhost")
    ports = _each(url.query.get("port") or str(url.port or DEFAULT_PORTS[url.get_backend_name()]))
    return [_split(host, port) for host, port in zip(hosts, cycle(ports), strict=False)]


def server_of(settings: DatabaseSettings) -> Server:
    """Return a database's server as a provider of credentials is told of it.

    Args:
        settings: Whose URL is looked at.
    """
    url = make_url(settings.url.get_secret_value())
    return Server(
        hosts=tuple(hosts_of(url)),
        user=url.username,
        is_encrypted=settings.tls not in {None, TlsMode.DISABLE, TlsMode.PREFER},
        is_postgresql=url.get_backend_name() == "postgresql",
    )


def _each(named: str | tuple[str, ...]) -> list[str]:
    return named.split(",") if isinstance(named, str) else list(named)


def _split(host: str, port: str) -> tuple[str, int | None]:
    if host.startswith("/"):
        return host, None
    if host.count(":") == 1:  # more are an IPv6 address
        host, _, port = host.partition(":")
    return host, int(port) if port.isdecimal() else None


def _written(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
