"""PgBouncer's files: pools from the connection budget, limits from the service's settings."""

import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from penstock.base_error import SettingsError
from penstock.budget import ServerLimits
from penstock.engine.address import hosts_of
from penstock.provision.files import GeneratedFile
from penstock.provision.scram import secret_in, secret_of
from penstock.provision.template import filled
from penstock.settings import DatabaseSettings, Proxy, TlsMode
from penstock.settings.proxies import RECYCLE_SHARE

SERVER = ServerLimits(100, 3)
"""A PostgreSQL with its defaults."""
DIRECTORY = Path("/etc/pgbouncer")
USUAL_POOL = 20
LARGEST_POOL = 100
LARGEST_CLIENT_POOL = 1000
"""What ``pool_size`` accepts."""
LONGEST_NAME = 63
FOLLOWS_STATEMENTS = (1, 21)
_TLS_FILES = ("tls_cert_file", "tls_key_file")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
_ADDRESSES = re.compile(r"\*|[A-Za-z0-9_.:%-]+( *, *[A-Za-z0-9_.:%-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PgbouncerOptions:
    """What the settings of a service do not say of the PgBouncer in front of its server.

    Args:
        version: The oldest that reads the files; 1.18 or later.
        pool_mode: ``transaction``, or ``session`` for what keeps something in its session.
        server: What PostgreSQL accepts.
        pool_size: Server connections that it uses; None for what suits the server's cores.
        cores: Of the server; None where they are not known.
        poolers: How many share the server, such as pods.
        listen: Addresses to listen on, with commas between, or ``*``.
        port: To listen on.
        address: Of PostgreSQL, as ``host:port``; None where the URL names it.
        directory: Where the files are when it runs.
        tls_cert_file: Its own certificate, in PEM; with one, clients have to encrypt.
        tls_key_file: The private key of that.
        userlist: Text of an earlier ``userlist.txt``, whose secret is kept while it is right.
    """

    version: tuple[int, int] = (1, 21)
    pool_mode: Literal["transaction", "session"] = "transaction"
    server: ServerLimits = SERVER
    pool_size: int | None = None
    cores: int | None = None
    poolers: int = 1
    listen: str = "127.0.0.1"
    port: int = 6432
    address: str | None = None
    directory: Path = DIRECTORY
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    userlist: str = ""


def pgbouncer_files(
    settings: DatabaseSettings, options: PgbouncerOptions | None = None
) -> tuple[GeneratedFile, ...]:
    """Make ``pgbouncer.ini``, ``userlist.txt``, ``pgbouncer.sql`` and ``service.env``.

    Args:
        settings: Of the service, whose URL leads to PostgreSQL and has the role's password.
        options: What they do not say; None for one PgBouncer on the service's own machine.

    Raises:
        SettingsError: A setting or an option cannot be met; the message names it.
    """
    options = options or PgbouncerOptions()
    url = _checked(settings, options)
    sizes = Sizes.of(settings, options)
    secret = secret_in(options.userlist, str(url.password)) or secret_of(str(url.password))
    user = str(url.username)
    return (
        GeneratedFile("pgbouncer.ini", _configuration(url, settings, options, sizes), mode=0o600),
        GeneratedFile("userlist.txt", f'"{_doubled(user)}" "{secret}"\n', 0o600, is_secret=True),
        GeneratedFile("pgbouncer.sql", _sql(url, settings)),
        GeneratedFile("service.env", _environment(url, settings, options, sizes)),
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many connections there are on both sides of PgBouncer.

    Args:
        limit: Server connections that one PgBouncer may open.
        pool: Those that it uses.
        reserve: Those that it adds while clients wait.
        each: Connections that the pool of each process of the service keeps.
        processes: How many of these there are.
    """

    limit: int
    pool: int
    reserve: int
    each: int
    processes: int

    @classmethod
    def of(cls, settings: DatabaseSettings, options: PgbouncerOptions) -> "Sizes":
        """Divide what the server accepts.

        Raises:
            SettingsError: There is not enough for that.
        """
        limit = options.server.allowed(settings.connection_reserve) // options.poolers
        if limit < 1:
            raise SettingsError(
                f"max_connections={options.server.max_connections}: with connection_reserve="
                f"{settings.connection_reserve:g}, none is left for each of {options.poolers} "
                "PgBouncer(s)"
            )
        # One is left for another role: the migrations', or the doctor's.
        most = max(1, limit - 1)
        pool = min(_usual_pool(options), most) if options.pool_size is None else options.pool_size
        if not 1 <= pool <= most:
            raise SettingsError(
                f"pool_size={pool}: a whole number from 1 to {most} is accepted, of max_connections"
                f"={options.server.max_connections} less the reserve"
            )
        processes = settings.workers * settings.instances
        each = _pool_of_each(settings, options, pool * options.poolers, processes)
        return cls(limit, pool, min(pool // 4, most - pool), each, processes)

    @property
    def clients(self) -> int:
        """Connections that all processes keep."""
        return self.each * self.processes


def _usual_pool(options: PgbouncerOptions) -> int:
    """Return how many connections a server does the most with: two per core, one for its disk."""
    if options.cores is None:
        return USUAL_POOL
    return min(LARGEST_POOL, ceil((2 * options.cores + 1) / options.poolers))


def _pool_of_each(
    settings: DatabaseSettings, options: PgbouncerOptions, servers: int, processes: int
) -> int:
    configured = min(LARGEST_CLIENT_POOL, settings.pool_size + settings.max_overflow)
    if options.pool_mode == "session":
        if servers < processes:
            raise SettingsError(
                f"pool_mode=session: {processes} processes keep a connection each, and there are "
                f"{servers}; raise pool_size, or use pool_mode=transaction"
            )
        return min(configured, servers // processes)
    if processes == 1:
        return min(configured, servers)
    # Twice as many as the server's, as processes are not equally busy at any moment: what is more
    # would wait in PgBouncer, which knows no deadlines, instead of in the service's own queue.
    return min(configured, max(2, ceil(2 * servers / processes)))


def _checked(settings: DatabaseSettings, options: PgbouncerOptions) -> URL:
    """Return the URL, with one host, once all can be met that is asked for."""
    url = make_url(settings.url.get_secret_value())
    if url.get_backend_name() != "postgresql":
        raise SettingsError("url: PgBouncer is for PostgreSQL, and it names another database")
    if settings.credentials_file is not None or url.password is None or url.username is None:
        raise SettingsError(
            "url: a role and its password are needed, whose SCRAM secret goes into userlist.txt; "
            "credentials that rotate cannot be in a file of PgBouncer's"
        )
    for part, text in (("user", url.username), ("database", url.database or "")):
        if not 1 <= len(text.encode()) <= LONGEST_NAME or not text.isprintable():
            raise SettingsError(
                f"url: PgBouncer accepts a {part} of 1 to {LONGEST_NAME} bytes of printable "
                "characters"
            )
    if url.database in ("pgbouncer", "*"):
        raise SettingsError(
            f"url: PgBouncer has no database {url.database}: so it calls its console, or all others"
        )
    if options.address is None and Proxy.PGBOUNCER in settings.proxy:
        raise SettingsError(
            "proxy='pgbouncer': the URL leads to PgBouncer; name PostgreSQL itself by --server"
        )
    _check_options(settings, options)
    return url.set(query={}) if options.address else url


def _check_options(settings: DatabaseSettings, options: PgbouncerOptions) -> None:
    cache = _cache_of(settings)
    if cache and options.version < FOLLOWS_STATEMENTS:
        raise SettingsError(
            f"statement_cache_size={cache}: PgBouncer {_written(options.version)} does not follow "
            "prepared statements, so that one may return another one's rows; set it to 0, or use "
            "1.21 or later"
        )
    host, _ = _server(make_url(settings.url.get_secret_value()), options)
    for name, value in [
        ("server", host),
        *((name, getattr(options, name)) for name in ("directory", *_TLS_FILES)),
        *((name, getattr(settings, name)) for name in ("tls_ca_file", *_TLS_FILES)),
    ]:
        if not str(value).isprintable():
            raise SettingsError(f"{name}: printable characters are accepted")
    if not _ADDRESSES.fullmatch(options.listen):
        raise SettingsError(f"listen={options.listen!r}: addresses with commas between, or *")
    if (options.tls_cert_file is None) != (options.tls_key_file is None):
        raise SettingsError("tls_cert_file and tls_key_file: one needs the other")
    if settings.tls is not None and settings.tls.verifies and settings.tls_ca_file is None:
        raise SettingsError(
            f"tls={settings.tls.value!r}: PgBouncer knows no authorities of its own; set "
            "tls_ca_file, such as /etc/ssl/certs/ca-certificates.crt"
        )


def _cache_of(settings: DatabaseSettings) -> int:
    """Return ``statement_cache_size`` where it was asked for; its default is not for poolers."""
    is_set = "statement_cache_size" in settings.model_fields_set
    return settings.statement_cache_size if is_set else 0


def _configuration(
    url: URL, settings: DatabaseSettings, options: PgbouncerOptions, sizes: Sizes
) -> str:
    recycle = settings.pool_recycle
    lifetime = recycle if recycle > 0 else 3600
    wait = min(60, ceil(settings.pool_timeout))
    limits = options.server
    is_shared = options.pool_mode == "transaction"
    values = {
        "version": _written(options.version),
        "database": _database(url, options),
        "listen": options.listen,
        "port": options.port,
        "stats_users": _stats_users(str(url.username)),
        "auth_file": options.directory / "userlist.txt",
        "client_tls": _client_tls(options),
        "server_tls": _server_tls(settings),
        "mode_reason": (
            "A server connection is a client's for one transaction."
            if is_shared
            else "A server connection is a client's until it leaves: nothing is shared meanwhile."
        ),
        "pool_mode": options.pool_mode,
        "pool_reason": (
            "As asked for."
            if options.pool_size
            else "Two for each core of the server and one for its disk do the most."
        ),
        "pool_size": sizes.pool,
        "reserve_pool": sizes.reserve,
        "reserve_timeout": min(3, max(1, wait // 2)),
        "limit_reason": (
            f"max_connections {limits.max_connections} - {limits.reserved} reserved, less "
            f"{settings.connection_reserve:.0%} in reserve, for {options.poolers} PgBouncer(s)."
        ),
        "max_db_connections": sizes.limit,
        "clients": sizes.clients,
        "max_clients": max(100 if settings.keeps_connections else 1000, 2 * sizes.clients + 20),
        "prepared": _prepared(settings, options),
        "wait": wait,
        "connect": ceil(settings.connect_timeout),
        "lifetime": lifetime,
        "idle": min(600, lifetime),
        "client_idle_reason": (
            f"The service replaces its connections at {RECYCLE_SHARE:.0%} of that (pool_recycle)."
            if recycle > 0
            else "The service never replaces its connections (pool_recycle=-1)."
        ),
        "client_idle": ceil(recycle / RECYCLE_SHARE) if recycle > 0 else 0,
        "keepalive": settings.tcp_keepalive,
    }
    return filled("pgbouncer.ini", values)


def _database(url: URL, options: PgbouncerOptions) -> str:
    host, port = _server(url, options)
    address = f"host='{host.replace(_QUOTE, 2 * _QUOTE)}' port={port}"
    if _PLAIN.fullmatch(str(url.database)):
        return f"{url.database} = {address}"
    # Not every name can be written there; the one that a client asks for is taken as it is.
    return f"; Any database, as the name of the service's cannot stand here.\n* = {address}"


_QUOTE = "'"


def _server(url: URL, options: PgbouncerOptions) -> tuple[str, int]:
    try:
        if options.address is not None:
            url = make_url(f"postgresql://{options.address}/")
    except (ArgumentError, ValueError):
        url = URL.create("postgresql", host="")
    servers = hosts_of(url)
    host, port = servers[0]
    is_port = url.port is None or 1 <= url.port <= 65535
    if options.address is not None and (
        not url.host or not is_port or url.username or url.database
    ):
        raise SettingsError(
            "server: host:port is accepted, such as 10.0.0.5:5432, with a port from 1 to 65535"
        )
    if len(servers) > 1:
        raise SettingsError(
            "url: PgBouncer does not look for the one of several hosts that writes; name the "
            "address that leads there by --server"
        )
    return host, port or int(str(url.query.get("port") or url.port or 5432))


def _stats_users(user: str) -> str:
    if not _PLAIN.fullmatch(user):
        return "; The service's role has a name that cannot stand in stats_users."
    return f"stats_users = {user}"


def _client_tls(options: PgbouncerOptions) -> str:
    if options.tls_cert_file is None:
        return (
            "; Data between clients and PgBouncer are not encrypted, passwords are never sent.\n"
            "client_tls_sslmode = disable"
        )
    return "\n".join(
        [
            "client_tls_sslmode = require",
            f"client_tls_cert_file = {options.tls_cert_file}",
            f"client_tls_key_file = {options.tls_key_file}",
        ]
    )


def _server_tls(settings: DatabaseSettings) -> str:
    parts = {
        "ca": settings.tls_ca_file,
        "cert": settings.tls_cert_file,
        "key": settings.tls_key_file,
    }
    lines = [f"server_tls_{name}_file = {path.absolute()}" for name, path in parts.items() if path]
    return "\n".join([settings.tls or TlsMode.PREFER, *lines])


def _prepared(settings: DatabaseSettings, options: PgbouncerOptions) -> str:
    if options.version < FOLLOWS_STATEMENTS:
        return ""
    return (
        "; Clients' prepared statements follow them from one server connection to another.\n"
        f"max_prepared_statements = {max(200, _cache_of(settings))}"
    )


def _sql(url: URL, settings: DatabaseSettings) -> str:
    role, database = (f'"{_doubled(str(name))}"' for name in (url.username, url.database))
    given = {"jit": "on" if settings.jit else "off", **settings.server_settings}
    if settings.driver == "psycopg":  # asyncpg's is on the client's side
        given["statement_timeout"] = f"{ceil(settings.command_timeout * 1000)}ms"
    if settings.isolation_level is not None:
        given["default_transaction_isolation"] = settings.isolation_level.value.lower()
    each = [
        f"SELECT set_config('{name}', '{value.replace(_QUOTE, 2 * _QUOTE)}', true);\n"  # noqa: S608 - quoted
        f"ALTER ROLE {role} IN DATABASE {database} SET {name} FROM CURRENT;"
        for name, value in given.items()
    ]
    return filled("pgbouncer.sql", {"role": role, "settings": "\n".join(each)})


def _environment(
    url: URL, settings: DatabaseSettings, options: PgbouncerOptions, sizes: Sizes
) -> str:
    shown = url.set(host="pgbouncer", port=options.port, query={})
    lines = [
        "# The service behind PgBouncer. Add DATABASE_URL; without the password where there is a",
        "# DATABASE_CREDENTIALS_FILE:",
        f"# {shown.render_as_string()}",
        "DATABASE_PROXY=pgbouncer",
        (
            f"# {sizes.clients} connections of {sizes.processes} process(es) for "
            f"{sizes.pool * options.poolers} of the server; there is no overflow but PgBouncer's."
        ),
        f"DATABASE_POOL_SIZE={sizes.each}",
        "DATABASE_MAX_OVERFLOW=0",
        f"DATABASE_MIN_IDLE={min(settings.min_idle, sizes.each)}",
        f"DATABASE_STATEMENT_CACHE_SIZE={_cache_of(settings)}",
    ]
    if settings.fleet:
        lines += ["# Behind a pooler processes do not see each other.", "DATABASE_FLEET=false"]
    if settings.preset is not None:
        lines.append("# Leave DATABASE_PRESET out: the sizes above are none of its own.")
    if settings.server_settings:
        lines += ["# They are the role's now, by pgbouncer.sql.", "DATABASE_SERVER_SETTINGS={}"]
    return "\n".join([*lines, ""])


def _doubled(text: str) -> str:
    return text.replace('"', '""')


def _written(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
