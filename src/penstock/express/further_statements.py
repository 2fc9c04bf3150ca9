"""Whether loading may take further statements of which the ORM learns only from the rows."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy.orm import Mapper

__all__ = ["may_take_statements"]

_FURTHER = frozenset({"selectin", "subquery", "immediate"})


def may_take_statements(state: Any) -> bool:
    """Return whether subclasses, or listeners to what is loaded, may take further statements.

    The ORM's loader looks at a subclass when its first instance comes, and a listener may do
    anything.

    Args:
        state: What the ORM found out as it compiled the statement.
    """
    options = [
        option
        for key, option in state.attributes.items()
        if isinstance(key, tuple) and key[0] == "loader"
    ]
    loaded = [entity.mapper for entity in state._entities if hasattr(entity, "path")]  # noqa: SLF001 - no public way to them
    loaded += [mapper for option in options for mapper in _mappers_on(option.path)]
    reached = _reached(loaded)
    subclasses = [mapper for mapper in reached if mapper.inherits is not None]
    return (
        any(mapper.class_manager.dispatch.load for mapper in reached)
        or any(map(_takes_further, subclasses))
        or (bool(subclasses) and any(_is_further(option.strategy) for option in options))
    )


def _mappers_on(path: Any) -> Iterator[Mapper[Any]]:
    for element in path.path:
        mapper = getattr(element, "mapper", None)  # of a relationship, the target's
        if mapper is not None:
            yield mapper


def _reached(mappers: list[Mapper[Any]]) -> set[Mapper[Any]]:
    """Return the mappers of all that may be loaded: subclasses, and what is joined to them."""
    left, reached = list(mappers), set[Mapper[Any]]()
    while left:
        mapper = left.pop()
        if mapper not in reached:
            reached.add(mapper)
            left += mapper.self_and_descendants
            left += [r.mapper for r in mapper.relationships if _lazy(r.strategy_key) == "joined"]
    return reached


def _takes_further(mapper: Mapper[Any]) -> bool:
    return mapper.polymorphic_load == "selectin" or any(
        _lazy(relationship.strategy_key) in _FURTHER for relationship in mapper.relationships
    )


def _is_further(strategy: Any) -> bool:
    return _lazy(strategy) in _FURTHER or "selectinload_polymorphic" in dict(strategy or ())


def _lazy(strategy: Any) -> Any:
    return dict(strategy or ()).get("lazy")
