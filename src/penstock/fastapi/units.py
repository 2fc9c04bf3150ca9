"""The units of work of one request, kept in its ASGI scope."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from penstock.database import Database, SessionClosed, UnitOfWork
from penstock.errors import PenstockError

__all__ = ["SCOPE_KEY", "WEBSOCKET_REFUSAL", "RequestUnits", "units_of"]

SCOPE_KEY = "penstock"

WEBSOCKET_REFUSAL = (
    "A WebSocket outlives any transaction, so no session is injected into it. Take "
    "database: CurrentDatabase and open one for each message: "
    "async with database.write() as session."
)


class RequestUnits:
    """The units of work of one request, one for each database, made when first asked for.

    Args:
        databases: The installed databases by name.
        refusal: Why no session is to be had here; None where a response will end them.
    """

    __slots__ = ("_databases", "_ended", "_refusal", "_units")

    def __init__(self, databases: Mapping[str, Database], refusal: str | None = None) -> None:
        self._databases = databases
        self._refusal = refusal
        self._ended = ""
        """What has ended, once something has."""
        self._units: dict[Database, UnitOfWork] = {}

    def database(self, name: str) -> Database:
        """Return the database that was installed as ``name``."""
        try:
            return self._databases[name]
        except KeyError:
            known = ", ".join(sorted(self._databases))
            raise PenstockError(
                f"No database named {name!r} is installed; installed: {known}. "
                f"Call install(app, database, name={name!r})."
            ) from None

    def unit(self, name: str) -> UnitOfWork:
        """Return this request's unit of work on the database that was installed as ``name``.

        Raises:
            SessionClosed: The response has left, or this is a WebSocket.
        """
        database = self.database(name)  # inside a mounted application perhaps another one
        if database not in self._units:
            if self._refusal is not None:
                raise SessionClosed(self._refusal)
            if self._ended:
                raise SessionClosed(f"No session is to be had any more: {self._ended}.")
            self._units[database] = database.unit()
        return self._units[database]

    def add(self, databases: Mapping[str, Database]) -> None:
        """Add the databases of a mounted application, which take precedence inside it."""
        self._databases = {**self._databases, **databases}

    async def commit(self) -> None:
        """Commit every unit.

        With several databases everything is flushed before the first COMMIT, which leaves the
        shortest time in which one could be saved without the other.
        """
        units = list(self._units.values())
        for unit in units:
            unit.check()
        if len(units) > 1:
            for unit in units:
                await unit.flush()
        for unit in units:
            await unit.commit()

    @property
    def are_used(self) -> bool:
        """Whether there is any."""
        return bool(self._units)

    def refuse(self, why: str) -> None:
        """Make no unit from now on.

        Args:
            why: What has ended, to follow "No session is to be had any more: ...".
        """
        self._ended = self._ended or why

    async def end(self) -> None:
        """Roll back what is open and close every session, each whatever becomes of the others."""
        cancelled: BaseException | None = None
        while self._units:
            _, unit = self._units.popitem()
            try:
                await unit.end(self._ended)
            except BaseException as error:  # noqa: BLE001 - raised once the others have ended too
                cancelled = error
        if cancelled is not None:
            raise cancelled


def units_of(scope: MutableMapping[str, Any]) -> RequestUnits:
    """Return the units of the request behind ``scope``.

    Raises:
        PenstockError: ``install`` was not called for this application.
    """
    try:
        units: RequestUnits = scope[SCOPE_KEY]
    except KeyError:
        raise PenstockError(
            "No database is installed in this application. Call "
            "penstock.fastapi.install(app, database) before it serves."
        ) from None
    return units
