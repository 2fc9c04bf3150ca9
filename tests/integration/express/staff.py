"""Classes mapped in each of the ways that SQLAlchemy knows, and some rows of each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, String, Table, event, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    column_property,
    composite,
    mapped_column,
    query_expression,
    reconstructor,
    relationship,
    synonym,
)

from penstock import Database


class Base(DeclarativeBase):
    """What the tables belong to."""


class Team(Base):
    """Has users."""

    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    users: Mapped[list["User"]] = relationship(back_populates="team", order_by="User.id")


class User(Base):
    """With a column of another name than its attribute, and several that are loaded specially."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column("user_name", String(50))
    age: Mapped[int | None]
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))
    biography: Mapped[str | None] = mapped_column(deferred=True)
    street: Mapped[str | None] = mapped_column(deferred=True, deferred_group="address")
    city: Mapped[str | None] = mapped_column(deferred=True, deferred_group="address")
    secret: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    score: Mapped[int | None] = query_expression()
    greeting: Mapped[str] = column_property(name + name)
    shout: Mapped[str] = column_property(func.upper(name), deferred=True)
    nick: Mapped[str] = synonym("name")
    team: Mapped[Team | None] = relationship(back_populates="users")
    addresses: Mapped[list["Address"]] = relationship(order_by="Address.id")

    @hybrid_property
    def is_adult(self) -> bool:
        return (self.age or 0) >= 18


class Address(Base):
    """Belongs to a user."""

    __tablename__ = "addresses"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    email: Mapped[str]


class Customer(Base):
    """Is loaded along with its orders."""

    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    """Loads its customer along, by its mapping; its key has two columns."""

    __tablename__ = "orders"
    year: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer | None] = relationship(lazy="joined")


@dataclass
class Point:
    """Two columns in one attribute."""

    x: int
    y: int


class Place(Base):
    """Has a composite attribute."""

    __tablename__ = "places"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[Point] = composite(mapped_column("x"), mapped_column("y"))


class Animal(Base):
    """One table for all kinds."""

    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]


class Dog(Animal):
    """With a column that cats have not."""

    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - SQLAlchemy's
    trick: Mapped[str | None]


class Cat(Animal):
    """With nothing of its own."""

    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012 - SQLAlchemy's


class Person(Base):
    """A table for each kind, joined to this one."""

    __tablename__ = "persons"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]


class Engineer(Person):
    """Has a table of its own."""

    __tablename__ = "engineers"
    __mapper_args__ = {"polymorphic_identity": "engineer"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(ForeignKey("persons.id"), primary_key=True)
    language: Mapped[str]


class Manager(Person):
    """Has a table of its own."""

    __tablename__ = "managers"
    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(ForeignKey("persons.id"), primary_key=True)
    budget: Mapped[int]


class Shape(Base):
    """Its kinds are loaded by further statements."""

    __tablename__ = "shapes"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "shape"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Square(Shape):
    """By its mapping."""

    __tablename__ = "squares"
    __mapper_args__ = {"polymorphic_identity": "square", "polymorphic_load": "selectin"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(ForeignKey("shapes.id"), primary_key=True)
    side: Mapped[int]


class Member(MappedAsDataclass, Base):
    """A dataclass, whose defaults belong to its constructor."""

    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="nobody")
    points: Mapped[int] = mapped_column(default=7)


class Rebuilt(Base):
    """Is told when it is loaded."""

    __tablename__ = "rebuilt"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    @reconstructor
    def init_on_load(self) -> None:
        self.rebuilt_as = self.name.upper()


class Listened(Base):
    """Somebody else is told when it is loaded."""

    __tablename__ = "listened"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@event.listens_for(Listened, "load")
def on_load(instance: Any, context: Any) -> None:
    instance.after_listeners = f"{instance.name} was loaded"


class Plain:
    """Mapped imperatively."""

    id: int
    name: str


Base.registry.map_imperatively(
    Plain,
    Table("plain", Base.metadata, Column("id", Integer, primary_key=True), Column("name", String)),
)


class Reading(Base):
    """Without a NULL that is refused: half of its key may be missing."""

    __tablename__ = "readings"
    __mapper_args__ = {"allow_partial_pks": False, "eager_defaults": True}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(server_default="3")


def rows() -> list[Any]:
    """Return new instances of every class, parents first."""
    teams = [Team(id=1, name="red"), Team(id=2, name="blue"), Team(id=3, name="empty")]
    users = [
        User(id=n, name=f"user {n}", age=10 * n or None, team_id=[None, 1, 1, 2][n], city="Ulm")
        for n in range(4)
    ]
    addresses = [Address(id=n, user_id=n % 2 + 1, email=f"{n}@x") for n in range(5)]
    people = [
        Person(id=1, name="p"),
        Engineer(id=2, name="e", language="c"),
        Manager(id=3, name="m", budget=9),
    ]
    plain = Plain()
    plain.id, plain.name = 1, "plain"
    others: list[Any] = [
        Customer(id=1, name="c"),
        Order(year=1, number=1, customer_id=1),
        Order(year=1, number=2, customer_id=1),
        Order(year=2, number=1),
        Place(id=1, at=Point(3, 4)),
        Animal(id=1, name="a"),
        Dog(id=2, name="d", trick="sit"),
        Cat(id=3, name="c"),
        Shape(id=1),
        Square(id=2, side=5),
        Member(id=1, name="m", points=1),
        Rebuilt(id=1, name="r"),
        Listened(id=1, name="l"),
        Reading(id=1, value=1),
        plain,
    ]
    return [*teams, *users, *addresses, *people, *others]


@asynccontextmanager
async def staff_database(url: str) -> AsyncIterator[Database]:
    """Give a database with the tables and these rows."""
    async with Database.from_url(url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with database.write() as session:
            for row in rows():
                session.add(row)
                await session.flush()
        yield database
