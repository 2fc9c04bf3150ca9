"""What the settings become for the two PostgreSQL drivers."""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from penstock.engine.keepalive import keep_alive, libpq_keepalive
from penstock.engine.tls import tls_context
from penstock.errors import SettingsError
from penstock.settings import DatabaseSettings, Proxy, TlsMode

__all__ = [
    "asyncpg_arguments",
    "equip_asyncpg",
    "equip_psycopg",
    "psycopg_arguments",
    "without_client_check",
]

_logger = logging.getLogger("penstock.engine")

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
    transport = connection._transport  # noqa: SLF001 - asyncpg has no other way to its socket
    keep_alive(transport.get_extra_info("socket"), settings.tcp_keepalive)


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
    # protocol_violation by a pooler that nobody told of. libpq says the same without an SQLSTATE.
    if CLIENT_CHECK not in str(error):
        return None
    asked = {**arguments}
    if "server_settings" in asked:
        asked["server_settings"] = {**asked["server_settings"]}
        return asked if asked["server_settings"].pop(CLIENT_CHECK, None) else None
    option = f"-c {CLIENT_CHECK}={CLIENT_CHECK_INTERVAL}"
    if option not in asked.get("options", ""):
        return None
    asked["options"] = asked["options"].replace(option, "").strip()
    return asked


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
