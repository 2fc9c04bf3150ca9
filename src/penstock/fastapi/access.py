"""Who may see the operations routes, and which databases they show."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Self

from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection

from penstock.database import Database
from penstock.settings import Environment

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
"""Headers by which a proxy on this machine says that it asks for another."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may see the operations routes.

    Args:
        guards: Dependencies, as in ``dependencies=``, that refuse those who may not look.
        shows_all: Whether those who may look see every database; else those alone that
            :func:`is_open` names.
    """

    guards: Sequence[Any]
    shows_all: bool

    @classmethod
    def by(cls, guard: Callable[..., Any] | None, databases: Mapping[str, Database]) -> Self:
        """Return the access that a guard of the application gives.

        Args:
            guard: Refuses those who may not look. Without one all may, but this machine alone
                where the environment of a database was not named.
            databases: By name; read anew for every request.
        """
        if guard is not None:
            return cls([Depends(guard)], shows_all=True)
        return cls([Depends(_of_this_machine(databases))], shows_all=False)

    def shows(self, database: Database) -> bool:
        """Return whether a database is shown to those who may look."""
        return self.shows_all or is_open(database)


def is_open(database: Database) -> bool:
    """Return whether the pool's numbers are shown without a guard: in development and testing."""
    return database.settings.environment in (Environment.DEVELOPMENT, Environment.TESTING)


def _of_this_machine(
    databases: Mapping[str, Database],
) -> Callable[[HTTPConnection], Awaitable[None]]:
    async def guard(connection: HTTPConnection) -> None:
        if all(database.settings.names_environment for database in databases.values()):
            return
        is_forwarded = any(name in connection.headers for name in _FORWARDED)
        if is_forwarded or not _is_loopback(connection):
            raise HTTPException(404)

    return guard


def _is_loopback(connection: HTTPConnection) -> bool:
    try:
        return connection.client is not None and ip_address(connection.client.host).is_loopback
    except ValueError:  # the path of a Unix socket, or a test client's name
        return False
