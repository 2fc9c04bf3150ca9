"""Where the replicas of a database are: URLs, addresses, a DNS name, or Patroni's REST API."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError

from penstock.settings.url import POSTGRESQL_PORT, DatabaseUrl
from penstock.settings.validation import Accepted

LARGEST_WEIGHT = 1000
ACCEPTED = (
    "URLs or addresses with spaces between, such as postgresql://user:password@host/name?weight=2, "
    "host:5432, dns:name:5432 or patroni:http://host:8008,"
)
_OWN = ("weight", "position")
"""Parameters of a replica's URL that are none of the driver's."""


@dataclass(frozen=True, slots=True, repr=False)
class ReplicaSource:
    """One server that only reads, or a place that tells of several.

    It has no ``repr``, because the URL holds a password.

    Args:
        kind: A ``server``, a name whose addresses are servers (``dns``), or Patroni's REST API.
        url: With which to connect; its host is the server's, or the name that has the addresses.
        weight: Share of the reads, against that of others.
        reports_position: Whether a server's position holds for each connection to it.
        api: Addresses of Patroni's REST API, of which any may answer.
    """

    kind: Literal["server", "dns", "patroni"]
    url: DatabaseUrl
    weight: float = 1.0
    reports_position: bool = True
    api: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, primary: DatabaseUrl) -> Self:
        """Read one entry of the setting ``replicas``.

        Args:
            text: The entry.
            primary: Whose login, database name and parameters hold where the entry has none.

        Raises:
            ValueError: It is malformed; the message shows no password.
        """
        scheme, _, rest = text.partition(":")
        if scheme == "patroni":
            return cls("patroni", primary, api=tuple(map(_checked_api, rest.split(","))))
        if scheme == "dns":
            return cls("dns", at_host(primary, rest))
        if "://" not in text:
            return cls("server", at_host(primary, text))
        url = DatabaseUrl.parse(text)
        named = [value for name, value in url.parameters if name == "host"]
        if len(named) > 1 or "," in "".join(named):
            raise ValueError("a replica is one server: name each by an entry of its own")
        if url.database != primary.database:
            raise ValueError("a replica has the database of the primary, by the same name")
        if url.scheme != primary.scheme:
            raise ValueError(f"a replica has the driver of the primary, {primary.driver}")
        weight = _weight(url.parameter("weight"))
        position = url.parameter("position")
        if position not in (None, "yes", "no"):
            raise ValueError("the position of a replica is yes or no")
        for name in _OWN:
            url = url.without(name)
        url.check_query()
        return cls("server", url, weight, position != "no")


def sources(entries: Sequence[SecretStr], primary: str) -> list[ReplicaSource]:
    """Return where the replicas are.

    Args:
        entries: As the setting ``replicas`` has them.
        primary: The database's URL.
    """
    url = DatabaseUrl.parse(primary)
    return [ReplicaSource.parse(entry.get_secret_value(), url) for entry in entries]


def at_host(url: DatabaseUrl, address: str) -> DatabaseUrl:
    """Return a URL that leads to another host.

    Args:
        url: Of which all but the hosts stays.
        address: Host and port, the port may be left out.

    Raises:
        ValueError: The address is malformed.
    """
    parameters = [name for name, _ in url.parameters]
    for name in ("host", "port", "target_session_attrs"):
        url = url.without(name) if name in parameters else url
    if not address or any(mark in address for mark in "/?#@,") or address != address.strip():
        raise ValueError("a replica is a URL, or the address of a server: host:5432")
    has_port = address.rpartition(":")[2].isdecimal() and not address.endswith("]")
    host = address if has_port else f"{address}:{POSTGRESQL_PORT}"
    moved = replace(url, host=host)
    return DatabaseUrl.parse(moved.text())


def _weight(text: str | None) -> float:
    try:
        weight = 1.0 if text is None else float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight <= LARGEST_WEIGHT:
        raise ValueError(f"the weight of a replica is above 0 and up to {LARGEST_WEIGHT}")
    return weight


def _checked_api(text: str) -> str:
    parts = urlsplit(text)
    is_plain = "@" not in parts.netloc and not parts.path.strip("/")
    if not (is_plain and parts.scheme in ("http", "https") and parts.hostname):
        raise ValueError("the REST API of Patroni is patroni:http://host:8008")
    return f"{parts.scheme}://{parts.netloc}"


def _each_secret(value: object) -> object:
    entries = value.split() if isinstance(value, str) else value
    if not isinstance(entries, Sequence):
        return value
    return tuple(SecretStr(each) if isinstance(each, str) else each for each in entries)


Replicas = Annotated[tuple[SecretStr, ...], BeforeValidator(_each_secret), Accepted(ACCEPTED)]
SHORTEST_KEY = 16


def _long_enough(value: SecretStr | None) -> SecretStr | None:
    if value is not None and len(value.get_secret_value().encode()) < SHORTEST_KEY:
        raise PydanticCustomError("position_key", "too short")
    return value


PositionKey = Annotated[
    SecretStr | None,
    AfterValidator(_long_enough),
    Accepted(f"a secret of {SHORTEST_KEY} bytes or more (openssl rand -hex 32)"),
]
