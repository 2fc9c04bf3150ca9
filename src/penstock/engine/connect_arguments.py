"""What the settings become for each network driver."""

import importlib
import math
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import make_url

from penstock.base_error import SettingsError
from penstock.credentials.cache import CredentialCache
from penstock.drivers.followed_statements import followed_connection
from penstock.engine.connector import (
    Connector,
    as_mysql_sends,
    equip_aiomysql,
    equip_psycopg,
    equip_transport,
    libpq_keepalive,
)
from penstock.engine.standby import Accepts, to_accepted
from penstock.settings import DatabaseSettings, Driver, TlsMode


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
        arguments["password"] = as_mysql_sends(password)
    if settings.tls is not None and settings.tls is not TlsMode.DISABLE:
        arguments["ssl"] = _context(settings)
    return arguments


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
    if settings.poolers and settings.statement_cache_size:
        arguments["connection_class"] = followed_connection()
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


def _startup_parameters(settings: DatabaseSettings) -> dict[str, str]:
    parameters = dict(settings.server_settings)
    if settings.isolation_level is not None:
        parameters["default_transaction_isolation"] = settings.isolation_level.value.lower()
    if _is_sent(settings, "jit"):
        parameters["jit"] = "on" if settings.jit else "off"
    if not settings.poolers:
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
    if settings.poolers:
        return {}  # kept by the client
    return {"statement_timeout": str(math.ceil(settings.command_timeout * 1000))}


def _is_sent(settings: DatabaseSettings, name: str) -> bool:
    return not settings.poolers or name in settings.model_fields_set


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


def sqlite_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of ``aiosqlite.connect``.

    Args:
        settings: Of an SQLite database; ``command_timeout`` bounds the wait for another
            writer's lock, which is what SQLite calls its busy timeout.
    """
    return {
        "timeout": settings.command_timeout,
        "cached_statements": settings.statement_cache_size,
    }


EXTRAS: dict[Driver, str] = {
    "asyncmy": "mysql",
    "aiomysql": "mysql",
    "aiosqlite": "sqlite",
    "psycopg": "psycopg",
}


def connect_arguments(
    settings: DatabaseSettings,
    creator: Callable[[], Awaitable[Any]] | None = None,
    credentials: CredentialCache | None = None,
    accepts: Accepts | None = None,
) -> dict[str, Any]:
    """Return what SQLAlchemy passes to the dialect for each new connection.

    Args:
        settings: Of any database.
        creator: Opens a connection in the place of the driver; None for the driver itself.
        credentials: Whose user and password each connection has; None for the URL's.
        accepts: Looks at asyncpg's connections to the server that writes; None for any.

    Raises:
        SettingsError: The driver is not installed, or cannot do what a setting asks for.
    """
    module = _imported(settings.driver)
    create = None if creator is None else _without_arguments(creator)
    match settings.driver:
        case "asyncpg":
            connect = create or module.connect
            if accepts is not None:
                connect = to_accepted(connect, accepts, settings.connect_timeout)
            opened = Connector(
                settings,
                connect=connect,
                equip=equip_transport,
                discard=lambda connection: connection.terminate(),
                simplify=without_client_check,
                credentials=credentials,
            )
            return {**asyncpg_arguments(settings), "async_creator_fn": opened}
        case "psycopg":
            opened = Connector(
                settings,
                connect=create or module.AsyncConnection.connect,
                equip=equip_psycopg,
                discard=lambda connection: connection.pgconn.finish(),
                simplify=without_client_check,
                credentials=credentials,
            )
            return {**psycopg_arguments(settings), "async_creator_fn": opened}
        case "asyncmy" | "aiomysql":
            opened = Connector(
                settings,
                connect=create or module.connect,
                equip=equip_transport if settings.driver == "asyncmy" else equip_aiomysql,
                discard=lambda connection: connection.close(),
                credentials=credentials,
            )
            return {**mysql_arguments(settings), "async_creator_fn": opened}
        case "aiosqlite":
            if create is not None:
                raise SettingsError("async_creator: SQLite has no connections to create")
            return sqlite_arguments(settings)


def _without_arguments(creator: Callable[[], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    def create(*_: Any, **__: Any) -> Awaitable[Any]:
        return creator()

    return create


def _imported(driver: Driver) -> Any:
    try:
        return importlib.import_module(driver)
    except ModuleNotFoundError as error:
        wanted = f"penstock[{EXTRAS[driver]}]" if driver in EXTRAS else driver
        raise SettingsError(
            f"url: its driver {driver} is not installed: pip install '{wanted}'"
        ) from error
