"""The database's URL and its TLS parameters: which are wrong, without showing any."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast
from urllib.parse import parse_qsl, unquote, urlencode

from pydantic import SecretStr

Driver = Literal["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"]

SCHEMES: Mapping[str, str] = {
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+psycopg",
    "mysql+asyncmy": "mysql+asyncmy",
    "mysql+aiomysql": "mysql+aiomysql",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "sqlite": "sqlite+aiosqlite",
}

OWNED_BY_SETTINGS: Mapping[str, str] = {
    "application_name": "application_name",
    "command_timeout": "command_timeout",
    "connect_timeout": "connect_timeout",
    "connection_limit": "pool_size",
    "keepalives": "tcp_keepalive",
    "keepalives_idle": "tcp_keepalive",
    "options": "server_settings",
    "pool_timeout": "pool_timeout",
    "prepared_statement_cache_size": "statement_cache_size",
    "server_settings": "server_settings",
    "statement_cache_size": "statement_cache_size",
    "timeout": "connect_timeout",
}
# By libpq's names, as providers print them in the URLs that they hand out, and by asyncpg's.
TLS_PARAMETERS: Mapping[str, str] = {
    "sslmode": "tls",
    "ssl": "tls",
    "sslrootcert": "tls_ca_file",
    "sslcert": "tls_cert_file",
    "sslkey": "tls_key_file",
}
# libpq reads them by itself.
READ_BY_PSYCOPG = frozenset({"sslcert", "sslkey"})
# What is left of asyncpg.connect's arguments that text can be.
KNOWN_TO_ASYNCPG = frozenset(
    {
        "direct_tls",
        "gsslib",
        "host",
        "krbsrvname",
        "passfile",
        "port",
        "service",
        "servicefile",
        "target_session_attrs",
    }
)
# SQLAlchemy hides the password in front of the host only.
IN_FRONT_OF_THE_HOST = frozenset({"password", "user"})

POSTGRESQL_PORT = 5432

AT_SIGN = "an @ in the user name or password is written %40"

_SCHEME = re.compile(r"[a-z][a-z0-9+._-]*", re.IGNORECASE)
# The grammar of sqlalchemy.engine.make_url, so that both split a URL alike; several hosts are ours.
_REST = re.compile(
    r"(?P<login>[^:/]*(?::[^@]*)?@)?(?P<hosts>[^/?]*)(?P<database>/[^?]*)?(?P<query>\?.*)?",
    re.DOTALL,
)
_HOST = re.compile(r"(?P<name>\[[^\[\]\s]+\]|[^\[\]:\s]*)(?::(?P<port>.*))?")
_PORT = re.compile(r"[0-9]{1,5}")


def text_of(url: Any) -> Any:
    """Return the whole text of a URL, password included; what is no URL is returned as it is.

    Args:
        url: A text, or a URL object of SQLAlchemy's or Pydantic's.
    """
    if hasattr(url, "render_as_string"):
        return url.render_as_string(hide_password=False)
    return url.unicode_string() if hasattr(url, "unicode_string") else url


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """A URL in its parts; it has no ``repr``, because most parts can hold a secret.

    Args:
        scheme: Database and driver, such as ``postgresql+asyncpg``.
        login: User name and password as written, with the ``@`` behind them, or nothing.
        host: Host and port as written, or nothing.
        database: Slash and database name as written, or nothing.
        query: Question mark and parameters as written, or nothing.
    """

    scheme: str
    login: str
    host: str
    database: str
    query: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a URL apart.

        Args:
            text: The URL, with one of ``SCHEMES``.

        Returns:
            Its parts, with the full scheme; several hosts are moved into the query, which is
            where SQLAlchemy expects them.

        Raises:
            ValueError: A part is missing or malformed; the message names the part and shows
                nothing but the scheme.
        """
        _refuse_stray_characters(text)
        scheme, rest = _split_scheme(text)
        match = _REST.fullmatch(rest)
        if match is None:
            raise ValueError("the part behind :// is malformed")
        url = cls(
            scheme=scheme,
            login=match["login"] or "",
            host=match["hosts"],
            database=match["database"] or "",
            query=match["query"] or "",
        )
        return url._with_hosts_checked()

    @property
    def driver(self) -> Driver:
        """The Python package that talks to the database."""
        return cast("Driver", self.scheme.partition("+")[2])

    @property
    def is_postgresql(self) -> bool:
        """Whether the database is PostgreSQL, whichever the driver."""
        return self.scheme.startswith("postgresql+")

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Names and values behind the question mark, decoded."""
        return parse_qsl(self.query.removeprefix("?"), keep_blank_values=True)

    def parameter(self, name: str) -> str | None:
        """The value of a parameter; None if it is not there."""
        return dict(self.parameters).get(name)

    def without(self, name: str) -> Self:
        """The same URL without one of its parameters."""
        return replace(self, query=_as_query([pair for pair in self.parameters if pair[0] != name]))

    def text(self) -> str:
        """The URL as SQLAlchemy reads it, password included."""
        return f"{self.scheme}://{self.login}{self.host}{self.database}{self.query}"

    def check_query(self) -> None:
        """Refuse parameters that have a setting of their own or that the driver lacks.

        Raises:
            ValueError: There is one; the message names it and what to use instead.
        """
        names = [name for name, _ in self.parameters]
        for name in names:
            if name in TLS_PARAMETERS and names.count(name) > 1:
                raise ValueError(f"its {name} is there twice: keep one of them")
            if name in IN_FRONT_OF_THE_HOST and self.driver != "aiosqlite":
                raise ValueError(f"its {name} belongs in front of the host: user:password@host")
        for name in names if self.is_postgresql else ():
            if name in TLS_PARAMETERS and not self.keeps(name):
                raise ValueError(f"its {name} repeats {TLS_PARAMETERS[name]}: keep one of them")
            if name in OWNED_BY_SETTINGS:
                raise ValueError(f"its {name} has a setting: {OWNED_BY_SETTINGS[name]}")
            if name not in KNOWN_TO_ASYNCPG and self.driver == "asyncpg":
                raise ValueError(self._unknown(name))

    def keeps(self, parameter: str) -> bool:
        """Return whether a TLS parameter stays where it is, for the driver reads it itself."""
        return self.driver == "psycopg" and parameter in READ_BY_PSYCOPG

    def _unknown(self, name: str) -> str:
        if "@" in self.query:  # the rest of a password, which is not to be shown
            return AT_SIGN
        return (
            f"asyncpg has no parameter {name}: leave it out; what PostgreSQL itself is to be told "
            "goes into server_settings"
        )

    def _with_hosts_checked(self) -> Self:
        if self.driver == "aiosqlite":
            if self.login or self.host:
                raise ValueError(
                    "SQLite has no host: write sqlite:///relative.db or sqlite:////absolute.db"
                )
            return self
        if "@" in self.host:
            raise ValueError(AT_SIGN)
        if self.login.endswith(":***@"):
            raise ValueError(
                "its password is ***, as str() has it of a URL object: give the object itself"
            )
        hosts = [_checked_host(host) for host in self.host.split(",")]
        if len(hosts) == 1:
            return self
        if not self.is_postgresql:
            raise ValueError("several hosts are understood for PostgreSQL only")
        return replace(self, host="", query=_as_query([*_with_ports(hosts), *self.parameters]))


def _refuse_stray_characters(text: str) -> None:
    if not text:
        raise ValueError("it is empty")
    if text != text.strip():
        raise ValueError("there is a space or line break at its start or end")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("there is a control character in it")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("there is a lone surrogate in it: text that was no UTF-8")


def _split_scheme(text: str) -> tuple[str, str]:
    scheme, separator, rest = text.partition("://")
    accepted = f"accepted are {', '.join(SCHEMES)}"
    if not separator or not _SCHEME.fullmatch(scheme):
        raise ValueError(f"it does not start with a scheme and :// ({accepted})")
    if scheme not in SCHEMES:
        raise ValueError(f"the scheme {scheme} is unknown ({accepted})")
    return SCHEMES[scheme], rest


def _checked_host(text: str) -> tuple[str, int | None]:
    if text.lower().startswith("%2f"):  # as libpq has it, and SQLAlchemy has not
        raise ValueError("a Unix socket is a parameter: ?host=/directory")
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError("a host is malformed")
    port = match["port"]
    if port and ":" in port:
        raise ValueError("an IPv6 host is written in brackets")
    if port is not None and not (_PORT.fullmatch(port) and 1 <= int(port) <= 65535):
        raise ValueError("a port is not a whole number from 1 to 65535")
    return match["name"], int(port) if port else None


def _with_ports(hosts: list[tuple[str, int | None]]) -> list[tuple[str, str]]:
    if not all(name for name, _ in hosts):
        raise ValueError("each of several hosts is a name or an address")
    if not any(name.startswith("[") for name, _ in hosts):
        return [("host", f"{name}:{port or POSTGRESQL_PORT}") for name, port in hosts]
    # SQLAlchemy splits host:port at any colon, and lists of both not at all.
    names = ",".join(unquote(name.strip("[]")) for name, _ in hosts)
    return [("host", names), ("port", ",".join(str(port or POSTGRESQL_PORT) for _, port in hosts))]


def _as_query(parameters: list[tuple[str, str]]) -> str:
    return f"?{urlencode(parameters, safe='/:,')}" if parameters else ""


def move_tls(given: dict[str, object]) -> dict[str, str]:
    """Turn the URL's TLS parameters into settings, unless those are set.

    Args:
        given: What was set, by field name; changed in place.

    Returns:
        Which parameters have moved, and to which field.
    """
    text = given.get("url")
    try:
        url = DatabaseUrl.parse(text.get_secret_value() if isinstance(text, SecretStr) else "")
    except ValueError:
        return {}
    moved: dict[str, str] = {}
    for parameter, field in TLS_PARAMETERS.items():
        value = url.parameter(parameter)
        is_once = [name for name, _ in url.parameters].count(parameter) == 1
        is_moved = is_once and url.is_postgresql and not url.keeps(parameter)
        if is_moved and value is not None and field not in given:
            given[field], moved[parameter] = value, field
            url = url.without(parameter)
    if moved:
        given["url"] = SecretStr(url.text())
    return moved


def check_ca_file(path: Path, *, is_used: bool) -> None:
    """Refuse a file of authorities that is of no use.

    Args:
        path: Of the file.
        is_used: Whether the server's certificate is checked at all.

    Raises:
        ValueError: It cannot be read, or nothing would look at it; the message says which.
    """
    check_readable(path)
    if not is_used:
        raise ValueError("it takes effect with tls verify-ca or verify-full only")


def check_readable(path: Path) -> None:
    """Refuse a file that cannot be read.

    Args:
        path: Of the file.

    Raises:
        ValueError: There is none, or it cannot be read.
    """
    try:
        with path.open("rb"):
            return
    except (OSError, ValueError):
        raise ValueError("there is no such file, or it cannot be read") from None
