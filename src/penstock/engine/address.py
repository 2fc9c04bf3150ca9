"""Where a database is, in words for a person: never who connects, nor with which password."""

from sqlalchemy import URL, make_url

from penstock.settings import DatabaseSettings

__all__ = ["address_of"]

DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306}


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
    hosts = ", ".join(_hosts(url))
    return f"database {url.database} at {hosts}" if url.database else hosts


def _hosts(url: URL) -> list[str]:
    port = url.port or DEFAULT_PORTS[url.get_backend_name()]
    if url.host:
        return [f"[{url.host}]:{port}" if ":" in url.host else f"{url.host}:{port}"]
    named = url.query.get("host") or url.query.get("unix_socket") or "localhost"
    hosts = [named] if isinstance(named, str) else list(named)
    return [host if ":" in host or host.startswith("/") else f"{host}:{port}" for host in hosts]
