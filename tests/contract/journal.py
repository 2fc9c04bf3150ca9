"""What a pool tells its listeners, written down in order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

EVENTS = (
    "first_connect",
    "connect",
    "checkout",
    "checkin",
    "reset",
    "invalidate",
    "soft_invalidate",
    "close",
    "detach",
    "close_detached",
)


@dataclass(frozen=True)
class Entry:
    """One event and what its listener was given.

    Args:
        name: Of the event.
        connection: SQLAlchemy's view of the driver's connection; None once that is invalidated.
        rest: The arguments after it.
    """

    name: str
    connection: Any
    rest: tuple[Any, ...]


class Journal:
    """Listens to every event of an engine's pool, and of the pools that replace it.

    Args:
        engine: Nobody has checked out from it yet.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.entries: list[Entry] = []
        for name in EVENTS:
            event.listen(engine.sync_engine, name, self._writer(name))

    def _writer(self, name: str) -> Callable[..., None]:
        def write(connection: Any, *rest: Any) -> None:
            self.entries.append(Entry(name, connection, rest))

        return write

    @property
    def names(self) -> list[str]:
        """The events in their order."""
        return [entry.name for entry in self.entries]

    def of(self, name: str) -> list[Entry]:
        """Return the entries of one event."""
        return [entry for entry in self.entries if entry.name == name]

    def connections(self, name: str) -> list[Any]:
        """Return which connections an event was about."""
        return [entry.connection for entry in self.of(name)]

    def count(self, name: str) -> int:
        """Return how often an event came."""
        return len(self.of(name))

    def clear(self) -> None:
        """Begin a new page."""
        self.entries.clear()
