"""User and password for new connections, and what brings them."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from pydantic import SecretStr

from penstock.base_error import PenstockError, SettingsError


class CredentialsFailed(PenstockError):  # noqa: N818 - it reads as what happened
    """A provider brought no credentials; its own error is the ``__cause__``."""


class Credentials:
    """With what new connections log in.

    Args:
        password: The password or token; in no ``repr``.
        user: The role; None for the URL's.
        expires_at: When the server stops accepting it for new connections, as a ``datetime`` with
            a time zone or in seconds since the epoch; None for never.
        expires_in: The same in seconds from now, or a ``timedelta``; one of the two.
        max_age: Seconds after which a connection that was opened with it is replaced; None for
            the pool's ``pool_recycle`` alone.

    Attributes:
        expires_at: Seconds since the epoch; ``inf`` for never.
        max_age: Seconds; ``inf`` for no limit.

    Raises:
        SettingsError: A value is wrong.
    """

    __slots__ = ("expires_at", "max_age", "password", "user")

    def __init__(
        self,
        *,
        password: str | SecretStr,
        user: str | None = None,
        expires_at: datetime | float | None = None,
        expires_in: timedelta | float | None = None,
        max_age: float | None = None,
    ) -> None:
        if isinstance(password, str):
            password = SecretStr(password)
        if not isinstance(password, SecretStr) or not password.get_secret_value():
            raise SettingsError("password: a text that is not empty, or a SecretStr, is accepted")
        if expires_at is not None and expires_in is not None:
            raise SettingsError("expires_at, expires_in: one of them is accepted")
        if max_age is not None and not max_age > 0:
            raise SettingsError(f"max_age={max_age!r}: a number of seconds above 0 is accepted")
        self.password, self.user = password, user
        self.expires_at = _moment(expires_at) if expires_in is None else _later(expires_in)
        self.max_age = math.inf if max_age is None else max_age

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, password={self.password!r})"

    def logs_in_as(self, other: "Credentials") -> bool:
        """Return whether a server sees no difference to others: user and password are the same."""
        return (self.user, self.password) == (other.user, other.password)


def _moment(given: datetime | float | None) -> float:
    if given is None:
        return math.inf
    if not isinstance(given, datetime):
        return given
    if given.tzinfo is None:
        raise SettingsError("expires_at: a datetime with a time zone is accepted")
    return given.timestamp()


def _later(given: timedelta | float) -> float:
    return time.time() + (given.total_seconds() if isinstance(given, timedelta) else given)


CredentialsProvider = Callable[[], Awaitable[Credentials]]
"""Asked for credentials; whatever it raises is the cause of a ``ConnectFailed``.

With an attribute ``has_changed``, a function without arguments, it is asked anew by the next
connection after that has returned True; with ``name`` it is called so in messages.
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is connected to.

    Args:
        hosts: Names and ports in the order of the URL; of a Unix socket its path and None.
        user: The URL's; None for none.
        is_encrypted: Whether no connection is made without TLS.
        is_postgresql: Whether it is PostgreSQL.
    """

    hosts: tuple[tuple[str, int | None], ...]
    user: str | None
    is_encrypted: bool
    is_postgresql: bool

    def require_token_login(self, what: str) -> None:
        """Refuse a server to which a token cannot be sent as a password.

        Args:
            what: The kind of token, for the message.

        Raises:
            SettingsError: Connections may be in the clear, or it is not PostgreSQL.
        """
        if not self.is_postgresql:
            raise SettingsError(f"credentials: {what} are accepted for PostgreSQL only")
        if not self.is_encrypted:
            raise SettingsError(
                f"credentials: {what} are sent to the server as they are, and need tls 'require', "
                "'verify-ca' or 'verify-full'"
            )


@runtime_checkable
class ServerCredentials(Protocol):
    """Credentials that each server has its own of, such as tokens that are signed for a host."""

    def for_server(self, server: Server) -> CredentialsProvider:
        """Return the provider for one server.

        Args:
            server: The primary, or a replica.

        Raises:
            SettingsError: It cannot be logged in to so.
        """
        ...
