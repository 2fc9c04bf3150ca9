"""What the settings become for the two MySQL and MariaDB drivers."""

import math
from typing import Any

from sqlalchemy import make_url

from penstock.engine.keepalive import keep_alive
from penstock.engine.tls import tls_context
from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, TlsMode

__all__ = ["equip_aiomysql", "equip_asyncmy", "mysql_arguments"]


def mysql_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of ``asyncmy.connect`` and ``aiomysql.connect``.

    Args:
        settings: Of a database on asyncmy or aiomysql.

    Raises:
        SettingsError: ``tls_ca_file`` holds no certificate that can be read, or ``tls`` is
            ``prefer`` with asyncmy.
    """
    arguments: dict[str, Any] = {
        "init_command": _statement_limit(settings.command_timeout),
        "program_name": settings.application_name,
    }
    if settings.driver == "asyncmy":
        # It has a limit of 10 s of its own, which must not come before the connector's.
        arguments["connect_timeout"] = settings.connect_timeout + 1
    password = make_url(settings.url.get_secret_value()).password
    if password is not None:
        # Both drivers encode it as Latin-1, the server compares UTF-8; and a character beyond
        # Latin-1 would end up in the text of a UnicodeEncodeError.
        arguments["password"] = password.encode().decode("latin-1")
    if settings.tls is not None and settings.tls is not TlsMode.DISABLE:
        arguments["ssl"] = _context(settings)
    return arguments


def equip_asyncmy(connection: Any, settings: DatabaseSettings) -> None:
    """Set on a new asyncmy connection what no argument of it can."""
    transport = connection._transport  # noqa: SLF001 - asyncmy has no other way to its socket
    keep_alive(transport.get_extra_info("socket"), settings.tcp_keepalive)


def equip_aiomysql(connection: Any, settings: DatabaseSettings) -> None:
    """Set on a new aiomysql connection what no argument of it can, and refuse one in the clear.

    Raises:
        ConnectionError: TLS was required and the server has none, which aiomysql accepts.
    """
    writer = connection._writer  # noqa: SLF001 - aiomysql has no other way to its socket
    optional = {None, TlsMode.DISABLE, TlsMode.PREFER}
    if settings.tls not in optional and writer.get_extra_info("ssl_object") is None:
        raise ConnectionError(f"tls={settings.tls}, but the server does not support SSL")
    keep_alive(writer.get_extra_info("socket"), settings.tcp_keepalive)


def _context(settings: DatabaseSettings) -> Any:
    if settings.tls is TlsMode.PREFER and settings.driver == "asyncmy":
        raise SettingsError(
            "tls='prefer': asyncmy cannot go on without TLS once it asked for it; "
            "'disable', 'require', 'verify-ca' and 'verify-full' are accepted"
        )
    return tls_context(settings)


def _statement_limit(seconds: float) -> str:
    # MariaDB runs the first comment and passes over the second (its versions 50700 to 99999);
    # MySQL does the reverse, and limits SELECT alone. Decimal seconds and whole milliseconds.
    milliseconds = math.ceil(seconds * 1000)
    return (
        f"SET /*M! SESSION max_statement_time = {milliseconds / 1000} */"
        f"/*!50708 SESSION max_execution_time = {milliseconds} */"
    )
