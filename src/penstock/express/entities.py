"""Instances of mapped classes, made of the driver's rows without a session."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Self

from sqlalchemy.orm import attributes

from penstock.express.loading import Loading

__all__ = ["EntityParts"]

_NOTHING = frozenset({None})

_Made = dict[tuple[Any, ...], Any]
"""The instances of one result by primary key: the same row twice is the same instance."""


class Entity:
    """A mapped class whose instances need nothing but the values of their columns.

    Args:
        mapper: Of the class.
        columns: Attribute names, and what takes each value from a row.
        key: What takes the primary key from a row.
        expired: Attributes that were not loaded, though nothing defers them.
    """

    def __init__(
        self,
        mapper: Any,
        columns: Sequence[tuple[str, Callable[[Any], Any]]],
        key: Callable[[Any], tuple[Any, ...]],
        expired: Sequence[str],
    ) -> None:
        self._names = tuple(name for name, _ in columns)
        self._values = _getter([getter for _, getter in columns])
        self._key = key
        self._expired = expired
        self._new_instance = mapper.class_manager.new_instance
        self._identity_class = mapper._identity_class  # noqa: SLF001 - as the ORM's own loader, here and below
        self._is_absent = _NOTHING.issuperset if mapper.allow_partial_pks else _NOTHING.intersection

    def instance(self, row: Sequence[Any], made: _Made) -> Any:
        """Return the row's instance; None where its primary key is NULL.

        Args:
            row: With its values converted.
            made: The instances of the rows before.
        """
        key = self._key(row)
        instance = made.get(key)
        if instance is not None or self._is_absent(key):
            return instance
        made[key] = instance = self._new_instance()
        state = attributes.instance_state(instance)
        state.key = (self._identity_class, key, None)
        attributes.instance_dict(instance).update(zip(self._names, self._values(row), strict=True))
        if self._expired:
            state.expired_attributes.update(self._expired)
        return instance


class EntityParts:
    """What the results of a statement are made of.

    Args:
        parts: For each part of a result a mapped class, or what takes a column from a row.
    """

    def __init__(self, parts: Sequence[Entity | Callable[[Any], Any]]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, loading: Loading) -> Self | None:
        """Return the parts of a statement; None where only the ORM's own loader will do."""
        classes = [entity.mapper._identity_class for entity in loading.mapped]  # noqa: SLF001 - as below
        if len(set(classes)) < len(classes):
            return None  # an instance may be in two parts of a row
        parts = []
        for entity, getter in zip(loading.entities, loading.getters, strict=True):
            part = getter if isinstance(getter, itemgetter) else _entity(entity, loading)
            if part is None:
                return None
            parts.append(part)
        return cls(parts)

    def instances(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the instances of the one mapped class."""
        make: Any = self._parts[0]
        made: _Made = {}
        return [make.instance(row, made) for row in rows]

    def tuples(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Return the parts of each row."""
        made = [(part, _Made()) for part in self._parts]
        return [tuple([_part(part, row, seen) for part, seen in made]) for row in rows]


def _part(part: Any, row: Sequence[Any], made: _Made) -> Any:
    return part.instance(row, made) if part.__class__ is Entity else part(row)


def _entity(entity: Any, loading: Loading) -> Entity | None:
    if entity not in loading.mapped:
        return None
    mapper = entity.mapper
    if mapper.polymorphic_map or mapper.class_manager.dispatch.load:
        return None
    if loading.context.propagated_loader_options or loading.is_collected:
        return None
    getters = entity.path.get(loading.state.attributes, ("getters", mapper), None)
    if getters is None:
        return None
    populators = {name: list(found) for name, found in getters["cached_populators"].items()}
    result, adapter = loading.cursor.result(), loading.adapter_of(entity)
    for prop in getters["todo"]:
        prop.create_row_processor(
            loading.context, entity, entity.path, mapper, result, adapter, populators
        )
    columns = populators.pop("quick")
    expired = [name for name, is_callable in populators.pop("expire") if is_callable]
    if any(populators.values()):
        return None
    return Entity(mapper, columns, getters["primary_key_getter"], expired)


def _getter(getters: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Sequence[Any]]:
    """Return what takes several values from a row at once, where that can be."""
    if not all(isinstance(getter, itemgetter) for getter in getters) or len(getters) < 2:
        return lambda row: [getter(row) for getter in getters]
    positions = [getter.__reduce__()[1][0] for getter in getters]
    return itemgetter(*positions)
