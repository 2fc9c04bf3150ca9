"""The same statement in a session and in the express lane."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState

from penstock import Database


async def by_session(
    database: Database, statement: Any, values: Mapping[str, Any] | None = None
) -> list[Any]:
    """Return what a session gives for a statement: rows, or instances that it has expunged.

    Args:
        database: Whose session.
        statement: What is asked.
        values: Of its parameters.
    """
    async with database.write() as session:
        return await in_session(session, statement, dict(values or {}))


async def in_session(session: AsyncSession, statement: Any, values: Any = None) -> list[Any]:
    """Return what a session gives for a statement, and expunge it.

    Args:
        session: Which is left empty.
        statement: What is run.
        values: Of its parameters, or a list of rows.
    """
    result: Any = await session.execute(statement, values)
    if result._unique_filter_state is not None:
        result = result.unique()
    results = list(as_results(result).all())
    session.expunge_all()
    return results


def as_results(result: Any) -> Any:
    """Return a session's result as the express lane gives it: instances where these are the rows.

    Args:
        result: Of a session's ``execute()`` or ``stream()``.
    """
    return result.scalars() if result._attributes.get("is_single_entity", False) else result


def picture(thing: Any, seen: dict[int, int] | None = None) -> Any:
    """Return all that can be seen of a result, of its instances' states and of what they refer to.

    Args:
        thing: Results, a row, an instance, or a value.
        seen: Instances that were met before, by ``id()``: where the same one comes again, the
            pictures show which it was.
    """
    seen = {} if seen is None else seen
    if isinstance(thing, Row):
        parts = [picture(part, seen) for part in thing]
        return "row", thing._fields, [str(key) for key in thing._mapping], parts
    if isinstance(thing, dict):
        return type(thing), {key: picture(part, seen) for key, part in thing.items()}
    if isinstance(thing, list | tuple | set):
        parts = sorted(thing, key=_order) if isinstance(thing, set) else list(thing)
        return type(thing), [picture(part, seen) for part in parts]
    return _picture_of_one(thing, seen)


def _picture_of_one(thing: Any, seen: dict[int, int]) -> Any:
    try:
        state: Any = inspect(thing)
    except NoInspectionAvailable:
        return type(thing), thing if thing == thing else "NaN"  # noqa: PLR0124 - which is not itself
    if not isinstance(state, InstanceState):
        return type(thing), thing
    if id(thing) in seen:
        return "seen", seen[id(thing)]
    seen[id(thing)] = len(seen)
    return {
        "class": type(thing),
        "key": state.key,
        "identity": state.identity,
        "unloaded": state.unloaded,
        "expired": (state.expired, state.expired_attributes),
        "kind": (state.detached, state.persistent, state.transient, state.pending),
        "modified": (state.modified, state.committed_state),
        "callables": sorted(state.callables),
        "options": len(state.load_options),
        "values": {
            name: picture(value, seen)
            for name, value in state.dict.items()
            if name != "_sa_instance_state"
        },
    }


def _order(part: Any) -> str:
    state: Any = inspect(part, raiseerr=False)
    return repr(state.key if isinstance(state, InstanceState) else part)
