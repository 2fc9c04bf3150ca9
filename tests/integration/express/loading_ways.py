"""Every way to load a column: statements that read, and statements that return what they write."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, literal, select, text, union_all, update
from sqlalchemy.orm import (
    Bundle,
    aliased,
    contains_eager,
    defer,
    immediateload,
    joinedload,
    lazyload,
    load_only,
    raiseload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    undefer,
    with_expression,
    with_loader_criteria,
    with_polymorphic,
)
from tests.integration.express.loaded_kinds import World

Way = Callable[[World], Any]


def _parents(world: World, *what: Any) -> Any:
    return select(*(what or (world.Parent,))).order_by(world.parents.c.id)


def _aliased_twice(world: World) -> Any:
    one, other = aliased(world.Parent), aliased(world.Parent)
    return select(one, other).join(other, one.id == other.id).order_by(one.id)


def _alias_and_class(world: World) -> Any:
    other = aliased(world.Parent)
    return _parents(world, world.Parent, other).join(other, other.id == world.Parent.id)


def _of_subquery(world: World) -> Any:
    inner = select(world.Parent).subquery()
    outer = aliased(world.Parent, inner)
    return select(outer).order_by(outer.id)


def _polymorphic(world: World) -> Any:
    everything = with_polymorphic(world.Joined, "*")
    return select(everything).order_by(everything.id)


def _cte_columns(world: World) -> Any:
    inner = select(world.parents.c.id, world.parents.c.value).cte()
    return select(inner.c.value, inner.c.id).order_by(inner.c.id)


def _union_entity(world: World) -> Any:
    inner = union_all(
        select(world.Parent).where(world.Parent.id == 1),
        select(world.Parent).where(world.Parent.id > 1),
    )
    return select(world.Parent).from_statement(inner.order_by("id"))


def _from_labels(world: World) -> Any:
    table = world.parents
    inner = select(table.c.value.label("value"), table.c.id.label("id"), literal("x").label("type"))
    return select(world.Parent).from_statement(inner.order_by("id"))


def _from_subquery(world: World) -> Any:
    inner = select(world.parents).subquery()
    chosen = select(inner.c.value, inner.c.id, inner.c.type)
    return select(world.Parent).from_statement(chosen.order_by(inner.c.id))


def _joined_alias(world: World) -> Any:
    other = aliased(world.Parent)
    child = world.Child
    return (
        select(child)
        .join(child.parent.of_type(other))
        .options(contains_eager(child.parent.of_type(other)))
        .order_by(child.id)
    )


READS: dict[str, Way] = {
    "entity": _parents,
    "column": lambda w: _parents(w, w.Parent.id, w.Parent.value),
    "core": lambda w: _parents(w, w.parents),
    "entity_and_column": lambda w: _parents(w, w.Parent, w.Parent.value),
    "column_twice": lambda w: _parents(w, w.Parent.value, w.Parent.value.label("again")),
    "entity_twice": lambda w: _parents(w, w.Parent, w.Parent.id, w.Parent),
    "aliased": _aliased_twice,
    "alias_and_class": _alias_and_class,
    "subquery": _of_subquery,
    "cte": _cte_columns,
    "scalar_subquery": lambda w: select(
        select(w.parents.c.value).where(w.parents.c.id == 2).scalar_subquery().label("found")
    ),
    "coalesced": lambda w: _parents(w, func.coalesce(w.Parent.value, w.Parent.value).label("v")),
    "bundle": lambda w: _parents(w, Bundle("b", w.Parent.id, w.Parent.value)),
    "bundle_single": lambda w: _parents(
        w, Bundle("b", w.Parent.id, w.Parent.value, single_entity=True)
    ),
    "bundle_and_entity": lambda w: _parents(w, w.Parent, Bundle("b", w.Parent.value)),
    "bundle_and_column": lambda w: _parents(w, w.Parent.value, Bundle("b", w.Parent.value)),
    "joinedload": lambda w: (
        select(w.Child).options(joinedload(w.Child.parent)).order_by(w.Child.id)
    ),
    "joinedload_many": lambda w: _parents(w).options(joinedload(w.Parent.children)),
    "joinedload_deep": lambda w: _parents(w).options(
        joinedload(w.Parent.children).joinedload(w.Child.parent)
    ),
    "joinedload_only": lambda w: (
        select(w.Child)
        .options(joinedload(w.Child.parent).load_only(w.Parent.value))
        .order_by(w.Child.id)
    ),
    "joinedload_and_column": lambda w: (
        select(w.Child, w.Child.value).options(joinedload(w.Child.parent)).order_by(w.Child.id)
    ),
    "joinedload_limited": lambda w: _parents(w).options(joinedload(w.Parent.children)).limit(2),
    "lazy_joined": lambda w: select(w.EagerChild).order_by(w.EagerChild.id),
    "lazy_joined_off": lambda w: (
        select(w.EagerChild).options(lazyload(w.EagerChild.parent)).order_by(w.EagerChild.id)
    ),
    "selectinload": lambda w: (
        select(w.Child).options(selectinload(w.Child.parent)).order_by(w.Child.id)
    ),
    "selectinload_many": lambda w: _parents(w).options(selectinload(w.Parent.children)),
    "selectinload_deep": lambda w: _parents(w).options(
        selectinload(w.Parent.children).selectinload(w.Child.parent)
    ),
    "selectinload_only": lambda w: (
        select(w.Child)
        .options(selectinload(w.Child.parent).load_only(w.Parent.value))
        .order_by(w.Child.id)
    ),
    "joinedload_selectin": lambda w: (
        select(w.Child)
        .options(joinedload(w.Child.parent).selectinload(w.Parent.children))
        .order_by(w.Child.id)
    ),
    "subqueryload": lambda w: _parents(w).options(subqueryload(w.Parent.children)),
    "immediateload": lambda w: _parents(w).options(immediateload(w.Parent.children)),
    "lazy_selectin": lambda w: select(w.SelectinChild).order_by(w.SelectinChild.id),
    "selectin_polymorphic": lambda w: _parents(w, w.Joined).options(
        selectin_polymorphic(w.Joined, [w.JoinedSub])
    ),
    "contains_eager": lambda w: (
        select(w.Child)
        .join(w.Child.parent)
        .options(contains_eager(w.Child.parent))
        .order_by(w.Child.id)
    ),
    "contains_eager_many": lambda w: (
        select(w.Parent)
        .join(w.Parent.children)
        .options(contains_eager(w.Parent.children))
        .order_by(w.Parent.id, w.Child.id)
    ),
    "contains_eager_alias": _joined_alias,
    "tuples": lambda w: select(w.Parent, w.Child).join(w.Parent.children).order_by(w.Child.id),
    "raiseload": lambda w: _parents(w).options(raiseload("*")),
    "load_only": lambda w: _parents(w).options(load_only(w.Parent.value)),
    "defer": lambda w: _parents(w).options(defer(w.Parent.value)),
    "deferred": lambda w: _parents(w, w.Deferred),
    "undefer": lambda w: _parents(w, w.Deferred).options(undefer(w.Deferred.value)),
    "with_expression": lambda w: _parents(w, w.Deferred).options(
        with_expression(w.Deferred.computed, w.Deferred.value)
    ),
    "criteria": lambda w: _parents(w).options(with_loader_criteria(w.Parent, w.Parent.id > 1)),
    "composite": lambda w: _parents(w, w.Composed),
    "composite_column": lambda w: _parents(w, w.Composed.id, w.Composed.pair),
    "listened": lambda w: _parents(w, w.Listened),
    "joined_base": lambda w: _parents(w, w.Joined),
    "joined_sub": lambda w: _parents(w, w.JoinedSub),
    "joined_all": _polymorphic,
    "joined_columns": lambda w: select(w.JoinedSub.value, w.JoinedSub.more).order_by(
        w.JoinedSub.id
    ),
    "single_base": lambda w: select(w.Single).order_by(w.Single.id),
    "single_sub": lambda w: select(w.SingleSub).order_by(w.SingleSub.id),
    "from_text": lambda w: select(w.Parent).from_statement(
        text(f"SELECT value, id, type FROM {w.parents.name} ORDER BY id")
    ),
    "from_typed": lambda w: select(w.Parent).from_statement(
        text(f"SELECT value, id FROM {w.parents.name} ORDER BY id").columns(
            w.parents.c.value, w.parents.c.id
        )
    ),
    "from_select": lambda w: select(w.Parent).from_statement(
        select(w.Parent.value, w.Parent.id, w.Parent.type).order_by(w.Parent.id)
    ),
    "from_text_selectin": lambda w: (
        select(w.Parent)
        .from_statement(text(f"SELECT value, id, type FROM {w.parents.name} ORDER BY id"))
        .options(selectinload(w.Parent.children))
    ),
    "from_union": _union_entity,
    "from_labels": _from_labels,
    "from_subquery": _from_subquery,
    "from_columns": lambda w: select(w.Parent.value, w.Parent.id).from_statement(
        select(w.parents.c.id, w.parents.c.value).order_by(w.parents.c.id)
    ),
    "from_polymorphic": lambda w: select(w.Single).from_statement(
        text(f"SELECT * FROM {w.children.name} ORDER BY id")
    ),
    "text_columns": lambda w: text(
        f"SELECT value AS v, id FROM {w.parents.name} ORDER BY id"
    ).columns(v=w.kind.type),
    "union_columns": lambda w: union_all(
        select(w.Parent.id, w.Parent.value), select(w.Child.id, w.Child.value)
    ).order_by("id"),
}
"""Those that read."""


def _insert(target: Any, *what: Any) -> Any:
    values: dict[str, Any] = {"id": bindparam("number"), "value": bindparam("wanted")}
    return insert(target).values(**values).returning(*what)


def _update(target: Any, *what: Any) -> Any:
    return (
        update(target)
        .where(target.id == bindparam("number"))
        .values(value=bindparam("wanted"))
        .returning(*what)
    )


def _delete(target: Any, *what: Any) -> Any:
    return delete(target).where(target.id == bindparam("number")).returning(*what)


def _returning() -> dict[str, Way]:
    what: dict[str, Callable[[World], tuple[Any, ...]]] = {
        "entity": lambda w: (w.Child, w.Child),
        "column": lambda w: (w.Child, w.Child.id, w.Child.value),
        "entity_and_column": lambda w: (w.Child, w.Child, w.Child.value),
        "bundle": lambda w: (w.Child, Bundle("b", w.Child.id, w.Child.value)),
        "lazy_joined": lambda w: (w.EagerChild, w.EagerChild),
        "lazy_selectin": lambda w: (w.SelectinChild, w.SelectinChild),
        "expression": lambda w: (w.Child, func.coalesce(w.Child.value, w.Child.value)),
        "single": lambda w: (w.Single, w.Single),
        "single_sub": lambda w: (w.SingleSub, w.SingleSub),
    }
    return {
        f"{name}_{verb.__name__[1:]}": lambda w, verb=verb, parts=parts: verb(*parts(w))  # type: ignore[misc]
        for name, parts in what.items()
        for verb in (_insert, _update, _delete)
    }


WRITES: dict[str, Way] = {
    **_returning(),
    "listened_insert": lambda w: _insert(w.Listened, w.Listened),
    "composed_update": lambda w: _update(w.Composed, w.Composed),
    "joinedload_insert": lambda w: _insert(w.Child, w.Child).options(joinedload(w.Child.parent)),
    "joinedload_update": lambda w: _update(w.Child, w.Child).options(joinedload(w.Child.parent)),
    "selectinload_insert": lambda w: _insert(w.Child, w.Child).options(
        selectinload(w.Child.parent)
    ),
    "selectinload_update": lambda w: _update(w.Child, w.Child).options(
        selectinload(w.Child.parent)
    ),
    "load_only_update": lambda w: _update(w.Child, w.Child).options(load_only(w.Child.value)),
    "undefer_update": lambda w: _update(w.Deferred, w.Deferred).options(undefer(w.Deferred.value)),
    "from_statement_insert": lambda w: select(w.Child).from_statement(
        _insert(w.Child, w.Child.value, w.Child.id)
    ),
    "core_insert": lambda w: (
        insert(w.children)
        .values(id=bindparam("number"), value=bindparam("wanted"))
        .returning(w.children)
    ),
}
"""Those that write and return; ``number`` is a row's key, ``wanted`` its new value."""
