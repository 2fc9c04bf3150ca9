"""Which classes the sessions of a database have, also over one of the application's own."""

import inspect
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from penstock.database.sessions import ReadingSession, WritingSession
from penstock.database.unit_session import operation
from penstock.errors import PenstockError

__all__ = ["SessionKinds"]


@dataclass(frozen=True, slots=True)
class SessionKinds:
    """The classes of the two sessions of a unit of work.

    Args:
        writing: Of the one that writes.
        reading: Of the one that reads.
        autoflush: Whether they send what is pending before they read.
    """

    writing: type[WritingSession] = WritingSession
    reading: type[ReadingSession] = ReadingSession
    autoflush: bool = False

    @classmethod
    def of(cls, session_class: type[AsyncSession] | None, *, autoflush: bool) -> Self:
        """Return the kinds that are an application's own class as well.

        Args:
            session_class: Of SQLAlchemy's ``AsyncSession``; None for none.
            autoflush: As the attribute.
        """
        if session_class is None or session_class is AsyncSession:
            return cls(autoflush=autoflush)
        if not (isinstance(session_class, type) and issubclass(session_class, AsyncSession)):
            raise PenstockError(
                f"session_class takes a subclass of AsyncSession, not {session_class!r}."
            )
        return cls(
            _merged(session_class, WritingSession),
            _merged(session_class, ReadingSession),
            autoflush,
        )


def _merged(own: type[AsyncSession], kind: type[Any]) -> type[Any]:
    """Return a class that is both; what the application's defines is in front."""
    below, below_kind = own.sync_session_class, kind.sync_session_class
    attributes: dict[str, Any] = {
        # It may talk to the database by other ways than those that are counted.
        name: operation(method)
        for name, method in inspect.getmembers(own, inspect.iscoroutinefunction)
        if not name.startswith("_") and not hasattr(AsyncSession, name)
    }
    attributes |= _instead_of_deprecated(own, kind)
    attributes["sync_session_class"] = below_kind
    if below is not Session:
        attributes["sync_session_class"] = type(
            below_kind.__name__, (below, below_kind), _instead_of_deprecated(below, below_kind)
        )
    attributes["__doc__"] = kind.__doc__
    return type(kind.__name__, (own, kind), attributes)


def _instead_of_deprecated(own: type, kind: type) -> dict[str, Any]:
    """Return the methods that are called here as well, and should warn nobody."""
    return {
        name: getattr(kind, name)
        for name, method in inspect.getmembers(own, inspect.isfunction)
        if hasattr(method, "__deprecated__") and hasattr(kind, name)
    }
