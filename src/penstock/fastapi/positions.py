"""Read-your-writes across requests: the tokens that a client brings along, and those it is given.

A token comes as a cookie, for browsers, or as a header, which one service hands on to the next. It
says how far the database had been written when the client's last write was committed; a replica
that is not there yet does not read for that client.
"""

from collections.abc import Callable, Iterator, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Literal

from sqlalchemy import make_url
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.base_error import PenstockError
from penstock.cluster import Cluster, PositionTokens, ReadPolicy
from penstock.cluster.position import Reads, current_reads
from penstock.database import Database
from penstock.settings import Environment

HEADER = "Penstock-Position"
SERVED_BY = "Penstock-Served-By"
_COOKIE = "penstock-position"
_KEYLESS = (Environment.DEVELOPMENT, Environment.TESTING)
_KEY_OF_DEVELOPMENT = b"no secret: of development and testing"
_LONGEST_COOKIES = 16_384
"""Bytes; servers refuse more."""


class Positions:
    """The tokens of one application.

    Args:
        databases: The installed databases by name; read anew for every request.
        shows_server: Whether a response says which server has read for it.
    """

    def __init__(self, databases: Mapping[str, Database], *, shows_server: bool) -> None:
        self._mounted: list[Positions] = []
        self._databases = databases
        self.shows_server = shows_server
        self._tokens: dict[str, PositionTokens] = {}

    def add(self, name: str, database: Database) -> None:
        """Have a database's tokens read and written.

        Args:
            name: By which it is installed.
            database: It; one without a cluster has no tokens.

        Raises:
            PenstockError: It has replicas, and nothing to sign their tokens with.
        """
        settings = database.settings
        key = settings.position_key
        if database.cluster is None or (key is None and not settings.replicas):
            return
        if key is None and settings.environment not in _KEYLESS:
            raise PenstockError(
                "position_key is not set: with replicas, each client is given a signed token of "
                "its last write, which every worker and instance has to be able to read. Set "
                "DATABASE_POSITION_KEY to a secret that they share: openssl rand -hex 32"
            )
        secret = _KEY_OF_DEVELOPMENT if key is None else key.get_secret_value().encode()
        url = make_url(settings.url.get_secret_value())
        self._tokens[name] = PositionTokens(secret, url.database or "", settings.position_lifetime)

    def include(self, mounted: "Positions") -> None:
        """Have the tokens of a mounted application's databases read and written as well."""
        if mounted is not self and mounted not in self._mounted:
            self._mounted.append(mounted)

    def _all(self) -> Iterator[tuple[str, Cluster, PositionTokens]]:
        for name, tokens in self._tokens.items():
            cluster = self._databases[name].cluster
            if cluster is not None:
                yield name, cluster, tokens
        for mounted in self._mounted:
            yield from mounted._all()  # noqa: SLF001 - of the same class

    def _reads_of(self, scope: Scope) -> Reads:
        reads = Reads()
        headers = scope["headers"] = list(scope["headers"])  # which may be read only once
        for name, cluster, tokens in self._all():
            for token in _sent(headers, name):
                position = tokens.read(token)
                if position is not None:
                    reads.reached(cluster, position)
        return reads

    def __bool__(self) -> bool:
        """Return whether any database has tokens."""
        return bool(self._tokens) or any(self._mounted)

    async def serve(self, scope: Scope, receive: Receive, send: Send, app: ASGIApp) -> None:
        """Serve a request, whose reads see what its client has written.

        Args:
            scope: Of the request.
            receive: As ASGI says.
            send: As ASGI says; what is sent has been committed.
            app: Serves it.
        """
        reads = self._reads_of(scope)

        async def telling_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                if reads.wrote:
                    await self._tell(message, reads, scope)
                self._say_server(message, reads)
            await send(message)

        outside = current_reads.set(reads)
        try:
            await app(scope, receive, telling_send)
        finally:
            current_reads.reset(outside)

    async def _tell(self, message: Message, reads: Reads, scope: Scope) -> None:
        headers = list(message.get("headers", ()))
        for name, cluster, tokens in self._all():
            if cluster in reads.wrote:
                if cluster in reads.unresolved:  # no read after the write has asked already
                    await cluster.resolve(reads)
                token = tokens.write(reads.after[cluster])
                headers += _headers(name, token, tokens.lifetime, scope)
        message["headers"] = headers

    def _say_server(self, message: Message, reads: Reads) -> None:
        if not self.shows_server:
            return
        served = [
            f"{member.role}; lag={member.lag:.3f}"
            for cluster, member in reads.served_by.items()
            if isinstance(cluster, Cluster)
        ]
        if served:
            said = (SERVED_BY.lower().encode(), ", ".join(served).encode())
            message["headers"] = [*message.get("headers", ()), said]


def _name(base: str, name: str) -> str:
    return base if name == "default" else f"{base}-{name}"


def _sent(headers: list[tuple[bytes, bytes]], name: str) -> Iterator[str]:
    """Return the tokens of one database that a request has brought along."""
    wanted = _name(HEADER, name).lower().encode()
    cookie = _name(_COOKIE, name)
    for header, value in headers:
        if header == wanted:
            yield value.decode("latin-1")
        elif header == b"cookie" and len(value) <= _LONGEST_COOKIES and cookie.encode() in value:
            try:
                morsel = SimpleCookie(value.decode("latin-1")).get(cookie)
            except CookieError:
                continue
            if morsel is not None:
                yield morsel.value


def _headers(name: str, token: str, lifetime: float, scope: Scope) -> Iterator[tuple[bytes, bytes]]:
    yield _name(HEADER, name).lower().encode(), token.encode()
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    cookie = (
        f"{_name(_COOKIE, name)}={token}; Max-Age={int(lifetime)}; Path=/; HttpOnly; "
        f"SameSite=Lax{secure}"
    )
    yield b"set-cookie", cookie.encode()


def read_policy(
    *,
    primary: bool = False,
    max_lag: float | None = None,
    prefer: Literal["replica"] | None = None,
) -> Callable[[HTTPConnection], Any]:
    """Return the dependency that says where a route, or a router, may read.

    Args:
        primary: Whether it reads from the primary, whatever replicas there are.
        max_lag: Seconds that a replica may be behind; None for ``replica_max_lag``.
        prefer: ``"replica"`` for what may be old, such as a report: it does not ask the primary as
            long as a replica answers, also for what the client has just written.

    Raises:
        PenstockError: A value is something else, or two of them contradict each other.
    """
    policy = ReadPolicy(primary=primary, max_lag=max_lag, prefer=prefer)

    async def dependency(_: HTTPConnection) -> None:
        reads = current_reads.get()
        if reads is not None:
            reads.policy = policy

    return dependency
