"""What the settings become for each network driver."""

import logging
import math
import re
import socket
import ssl
import sys
from collections.abc import Mapping
from typing import Any

from sqlalchemy import make_url

from penstock.base_error import SettingsError
from penstock.drivers.driver import transport_of
from penstock.settings import DatabaseSettings, Proxy, TlsMode

_logger = logging.getLogger("penstock.engine")

# Once a connection has been silent for tcp_keepalive, four probes 15 s apart: a server that
# answers none of them for a minute is gone. A restart or a failover is usually over sooner.
INTERVAL = 15
PROBES = 4

# Seconds that data which was sent may go unacknowledged; Linux alone would retry for about a
# quarter of an hour (tcp(7), tcp_retries2). The same minute as the probes', and the same as the
# default of command_timeout. Where it is set it also ends the probing: Linux closes a connection
# that has been silent for longer than it and has left one probe unanswered.
USER_TIMEOUT = 60


def keep_alive(connected: socket.socket, idle: int) -> None:
    """Switch keepalive on for a connected socket; a Unix socket is left as it is.

    Args:
        connected: The driver's socket, or uvloop's stand-in for it.
        idle: Seconds of silence before the first probe.

    Raises:
        OSError: The socket was closed meanwhile.
    """
    if connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _tcp_options(idle).items():
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


def libpq_keepalive(idle: int) -> Mapping[str, int]:
    """Return the same as parameters of libpq, which ignores them on a Unix socket.

    Args:
        idle: Seconds of silence before the first probe.

    Returns:
        Parameters by name, as in PostgreSQL's "Parameter Key Words".
    """
    return {
        "keepalives": 1,
        "keepalives_idle": idle,
        "keepalives_interval": INTERVAL,
        "keepalives_count": PROBES,
        "tcp_user_timeout": USER_TIMEOUT * 1000,
    }


def _tcp_options(idle: int) -> Mapping[int, int]:
    if sys.platform == "darwin":
        return {
            socket.TCP_KEEPALIVE: idle,
            socket.TCP_KEEPINTVL: INTERVAL,
            socket.TCP_KEEPCNT: PROBES,
        }
    options = {
        socket.TCP_KEEPIDLE: idle,
        socket.TCP_KEEPINTVL: INTERVAL,
        socket.TCP_KEEPCNT: PROBES,
    }
    if sys.platform == "linux":
        options[socket.TCP_USER_TIMEOUT] = USER_TIMEOUT * 1000
    return options


def tls_context(settings: DatabaseSettings) -> ssl.SSLContext:
    """Make the context for a connection that has to be encrypted.

    Args:
        settings: With a ``tls`` that is neither unset nor ``disable``.

    Returns:
        A context that checks the certificate with ``verify-ca`` and the host's name as well
        with ``verify-full``, against ``tls_ca_file`` or else the system's authorities.

    Raises:
        SettingsError: ``tls_ca_file`` holds no certificate that can be read, or ``tls_cert_file``
            and ``tls_key_file`` no pair of certificate and key.
    """
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
    except OSError as error:  # ssl.SSLError is one
        given = f"tls_ca_file={str(settings.tls_ca_file)!r}"
        raise SettingsError(f"{given}: a file of PEM certificates is accepted") from error
    context.check_hostname = settings.tls is TlsMode.VERIFY_FULL
    if settings.tls is None or not settings.tls.verifies:
        context.verify_mode = ssl.CERT_NONE
    if settings.tls_cert_file is not None:
        _load_own(context, settings)
    return context


def _load_own(context: ssl.SSLContext, settings: DatabaseSettings) -> None:
    certificate, key = str(settings.tls_cert_file), settings.tls_key_file
    try:
        # Without a password, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as error:
        given = f"tls_cert_file={certificate!r}, tls_key_file={'' if key is None else str(key)!r}"
        raise SettingsError(
            f"{given}: PEM files of a certificate and its key, without a password, are accepted"
        ) from error


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
        # Its default of 10 s must not come before the connector's limit.
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
    keep_alive(transport_of(connection).get_extra_info("socket"), settings.tcp_keepalive)


def equip_aiomysql(connection: Any, settings: DatabaseSettings) -> None:
    """Set on a new aiomysql connection what no argument of it can, and refuse one in the clear.

    Raises:
        ConnectionError: TLS was required and the server has none, which aiomysql accepts.
    """
    transport = transport_of(connection)
    optional = {None, TlsMode.DISABLE, TlsMode.PREFER}
    if settings.tls not in optional and transport.get_extra_info("ssl_object") is None:
        raise ConnectionError(f"tls={settings.tls}, but the server does not support SSL")
    keep_alive(transport.get_extra_info("socket"), settings.tcp_keepalive)


def _context(settings: DatabaseSettings) -> Any:
    if settings.tls is TlsMode.PREFER and settings.driver == "asyncmy":
        raise SettingsError(
            "tls='prefer': asyncmy cannot go on without TLS once it has requested it; "
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


# They share server connections among clients, and refuse startup parameters that they do not
# follow (PgBouncer, config.md, ignore_startup_parameters). Every other proxy passes all on.
POOLERS = frozenset(
    {Proxy.AWS_RDS_PROXY, Proxy.AZURE_PGBOUNCER, Proxy.NEON, Proxy.PGBOUNCER, Proxy.SUPAVISOR}
)

# A worker that is killed leaves its statements running, with their locks and beyond the pool's
# limit, until the server looks whether anybody still waits for them.
CLIENT_CHECK = "client_connection_check_interval"
CLIENT_CHECK_INTERVAL = "1000"
"""Milliseconds."""

# psycopg's own default: a statement is prepared when it runs for the sixth time.
PREPARE_THRESHOLD = 5


def asyncpg_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of ``asyncpg.connect``, and of SQLAlchemy's dialect around it.

    Args:
        settings: Of a database on asyncpg.

    Raises:
        SettingsError: ``tls_ca_file`` holds no certificate that can be read.
    """
    arguments: dict[str, Any] = {
        "timeout": None,  # the connector's limit is the one that counts
        "command_timeout": settings.command_timeout,
        "statement_cache_size": settings.statement_cache_size,
        "prepared_statement_cache_size": settings.statement_cache_size,
        "server_settings": {
            "application_name": settings.application_name,
            **_startup_parameters(settings),
        },
    }
    if settings.tls is not None:
        needs_context = settings.tls.verifies or settings.tls_cert_file is not None
        arguments["ssl"] = tls_context(settings) if needs_context else settings.tls.value
    return arguments


def psycopg_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of ``psycopg.AsyncConnection.connect``.

    Args:
        settings: Of a database on psycopg.

    Raises:
        SettingsError: ``tls`` is ``verify-ca`` without a ``tls_ca_file``.
    """
    arguments: dict[str, Any] = {
        # Whole seconds, at least two, and later than the connector's limit, which is exact.
        "connect_timeout": math.ceil(settings.connect_timeout) + 2,
        "application_name": settings.application_name,
        "prepare_threshold": PREPARE_THRESHOLD if settings.statement_cache_size else None,
        **libpq_keepalive(settings.tcp_keepalive),
        **_psycopg_tls(settings),
    }
    parameters = {**_statement_timeout(settings), **_startup_parameters(settings)}
    if parameters:
        arguments["options"] = _command_line(parameters)
    return arguments


def equip_asyncpg(connection: Any, settings: DatabaseSettings) -> None:
    """Set on a new asyncpg connection what no argument of it can."""
    keep_alive(transport_of(connection).get_extra_info("socket"), settings.tcp_keepalive)


def equip_psycopg(connection: Any, settings: DatabaseSettings) -> None:
    """Set on a new psycopg connection what no argument of it can."""
    if settings.statement_cache_size:
        connection.prepared_max = settings.statement_cache_size
    # PostgreSQL's statement_timeout does not bound a COMMIT.
    connection.command_timeout = settings.command_timeout


def _startup_parameters(settings: DatabaseSettings) -> dict[str, str]:
    parameters = dict(settings.server_settings)
    if settings.isolation_level is not None:
        parameters["default_transaction_isolation"] = settings.isolation_level.value.lower()
    if _is_sent(settings, "jit"):
        parameters["jit"] = "on" if settings.jit else "off"
    if settings.proxy not in POOLERS:
        parameters.setdefault(CLIENT_CHECK, CLIENT_CHECK_INTERVAL)
    return parameters


def without_client_check(arguments: dict[str, Any], error: Exception) -> dict[str, Any] | None:
    """Return the arguments for a server that cannot look whether its clients still live.

    Args:
        arguments: Of the driver's connect, which has failed.
        error: What it raised.

    Returns:
        None where the failure was another one.
    """
    # undefined_object before PostgreSQL 14; invalid_parameter_value where the system cannot do it;
    # protocol_violation by a pooler that the settings do not name. libpq says the same without an
    # SQLSTATE.
    if CLIENT_CHECK not in str(error):
        return None
    given = {**arguments}
    if "server_settings" in given:
        given["server_settings"] = {**given["server_settings"]}
        return given if given["server_settings"].pop(CLIENT_CHECK, None) else None
    option = f"-c {CLIENT_CHECK}={CLIENT_CHECK_INTERVAL}"
    if option not in given.get("options", ""):
        return None
    given["options"] = given["options"].replace(option, "").strip()
    return given


def _statement_timeout(settings: DatabaseSettings) -> dict[str, str]:
    if _is_sent(settings, "command_timeout"):
        return {"statement_timeout": str(math.ceil(settings.command_timeout * 1000))}
    _logger.warning(
        "command_timeout=%g is not in force: with psycopg it is PostgreSQL's statement_timeout, "
        "which %s does not let a connection start with; ALTER ROLE ... SET statement_timeout",
        settings.command_timeout,
        settings.proxy,
    )
    return {}


def _is_sent(settings: DatabaseSettings, name: str) -> bool:
    return settings.proxy not in POOLERS or name in settings.model_fields_set


def _psycopg_tls(settings: DatabaseSettings) -> dict[str, str]:
    if settings.tls is None:
        return {}
    own = {"sslcert": settings.tls_cert_file, "sslkey": settings.tls_key_file}
    files = {name: str(path) for name, path in own.items() if path is not None}
    return {**_psycopg_mode(settings, settings.tls), **files}


def _psycopg_mode(settings: DatabaseSettings, tls: TlsMode) -> dict[str, str]:
    if settings.tls_ca_file is not None:
        return {"sslmode": tls.value, "sslrootcert": str(settings.tls_ca_file)}
    if tls is TlsMode.VERIFY_CA:
        raise SettingsError(
            "tls='verify-ca': psycopg needs a tls_ca_file with it; verify-full can do with the "
            "system's authorities"
        )
    if tls is TlsMode.VERIFY_FULL:
        return {"sslmode": tls.value, "sslrootcert": "system"}
    return {"sslmode": tls.value}


def _command_line(parameters: Mapping[str, str]) -> str:
    # PostgreSQL splits "options" at white space; a backslash takes the next character as it is.
    escaped = {name: re.sub(r"([\\\s])", r"\\\1", value) for name, value in parameters.items()}
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())
