"""Statements that load instances, in each of the ways that SQLAlchemy knows."""

from typing import Any

from sqlalchemy import exists, func, literal, select, text, union_all
from sqlalchemy.orm import (
    Bundle,
    aliased,
    contains_eager,
    defaultload,
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
    undefer_group,
    with_expression,
    with_loader_criteria,
    with_polymorphic,
)
from tests.integration.express.staff import (
    Address,
    Animal,
    Dog,
    Engineer,
    Listened,
    Manager,
    Member,
    Order,
    Person,
    Place,
    Plain,
    Reading,
    Rebuilt,
    Shape,
    Team,
    User,
)

Other = aliased(User, name="other")
everybody = select(User).order_by(User.id)
Puppy = aliased(Dog)
everyone = with_polymorphic(Person, [Engineer, Manager])
flat = with_polymorphic(Person, "*", flat=True)
latest = select(User).where(User.age > 10).subquery()
Latest = aliased(User, latest)

STATEMENTS: dict[str, Any] = {
    "plain": everybody,
    "plain_adult": everybody.where(User.is_adult),
    "none": everybody.where(User.id < 0),
    "load_only": everybody.options(load_only(User.name)),
    "load_only_deferred": everybody.options(load_only(User.biography)),
    "load_only_raise": everybody.options(load_only(User.name, raiseload=True)),
    "defer": everybody.options(defer(User.age)),
    "defer_raise": everybody.options(defer(User.age, raiseload=True)),
    "defer_key": everybody.options(defer(User.id)),
    "undefer": everybody.options(undefer(User.biography)),
    "undefer_group": everybody.options(undefer_group("address")),
    "undefer_all": everybody.options(undefer("*")),
    "undefer_raise": everybody.options(undefer(User.secret)),
    "undefer_property": everybody.options(undefer(User.shout)),
    "expression": everybody.options(with_expression(User.score, User.id * 2)),
    "expression_literal": everybody.options(with_expression(User.score, literal(5))),
    "aliased": select(Other).order_by(Other.id),
    "aliased_subquery": select(Latest).order_by(Latest.id),
    "tuples": select(User, Team).join(User.team).order_by(User.id),
    "tuples_outer": select(User, Team).outerjoin(User.team).order_by(User.id),
    "tuples_full": select(User, Team).join(User.team, full=True).order_by(User.id, Team.id),
    "twice_the_same": select(User, User.name, User).order_by(User.id),
    "self_join": select(User, Other).join(Other, Other.id == User.id).order_by(User.id),
    "self_join_next": select(User, Other)
    .join(Other, Other.id > User.id)
    .order_by(User.id, Other.id),
    "same_row_often": select(Team).join(Team.users).order_by(Team.id),
    "entity_and_value": select(User, func.length(User.name).label("length")).order_by(User.id),
    "entity_and_columns": select(User.id, User, User.name.label("x")).order_by(User.id),
    "count": select(User, func.count(Address.id))
    .outerjoin(User.addresses)
    .group_by(User.id)
    .order_by(User.id),
    "columns": select(User.id, User.name, User.greeting, User.is_adult).order_by(User.id),
    "synonym": select(User.id, User.nick).order_by(User.id),
    "bundle": select(Bundle("b", User.id, User.name)).order_by(User.id),
    "bundle_single": select(Bundle("b", User.id, User.name, single_entity=True)).order_by(User.id),
    "bundle_and_entity": select(User, Bundle("b", User.id, User.name)).order_by(User.id),
    "joined_collection": select(Team).options(joinedload(Team.users)).order_by(Team.id),
    "joined_scalar": everybody.options(joinedload(User.team)),
    "joined_inner": everybody.options(joinedload(User.team, innerjoin=True)),
    "joined_limited": select(Team).options(joinedload(Team.users)).order_by(Team.id).limit(2),
    "joined_two": everybody.options(joinedload(User.team), joinedload(User.addresses)),
    "joined_deep": select(Team)
    .options(joinedload(Team.users).joinedload(User.addresses))
    .order_by(Team.id),
    "joined_only": everybody.options(joinedload(User.team).load_only(Team.id)),
    "joined_and_value": select(User, User.name).options(joinedload(User.team)).order_by(User.id),
    "contains_eager": select(User)
    .join(User.team)
    .options(contains_eager(User.team))
    .order_by(User.id),
    "contains_many": select(Team)
    .join(Team.users)
    .options(contains_eager(Team.users))
    .order_by(Team.id, User.id),
    "contains_alias": select(Team)
    .join(Team.users.of_type(Other))
    .options(contains_eager(Team.users.of_type(Other)))
    .order_by(Team.id, Other.id),
    "lazy_joined": select(Order).order_by(Order.year, Order.number),
    "lazy_joined_off": select(Order)
    .options(lazyload(Order.customer))
    .order_by(Order.year, Order.number),
    "lazyload": everybody.options(lazyload(User.team)),
    "defaultload": everybody.options(defaultload(User.team).load_only(Team.id)),
    "raiseload": everybody.options(raiseload(User.team)),
    "raiseload_all": everybody.options(raiseload("*")),
    "criteria": everybody.options(with_loader_criteria(User, User.age > 10)),
    "criteria_joined": select(Team)
    .options(joinedload(Team.users), with_loader_criteria(User, User.age > 10))
    .order_by(Team.id),
    "composite": select(Place),
    "composite_column": select(Place.id, Place.at),
    "single_base": select(Animal).order_by(Animal.id),
    "single_sub": select(Dog),
    "single_tuple": select(Animal, Puppy)
    .outerjoin(Puppy, Puppy.id == Animal.id)
    .order_by(Animal.id),
    "joined_base": select(Person).order_by(Person.id),
    "joined_sub": select(Engineer),
    "with_polymorphic": select(everyone).order_by(everyone.id),
    "with_polymorphic_flat": select(flat).order_by(flat.id),
    "with_polymorphic_column": select(everyone.name, everyone.Engineer.language).order_by(
        everyone.id
    ),
    "dataclass": select(Member),
    "imperative": select(Plain),
    "reconstructed": select(Rebuilt),
    "listened": select(Listened),
    "reading": select(Reading),
    "from_statement": select(User).from_statement(text("SELECT * FROM users ORDER BY id")),
    "from_some_columns": select(User).from_statement(
        text("SELECT id, user_name FROM users ORDER BY id")
    ),
    "from_typed": select(User).from_statement(
        text("SELECT user_name, id FROM users ORDER BY id").columns(User.name, User.id)
    ),
    "from_union": select(User).from_statement(
        union_all(select(User).where(User.id == 1), select(User).where(User.id == 2)).order_by("id")
    ),
    "union_alias": select(
        aliased(
            User,
            union_all(
                select(User).where(User.id == 1), select(User).where(User.id == 2)
            ).subquery(),
        )
    ),
    "union_rows": union_all(
        select(User.id, User.name.label("name")), select(Team.id, Team.name)
    ).order_by("id"),
    "union_entities": union_all(select(User).where(User.id == 1), select(User).where(User.id == 2)),
    "distinct": select(Team).join(Team.users).distinct().order_by(Team.id),
    "whole_table": select(User.__table__).order_by(User.id),
    "exists": select(User, exists().where(Address.user_id == User.id)).order_by(User.id),
    "null_entity": select(Team, literal(None)).order_by(Team.id),
    "selectinload": select(Team).options(selectinload(Team.users)),
    "subqueryload": select(Team).options(subqueryload(Team.users)),
    "immediateload": everybody.options(immediateload(User.team)),
    "nested": select(Team).options(joinedload(Team.users).selectinload(User.addresses)),
    "nested_subquery": select(Team).options(joinedload(Team.users).subqueryload(User.addresses)),
    "in_a_tuple": select(User, Team).join(User.team).options(selectinload(Team.users)),
    "polymorphic_selectin": select(Shape),
    "selectin_polymorphic": select(Person).options(selectin_polymorphic(Person, [Engineer])),
}
