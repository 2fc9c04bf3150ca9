"""Classes that are related in each of the ways that SQLAlchemy knows, and some rows of each."""

import enum
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Enum, ForeignKey, ForeignKeyConstraint, Integer, Table, TypeDecorator
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    MappedAsDataclass,
    WriteOnlyMapped,
    attribute_keyed_dict,
    column_property,
    foreign,
    mapped_column,
    relationship,
)


class Base(AsyncAttrs, DeclarativeBase):
    """What the tables belong to."""


class Code(TypeDecorator[int]):
    """A number that is stored as ten times itself."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int | None:
        return None if value is None else value * 10

    def process_result_value(self, value: int | None, dialect: Any) -> int | None:
        return None if value is None else value // 10


class Binding(enum.Enum):
    """How a book is bound."""

    PAPER = "paper"
    CLOTH = "cloth"


tagged = Table(
    "tagged",
    Base.metadata,
    Column("book_id", ForeignKey("books.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)

friends = Table(
    "friends",
    Base.metadata,
    Column("left_id", ForeignKey("authors.id"), primary_key=True),
    Column("right_id", ForeignKey("authors.id"), primary_key=True),
)


class Country(Base):
    """Is referred to by its key, and by a name that is unique."""

    __tablename__ = "countries"
    id: Mapped[int] = mapped_column(Code, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    authors: Mapped[list["Author"]] = relationship(
        back_populates="country", foreign_keys="Author.country_id", order_by="Author.id.desc()"
    )


class Author(Base):
    """Has one, several and none of most kinds."""

    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    biography: Mapped[str | None] = mapped_column(deferred=True)
    country_id: Mapped[int | None] = mapped_column(Code, ForeignKey("countries.id"))
    birthplace: Mapped[str | None] = mapped_column(ForeignKey("countries.name"))
    mentor_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    country: Mapped[Country | None] = relationship(
        back_populates="authors", foreign_keys=[country_id]
    )
    born_in: Mapped[Country | None] = relationship(foreign_keys=[birthplace])
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id")
    book_by_title: Mapped[dict[str, "Book"]] = relationship(
        collection_class=attribute_keyed_dict("title"), viewonly=True
    )
    book_set: Mapped[set["Book"]] = relationship(viewonly=True)
    last_book: Mapped["Book | None"] = relationship(
        primaryjoin="and_(Book.author_id == Author.id, Book.pages > 250)",
        viewonly=True,
        uselist=False,
    )
    label: Mapped["Label | None"] = relationship(back_populates="author")
    mentor: Mapped["Author | None"] = relationship(
        remote_side="Author.id", back_populates="students"
    )
    students: Mapped[list["Author"]] = relationship(back_populates="mentor", order_by="Author.id")
    friends: Mapped[list["Author"]] = relationship(
        secondary=friends,
        primaryjoin="Author.id == friends.c.left_id",
        secondaryjoin="Author.id == friends.c.right_id",
        order_by="Author.id",
    )
    visits: WriteOnlyMapped["Visit"] = relationship()
    queried: DynamicMapped["Visit"] = relationship(viewonly=True)
    titles: AssociationProxy[list[str]] = association_proxy("books", "title")


class Label(Base):
    """One to one with an author."""

    __tablename__ = "labels"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"), unique=True)
    author: Mapped[Author] = relationship(back_populates="label")


class Visit(Base):
    """Of an author, in a collection that is never loaded whole."""

    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))


class Book(Base):
    """In the middle of a chain."""

    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    pages: Mapped[int] = mapped_column()
    binding: Mapped[Binding] = mapped_column(Enum(Binding))
    doubled: Mapped[int] = column_property(pages + pages)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")
    tags: Mapped[list["Tag"]] = relationship(
        secondary=tagged, back_populates="books", order_by="Tag.id"
    )
    editions: Mapped[list["Edition"]] = relationship(
        back_populates="book", order_by="Edition.number"
    )


class Tag(Base):
    """Many to many with books."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str]
    books: Mapped[list[Book]] = relationship(
        secondary=tagged, back_populates="tags", order_by=Book.title
    )


class Edition(Base):
    """Its key has two columns."""

    __tablename__ = "editions"
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Code, primary_key=True)
    book: Mapped[Book] = relationship(back_populates="editions")
    printings: Mapped[list["Printing"]] = relationship(
        back_populates="edition", order_by="Printing.id"
    )


class Printing(Base):
    """Refers to two columns, which may both be NULL."""

    __tablename__ = "printings"
    __table_args__ = (
        ForeignKeyConstraint(["book_id", "number"], ["editions.book_id", "editions.number"]),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int | None]
    number: Mapped[int | None] = mapped_column(Code)
    edition: Mapped[Edition | None] = relationship(back_populates="printings")


class Node(Base):
    """A tree, which loads itself two levels deep."""

    __tablename__ = "nodes"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
    children: Mapped[list["Node"]] = relationship(
        lazy="selectin", join_depth=2, order_by="Node.id", back_populates="parent"
    )
    parent: Mapped["Node | None"] = relationship(remote_side="Node.id", back_populates="children")


class Twig(Base):
    """A tree that loads nothing by itself."""

    __tablename__ = "twigs"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("twigs.id"))
    children: Mapped[list["Twig"]] = relationship(order_by="Twig.id", back_populates="parent")
    parent: Mapped["Twig | None"] = relationship(remote_side="Twig.id", back_populates="children")


class Branch(Base):
    """Its mapping loads by each kind of further statement."""

    __tablename__ = "branches"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    shelves: Mapped[list["Shelf"]] = relationship(
        lazy="selectin", back_populates="branch", order_by="Shelf.id"
    )
    staff: Mapped[list["Staff"]] = relationship(
        lazy="subquery", back_populates="branch", order_by="Staff.id"
    )


class Shelf(Base):
    """Loads its branch at once, and with it the staff there."""

    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    branch_id: Mapped[int | None] = mapped_column(ForeignKey("branches.id"))
    branch: Mapped[Branch | None] = relationship(lazy="immediate", back_populates="shelves")


class Staff(Base):
    """A table for each kind, joined to this one."""

    __tablename__ = "staff"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "staff"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    branch_id: Mapped[int | None] = mapped_column(ForeignKey("branches.id"))
    branch: Mapped[Branch | None] = relationship(back_populates="staff")


class Clerk(Staff):
    """Has desks, which are loaded along by its mapping alone."""

    __tablename__ = "clerks"
    __mapper_args__ = {"polymorphic_identity": "clerk"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(ForeignKey("staff.id"), primary_key=True)
    rank: Mapped[int]
    desks: Mapped[list["Desk"]] = relationship(lazy="selectin", order_by="Desk.id")


class Keeper(Staff):
    """Is loaded by a statement of its own, by its mapping."""

    __tablename__ = "keepers"
    __mapper_args__ = {"polymorphic_identity": "keeper", "polymorphic_load": "selectin"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(ForeignKey("staff.id"), primary_key=True)
    keys: Mapped[int]
    parcels: Mapped[list["Parcel"]] = relationship(order_by="Parcel.id")


class Desk(Base):
    """Belongs to a clerk."""

    __tablename__ = "desks"
    id: Mapped[int] = mapped_column(primary_key=True)
    clerk_id: Mapped[int] = mapped_column(ForeignKey("clerks.id"))


class Parcel(Base):
    """Belongs to a keeper."""

    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    keeper_id: Mapped[int] = mapped_column(ForeignKey("keepers.id"))


class Work(Base):
    """One table for all kinds."""

    __tablename__ = "works"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "work"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Novel(Work):
    """Has a genre, which works in general have not."""

    __mapper_args__ = {"polymorphic_identity": "novel"}  # noqa: RUF012 - SQLAlchemy's
    genre_id: Mapped[int | None] = mapped_column(ForeignKey("genres.id"))
    genre: Mapped["Genre | None"] = relationship(lazy="selectin")


class Genre(Base):
    """Of novels; without a foreign key, of tags as well."""

    __tablename__ = "genres"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    likes: Mapped[list[Tag]] = relationship(
        primaryjoin=lambda: Genre.name == foreign(Tag.word), viewonly=True, order_by=Tag.id
    )


class Member(MappedAsDataclass, Base):
    """A dataclass that loads who brought it here."""

    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    sponsor_id: Mapped[int | None] = mapped_column(ForeignKey("members.id"), default=None)
    sponsored: Mapped[list["Member"]] = relationship(
        default_factory=list, lazy="selectin", order_by="Member.id", init=False
    )


def rows() -> list[Any]:
    """Return new instances of every class, in an order in which they can be written."""
    tags = [Tag(id=n, word=word) for n, word in enumerate(("sea", "war", "love"), 1)]
    authors = [
        Author(
            id=n,
            name=f"author {n}",
            biography=f"born {n}",
            country_id=[None, 1, 2][n % 3],
            birthplace=["Peru", None, "Chad"][n % 3],
            mentor_id=n // 2 or None,
        )
        for n in range(1, 8)
    ]
    authors[0].friends = authors[1:3]
    books = [
        Book(
            id=n,
            title=f"book {n}",
            pages=n * 50,
            binding=list(Binding)[n % 2],
            author_id=1 + n % 5,
            tags=tags[: n % 4],
        )
        for n in range(1, 12)
    ]
    editions = [Edition(book_id=n, number=m) for n in range(1, 6) for m in range(1, 1 + n % 3)]
    return [
        Country(id=1, name="Peru"),
        Country(id=2, name="Chad"),
        Country(id=3, name="Fiji"),
        *tags,
        *authors,
        *(Label(id=UUID(int=n), author_id=n) for n in range(1, 4)),
        *(Visit(id=n, author_id=1) for n in range(1, 3)),
        *books,
        *editions,
        *(Printing(id=n, book_id=1 + n % 2, number=1) for n in range(1, 5)),
        Printing(id=5),
        *(Node(id=n, parent_id=n // 2 or None) for n in range(1, 32)),
        *(Twig(id=n, parent_id=n // 2 or None) for n in range(1, 32)),
        Branch(id=1, name="north"),
        Branch(id=2, name="south"),
        Branch(id=3, name="empty"),
        *(Shelf(id=n, branch_id=[None, 1, 2][n % 3]) for n in range(1, 6)),
        Staff(id=1, name="s", branch_id=1),
        Clerk(id=2, name="c", branch_id=1, rank=5),
        Clerk(id=3, name="d", branch_id=2, rank=6),
        Keeper(id=4, name="k", branch_id=2, keys=7),
        Keeper(id=5, name="l", keys=8),
        *(Desk(id=n, clerk_id=2 + n % 2) for n in range(1, 4)),
        *(Parcel(id=n, keeper_id=4) for n in range(1, 3)),
        Genre(id=1, name="sea"),
        Genre(id=2, name="none"),
        Work(id=1),
        Novel(id=2, genre_id=1),
        Novel(id=3),
        *(Member(id=n, sponsor_id=n // 2 or None) for n in range(1, 6)),
    ]
