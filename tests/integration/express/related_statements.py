"""Statements that load related objects by further statements, in each of the ways there are."""

from typing import Any

from sqlalchemy import and_, delete, insert, select, text, union_all, update
from sqlalchemy.orm import (
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
    with_loader_criteria,
    with_polymorphic,
)
from sqlalchemy.orm.interfaces import ORMOption
from tests.integration.express.library import (
    Author,
    Binding,
    Book,
    Branch,
    Clerk,
    Country,
    Edition,
    Genre,
    Keeper,
    Label,
    Member,
    Node,
    Novel,
    Printing,
    Shelf,
    Staff,
    Tag,
    Twig,
    Work,
)

Other = aliased(Author, name="other")
Tome = aliased(Book, name="tome")
everyone = with_polymorphic(Staff, "*")
Everyone = with_polymorphic(Staff, "*", aliased=True)
clerks = with_polymorphic(Staff, [Clerk])
authors = select(Author).order_by(Author.id)
books = select(Book).order_by(Book.id)
countries = select(Country).order_by(Country.id)
branches = select(Branch).order_by(Branch.id)
staff = select(Staff).order_by(Staff.id)
twigs = select(Twig).where(Twig.id < 4).order_by(Twig.id)

BY_EACH_LOADER: dict[str, tuple[Any, Any]] = {
    "many_to_one": (authors, Author.country),
    "many_to_one_by_name": (authors, Author.born_in),
    "many_to_one_composite": (select(Printing).order_by(Printing.id), Printing.edition),
    "many_to_one_self": (authors, Author.mentor),
    "one_to_many": (authors, Author.books),
    "one_to_many_converted_key": (countries, Country.authors),
    "one_to_many_composite": (
        select(Edition).order_by(Edition.book_id, Edition.number),
        Edition.printings,
    ),
    "one_to_many_self": (authors, Author.students),
    "one_to_many_keyed": (authors, Author.book_by_title),
    "one_to_many_set": (authors.where(Author.id > 2), Author.book_set),
    "one_to_one": (authors, Author.label),
    "one_to_one_back": (select(Label).order_by(Label.id), Label.author),
    "one_of_many_by_criteria": (authors.where(Author.id == 2), Author.last_book),
    "many_to_many": (books, Book.tags),
    "many_to_many_back": (select(Tag).order_by(Tag.id), Tag.books),
    "many_to_many_self": (authors, Author.friends),
    "without_foreign_key": (select(Genre).order_by(Genre.id), Genre.likes),
    "write_only": (authors, Author.visits),
    "dynamic": (authors, Author.queried),
    "none_found": (authors.where(Author.id < 0), Author.books),
    "nothing_related": (authors.where(Author.id > 5), Author.books),
    "without_its_key": (authors.options(defer(Author.country_id)), Author.country),
    "limited": (authors.limit(3).offset(1), Author.books),
    "distinct": (select(Author).join(Author.books).distinct().order_by(Author.id), Author.books),
    "joined": (select(Author).join(Author.country).order_by(Author.id), Author.books),
    "from_union": (
        select(Author).from_statement(
            union_all(authors.where(Author.id < 3).subquery().select()).order_by("id")
        ),
        Author.books,
    ),
    "from_text": (
        select(Author).from_statement(
            text("SELECT id, name, country_id, birthplace, mentor_id FROM authors ORDER BY id")
        ),
        Author.books,
    ),
    "wildcard": (select(Label).order_by(Label.id), None),
    "aliased": (select(Other).order_by(Other.id), Other.books),
    "aliased_union": (
        select(
            union := aliased(
                Author,
                union_all(
                    select(Author).where(Author.id < 3), select(Author).where(Author.id > 6)
                ).subquery(),
            )
        ).order_by(union.id),
        union.books,
    ),
    "in_a_tuple": (
        select(Author, Book.title, Book).join(Author.books).order_by(Book.id),
        Author.country,
    ),
    "second_of_a_tuple": (select(Author, Book).join(Author.books).order_by(Book.id), Book.tags),
    "outer_joined_none": (
        select(Author, Label).outerjoin(Author.label).order_by(Author.id),
        Label.author,
    ),
    "of_subclass": (staff, Staff.branch),
    "with_polymorphic_own": (select(everyone).order_by(everyone.id), everyone.Keeper.parcels),
    "with_polymorphic_alias": (select(Everyone).order_by(Everyone.id), Everyone.branch),
    "of_type_subclass": (branches, Branch.staff.of_type(Clerk)),
    "of_type_polymorphic": (branches, Branch.staff.of_type(everyone)),
    "of_type_alias": (authors, Author.books.of_type(Tome)),
}
LOADERS = {
    "selectin": selectinload,
    "subquery": subqueryload,
    "immediate": immediateload,
}
FURTHER: dict[str, Any] = {
    "order_by_and_criteria": authors.options(selectinload(Author.books.and_(Book.pages > 200))),
    "criteria_enum": authors.options(
        selectinload(Author.books.and_(Book.binding == Binding.CLOTH))
    ),
    "criteria_of_two": authors.options(
        selectinload(Author.books.and_(and_(Book.pages > 100, Book.pages < 400)))
    ),
    "criteria_immediate": authors.options(immediateload(Author.books.and_(Book.pages > 200))),
    "criteria_subquery": authors.options(subqueryload(Author.books.and_(Book.pages > 200))),
    "loader_criteria": authors.options(
        selectinload(Author.books), with_loader_criteria(Book, Book.pages > 200)
    ),
    "loader_criteria_lambda": authors.options(
        selectinload(Author.books).selectinload(Book.tags),
        with_loader_criteria(Book, lambda cls: cls.pages > 200, include_aliases=True),
    ),
    "load_only": authors.options(selectinload(Author.books).load_only(Book.title)),
    "load_only_above": authors.options(load_only(Author.name), selectinload(Author.books)),
    "load_only_without_key": authors.options(load_only(Author.name), selectinload(Author.country)),
    "defer_within": authors.options(selectinload(Author.books).defer(Book.pages)),
    "undefer_within": books.options(selectinload(Book.author).options(undefer(Author.biography))),
    "chunks": authors.options(selectinload(Author.books, chunksize=2)),
    "two": authors.options(selectinload(Author.books), selectinload(Author.country)),
    "two_of_the_same": books.options(
        selectinload(Book.author).selectinload(Author.country), selectinload(Book.tags)
    ),
    "chain": countries.options(
        selectinload(Country.authors).selectinload(Author.books).selectinload(Book.tags)
    ),
    "chain_and_back": authors.options(
        selectinload(Author.books).selectinload(Book.author).selectinload(Author.label)
    ),
    "chain_composite": books.options(selectinload(Book.editions).selectinload(Edition.printings)),
    "then_joined": authors.options(selectinload(Author.books).joinedload(Book.tags)),
    "then_joined_scalar": authors.options(selectinload(Author.books).joinedload(Book.author)),
    "then_subquery": authors.options(selectinload(Author.books).subqueryload(Book.tags)),
    "then_immediate": authors.options(selectinload(Author.books).immediateload(Book.tags)),
    "then_raise": authors.options(selectinload(Author.books).raiseload(Book.tags)),
    "joined_then": books.options(joinedload(Book.author).selectinload(Author.books)),
    "joined_many_then": authors.options(joinedload(Author.books).selectinload(Book.tags)),
    "joined_many_subquery": authors.options(joinedload(Author.books).subqueryload(Book.tags)),
    "contains_then": select(Book)
    .join(Book.author)
    .options(contains_eager(Book.author).selectinload(Author.country))
    .order_by(Book.id),
    "subquery_then": countries.options(subqueryload(Country.authors).selectinload(Author.books)),
    "subquery_twice": countries.options(subqueryload(Country.authors).subqueryload(Author.books)),
    "immediate_then": countries.options(immediateload(Country.authors).selectinload(Author.books)),
    "default_then": books.options(defaultload(Book.author).selectinload(Author.books)),
    "beside_joined": authors.options(joinedload(Author.country), selectinload(Author.books)),
    "beside_joined_many": authors.options(joinedload(Author.books), selectinload(Author.students)),
    "beside_raise": authors.options(selectinload(Author.books), raiseload("*")),
    "beside_raise_of_one": authors.options(selectinload(Author.books), raiseload(Author.country)),
    "beside_lazy": authors.options(selectinload(Author.books), lazyload(Author.country)),
    "options_within": authors.options(
        selectinload(Author.books).options(load_only(Book.title), selectinload(Book.tags))
    ),
    "recursion": twigs.options(selectinload(Twig.children, recursion_depth=2)),
    "recursion_zero": twigs.options(selectinload(Twig.children, recursion_depth=0)),
    "recursion_all": twigs.options(selectinload(Twig.children, recursion_depth=-1)),
    "recursion_up": select(Twig)
    .where(Twig.id > 28)
    .order_by(Twig.id)
    .options(selectinload(Twig.parent, recursion_depth=-1)),
    "recursion_immediate": twigs.options(immediateload(Twig.children, recursion_depth=2)),
    "recursion_of_another": authors.options(selectinload(Author.books, recursion_depth=2)),
    "by_mapping_tree": select(Node).where(Node.id < 3).order_by(Node.id),
    "by_mapping": branches,
    "by_mapping_immediate": select(Shelf).order_by(Shelf.id),
    "by_mapping_off": branches.options(lazyload("*")),
    "by_mapping_off_one": branches.options(lazyload(Branch.staff), lazyload(Branch.shelves)),
    "by_mapping_raised": branches.options(raiseload(Branch.staff)),
    "by_mapping_joined": branches.options(joinedload(Branch.staff)),
    "by_mapping_of_dataclass": select(Member).order_by(Member.id),
    "by_mapping_of_subclass": select(Work).order_by(Work.id),
    "by_mapping_of_that": select(Novel).order_by(Novel.id),
    "by_mapping_polymorphic": staff,
    "by_mapping_keeper": select(Keeper).order_by(Keeper.id),
    "joined_to_subclasses": branches.options(joinedload(Branch.staff), lazyload(Branch.shelves)),
    "selectin_polymorphic": staff.options(selectin_polymorphic(Staff, [Clerk])),
    "selectin_polymorphic_two": staff.options(selectin_polymorphic(Staff, [Clerk, Keeper])),
    "selectin_polymorphic_then": staff.options(
        selectin_polymorphic(Staff, [Keeper]), selectinload(Keeper.parcels)
    ),
    "subclass_alone": staff.options(selectinload(Keeper.parcels)),
    "selectin_to_polymorphic": branches.options(
        selectinload(Branch.staff).selectin_polymorphic([Clerk, Keeper])
    ),
    "of_type_then": branches.options(
        selectinload(Branch.staff.of_type(Keeper)).selectinload(Keeper.parcels)
    ),
    "of_poly_then": branches.options(
        selectinload(Branch.staff.of_type(clerks)).selectinload(clerks.Clerk.desks)
    ),
    "with_polymorphic": select(everyone).order_by(everyone.id),
    "values_and_instances": select(Author.name, Author)
    .options(selectinload(Author.books))
    .order_by(Author.id),
    "wildcard_selectin": authors.options(selectinload("*")),
}


def _by(loader: Any, attribute: Any) -> ORMOption:
    option: ORMOption = loader("*") if attribute is None else loader(attribute)
    return option


READS: dict[str, Any] = FURTHER | {
    f"{name}_{kind}": statement.options(_by(loader, attribute))
    for name, (statement, attribute) in BY_EACH_LOADER.items()
    for kind, loader in LOADERS.items()
}

_same_name = {"name": Author.name}
WRITES: dict[str, Any] = {
    "update": update(Author).values(_same_name).returning(Author),
    "update_selectin": update(Author)
    .values(_same_name)
    .returning(Author)
    .options(selectinload(Author.books).selectinload(Book.tags)),
    "update_scalar": update(Author)
    .where(Author.id < 4)
    .values(_same_name)
    .returning(Author)
    .options(selectinload(Author.country)),
    "update_criteria": update(Author)
    .values(_same_name)
    .returning(Author)
    .options(selectinload(Author.books.and_(Book.pages > 200))),
    "update_immediate": update(Author)
    .values(_same_name)
    .returning(Author)
    .options(immediateload(Author.books)),
    "update_subquery": update(Author)
    .values(_same_name)
    .returning(Author)
    .options(subqueryload(Author.books)),
    "update_joined": update(Author)
    .values(_same_name)
    .returning(Author)
    .options(joinedload(Author.country)),
    "update_tuple": update(Author)
    .values(_same_name)
    .returning(Author.id, Author)
    .options(selectinload(Author.books)),
    "update_nothing": update(Author)
    .where(Author.id < 0)
    .values(_same_name)
    .returning(Author)
    .options(selectinload(Author.books)),
    "update_by_mapping": update(Branch).values(name=Branch.name).returning(Branch),
    "update_tree": update(Node).values(id=Node.id).where(Node.id < 4).returning(Node),
    "update_polymorphic": update(Work).values(id=Work.id).returning(Work),
    "insert": insert(Author).values(id=101, name="new", country_id=2).returning(Author),
    "insert_selectin": insert(Author)
    .values(id=101, name="new", country_id=2, mentor_id=1)
    .returning(Author)
    .options(selectinload(Author.country), selectinload(Author.mentor)),
    "insert_chain": insert(Book)
    .values(id=101, title="new", pages=1, binding=Binding.CLOTH, author_id=1)
    .returning(Book)
    .options(selectinload(Book.author).selectinload(Author.books)),
    "insert_several": insert(Author)
    .values([{"id": 101, "name": "a", "country_id": 1}, {"id": 102, "name": "b", "country_id": 2}])
    .returning(Author)
    .options(selectinload(Author.country)),
    "insert_by_mapping": insert(Shelf).values(id=101, branch_id=1).returning(Shelf),
    "insert_dataclass": insert(Member).values(id=101, sponsor_id=1).returning(Member),
    "insert_subclass": insert(Novel).values(id=101, genre_id=1).returning(Novel),
    "delete": delete(Printing)
    .where(Printing.id > 200)
    .returning(Printing)
    .options(selectinload(Printing.edition)),
    "delete_by_mapping": delete(Shelf).where(Shelf.id > 200).returning(Shelf),
    "from_insert": select(Author)
    .from_statement(insert(Author).values(id=101, name="new", country_id=2).returning(Author))
    .options(selectinload(Author.country)),
}
