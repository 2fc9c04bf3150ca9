"""A statement that is compiled once, and everything about it that no database decides."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Protocol, TypeVar, TypeVarTuple, overload

from sqlalchemy import (
    CompoundSelect,
    Delete,
    Insert,
    Row,
    Select,
    TextClause,
    TextualSelect,
    Update,
    exists,
    select,
)
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import FromStatement, LoaderCriteriaOption, Mapper
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import (
    ReturningDelete,
    ReturningInsert,
    ReturningUpdate,
    UpdateBase,
)
from sqlalchemy.sql.elements import (
    BindParameter,
    ClauseElement,
)

from penstock.context import Settings
from penstock.drivers import sqlalchemy_internals as internals
from penstock.drivers.effects import Effect, effects_of
from penstock.express.compiled import Attributes, Plan, refuse_control, schemas_of
from penstock.express.errors import ExpressError, ParameterError, QueryRefused
from penstock.express.rows import ColumnRebinder, is_of_one_row

DIALECT: Dialect = asyncpg.dialect(dbapi=asyncpg.dialect.import_dbapi())  # type: ignore[no-untyped-call]  # SQLAlchemy's
"""With its driver, which converts ranges and bit strings."""

_KINDS = (Select, CompoundSelect, TextualSelect, TextClause, FromStatement, UpdateBase)

_OF_A_SESSION = frozenset(
    {
        "driver_column_names",
        "identity_token",
        "is_delete_using",
        "is_update_from",
        "isolation_level",
        "max_row_buffer",
        "no_parameters",
        "postgresql_deferrable",
        "postgresql_readonly",
        "prebuffer_rows",
        "stream_results",
        "yield_per",
    }
)
"""Execution options of SQLAlchemy's that would change something which the lane does by itself."""


def refuse_unfit(statement: Any) -> None:
    """Refuse what cannot be run at all, whatever the database.

    Raises:
        QueryRefused: With the reason and what to do instead.
    """
    if not isinstance(statement, _KINDS):
        raise QueryRefused(
            f"{type(statement).__name__} is no statement for query(). It takes select(), union(), "
            "insert(), update(), delete() and text(). A str goes into text(), a function or an "
            "expression into select()."
        )
    for refuse in _REFUSALS:
        refuse(statement)


def _refuse_control(statement: Any) -> None:
    if isinstance(statement, TextClause):
        # How many statements it is depends on the database, whose plan looks at that.
        refuse_control(effects_of(statement.text) & Effect.CONTROL, statement.text)


def refuse_options(statement: Any) -> None:
    """Refuse execution options that only a session understands.

    Raises:
        QueryRefused: It has some.
    """
    options: Mapping[str, Any] = statement.get_execution_options()
    if refused := sorted(o for o in options if o in _OF_A_SESSION or str(o).startswith("_")):
        raise QueryRefused(
            f"The execution options {', '.join(refused)} mean something to a session alone: run "
            "the statement there, or leave them out."
        )


def _refuse_tables(statement: Any) -> None:
    if not isinstance(statement, UpdateBase):
        return
    mapper = _mapper_of(statement)
    if mapper is not None and _changes_all(statement):
        raise QueryRefused(
            f"update({mapper.class_.__name__}) says neither which rows to change nor how: a "
            "session would go by primary key. Name the rows by where()."
        )
    if mapper is not None and len(mapper.tables) > 1 and not getattr(statement, "is_delete", False):
        names = ", ".join(str(table) for table in mapper.tables)
        raise QueryRefused(
            f"{mapper.class_.__name__} is stored in several tables ({names}), which takes several "
            "statements: write it by a session."
        )


def _changes_all(statement: Any) -> bool:
    return isinstance(statement, Update) and is_open(statement) and statement.whereclause is None


def _mapper_of(statement: UpdateBase) -> Mapper[Any] | None:
    entity = statement.entity_description.get("entity")
    mapper: Mapper[Any] | None = getattr(entity, "__mapper__", None)
    return mapper


def _refuse_return_defaults(statement: Any) -> None:
    if getattr(statement, "_return_defaults", False):
        raise QueryRefused("return_defaults() fills a session's objects: use returning().")


def is_open(statement: Any) -> bool:
    """Return whether the values name the statement's columns, as in ``insert(table)`` alone."""
    if not isinstance(statement, Insert | Update):
        return False
    given: Any = statement
    return not (
        internals.values(given)
        or internals.all_row_values(given)
        or getattr(given, "_ordered_values", None)
        or getattr(given, "select", None) is not None
    )


def _refuse_mistakes(statement: Any) -> None:
    attributes: Mapping[str, Any] = getattr(statement, "_propagate_attrs", {})
    if attributes.get("compile_state_plugin") == "orm" and not isinstance(statement, UpdateBase):
        # Compiled and loaded of no rows, for SQLAlchemy to raise now what it would raise then.
        with contextlib.suppress(CompileError):  # as it may be another database's
            _ = Plan(statement, DIALECT).takes_statements


_REFUSALS = (
    _refuse_control,
    refuse_options,
    _refuse_tables,
    _refuse_return_defaults,
    _refuse_mistakes,
)


_T_co = TypeVar("_T_co", covariant=True)
_T = TypeVar("_T")
_T1 = TypeVar("_T1")
_T2 = TypeVar("_T2")
_Ts = TypeVarTuple("_Ts")


class Mapped(Protocol):
    """What a declaratively mapped class has."""

    __mapper__: ClassVar[Mapper[Any]]


_M = TypeVar("_M", bound=Mapped)

Statement = (
    Select[*tuple[Any, ...]]
    | CompoundSelect[*tuple[Any, ...]]
    | TextualSelect
    | TextClause
    | FromStatement[*tuple[Any, ...]]
    | UpdateBase
)
"""What the express lane takes."""


class Query(Generic[_T_co]):
    """A statement, compiled once for each kind of database that runs it; made by :func:`query`.

    Args:
        statement: What is to be run.
        batch: Whether a read of it may leave together with others.

    Attributes:
        statement: As it was given.
        batch: The same.
        writes: Whether it is an INSERT, UPDATE or DELETE.
        required: Names of the parameters that every call has to give.
        count: How many these are.
        optional: Names of those that have a value of their own.
        is_open: Whether its columns are named by the values, as ``insert(table)`` alone.
        plans: Those that were made, by dialect; none of an open statement.
        json: The queries for the JSON of its rows, by response model.
    """

    def __init__(self, statement: Statement, *, batch: bool = True) -> None:
        self.statement: Any = statement
        self.batch = batch
        self.writes = isinstance(statement, UpdateBase)
        named = [bind for bind in _binds(statement) if not bind.unique]
        self.required = frozenset(b.key for b in named if b.required)
        self.optional = frozenset(b.key for b in named if not b.required)
        self.count = len(self.required)
        self.is_open = is_open(statement)
        self.plans: dict[Dialect, Plan] = {}
        self._open_plans: dict[tuple[Dialect, tuple[str, ...]], Plan] = {}
        self.json: dict[type, Any] = {}
        self._existence: Query[Any] | None = None

    @cached_property
    def attributes(self) -> Attributes:
        """What an open statement's values can be given for."""
        return Attributes.of(self.statement)

    @cached_property
    def _known(self) -> frozenset[str]:
        parameters = self.required | self.optional
        return parameters | self.attributes.names if self.is_open else parameters

    @cached_property
    def column_rebinder(self) -> ColumnRebinder:
        """What its rows are found by, and those of another statement of the same form."""
        return ColumnRebinder(self.statement)

    @cached_property
    def is_of_one_row(self) -> bool:
        """Whether it writes at most one row, as its form says."""
        return is_of_one_row(self.statement)

    def __repr__(self) -> str:
        return f"query({' '.join(str(self.statement).split())})"

    def plan(self, dialect: Dialect, names: Iterable[str] = ()) -> Plan:
        """Return the statement compiled for a dialect.

        Args:
            dialect: Whose SQL it is to be.
            names: The parameters of the call: an open statement is another one for each set.
        """
        if not self.is_open:
            plan = self.plans.get(dialect)
            if plan is None:
                plan = self.plans[dialect] = Plan(self.statement, dialect)
            return plan
        columns = tuple(name for name in names if name not in self.required | self.optional)
        key = dialect, columns
        if key not in self._open_plans:
            keys = {name: self.attributes.columns[name] for name in columns}
            self._open_plans[key] = Plan(self.statement, dialect, keys)
        return self._open_plans[key]

    def existence(self) -> "Query[Any]":
        """Return the query for whether this one has a result.

        Raises:
            ExpressError: This is no ``select()``.
        """
        if self._existence is None:
            self._existence = query(existence_of(self.statement), batch=self.batch)
        return self._existence

    def spread(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a call's values, those of an open statement each for one column.

        Args:
            values: Those of the call, by name.

        Raises:
            ParameterError: Some are missing or unknown, or a value is none of its attribute's.
        """
        self.check(values)
        if not self.is_open:
            return values
        return self.attributes.spread(values, self.required | self.optional)

    def check(self, values: Mapping[str, Any]) -> None:
        """Hold the names of some values against the statement's parameters.

        Args:
            values: Those of the call, by name.

        Raises:
            ParameterError: Some are missing or unknown; the message names them.
        """
        missing = self.required - values.keys()
        known = self._known
        unknown = values.keys() - known
        if missing or unknown:
            raise ParameterError(
                "; ".join(
                    f"{what}: {', '.join(sorted(map(str, names)))}"
                    for what, names in (("missing parameters", missing), ("unknown", unknown))
                    if names
                )
                + f". The statement takes {', '.join(sorted(known)) or 'none'}: {self!r}"
            )


@overload
def query(statement: Select[_M], *, batch: bool = ...) -> Query[_M]: ...  # type: ignore[overload-overlap]  # the first that fits
@overload
def query(statement: Select[_T], *, batch: bool = ...) -> Query[Row[_T]]: ...
@overload
def query(
    statement: Select[_T1, _T2, *_Ts], *, batch: bool = ...
) -> Query[Row[_T1, _T2, *_Ts]]: ...
@overload
def query(  # type: ignore[overload-overlap]  # as above
    statement: ReturningInsert[_M] | ReturningUpdate[_M] | ReturningDelete[_M],
) -> Query[_M]: ...
@overload
def query(
    statement: ReturningInsert[_T] | ReturningUpdate[_T] | ReturningDelete[_T],
) -> Query[Row[_T]]: ...
@overload
def query(
    statement: ReturningInsert[_T1, _T2, *_Ts]
    | ReturningUpdate[_T1, _T2, *_Ts]
    | ReturningDelete[_T1, _T2, *_Ts],
) -> Query[Row[_T1, _T2, *_Ts]]: ...
@overload
def query(statement: CompoundSelect[*_Ts], *, batch: bool = ...) -> Query[Row[*_Ts]]: ...
@overload
def query(
    statement: TextClause | TextualSelect | FromStatement[*_Ts] | Insert | Update | Delete,
    *,
    batch: bool = ...,
) -> Query[Any]: ...


def query(statement: Any, *, batch: bool = True) -> Query[Any]:
    """Prepare a statement for the express lane, once, at import.

    Args:
        statement: A ``select()``, also of mapped classes, a ``union()``, a ``text()``, or an
            ``insert()``, ``update()`` or ``delete()``. What differs from call to call is a named
            ``bindparam("name")``; for ``text()``, ``:name``.
        batch: Whether a read of it may leave together with others that are asked for at the same
            time, in one round trip and one transaction; False for one that each caller has to
            have run by itself. Writes never do.

    Returns:
        What :class:`Reader` and :class:`Writer` run. One mapped class gives its instances,
        detached; anything else gives rows.

    Raises:
        QueryRefused: The express lane cannot run it as a session would; the message says why.
    """
    refuse_unfit(statement)
    return Query(statement, batch=batch)


def existence_of(statement: Any) -> Select[bool]:
    """Return the statement for whether another one has a result.

    Raises:
        ExpressError: That is no ``select()``.
    """
    if not isinstance(statement, Select):
        shown = " ".join(str(statement).split())
        raise ExpressError(f"exists() takes a select(), and this is {shown}")
    criteria = [
        option
        for option in internals.options(statement)
        if isinstance(option, LoaderCriteriaOption)
    ]  # which the ORM takes from the outermost statement alone
    options = statement.get_execution_options()
    return select(exists(statement)).options(*criteria).execution_options(**options)


def as_query(statement: Any) -> Query[Any]:
    """Return what :func:`query` made, or make it of an ad-hoc statement."""
    return statement if isinstance(statement, Query) else query(statement)


def _binds(statement: Any) -> Iterable[BindParameter[Any]]:
    if isinstance(statement, FromStatement):
        statement = statement.element
    parts = [statement, *_in_options(statement), *_in_rows(statement)]
    return [e for part in parts for e in visitors.iterate(part) if isinstance(e, BindParameter)]


def _in_rows(statement: Any) -> Iterable[ClauseElement]:
    """Return the expressions within the rows of an ``insert().values([...])``."""
    for rows in getattr(statement, "_multi_values", ()):
        for row in rows:
            values = row.values() if isinstance(row, Mapping) else row
            yield from (value for value in values if isinstance(value, ClauseElement))


def _in_options(statement: Any) -> Iterable[ClauseElement]:
    """Return the expressions within ``with_expression()`` and ``with_loader_criteria()``."""
    for option in internals.options(statement):
        expressions = [getattr(option, "where_criteria", None)]
        for element in getattr(option, "context", ()):
            expressions += internals.extra_criteria(element)
        yield from (e for e in expressions if isinstance(e, ClauseElement))


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One use of a query.

    Args:
        query: What is to be run.
        statement: As it was given: the query's own, or an ad-hoc one of the same form.
        values: Of its named parameters.
        extracted: The bound values of an ad-hoc statement; None for the query's own.
        settings: Names and values of server settings that hold for this call alone; ``role`` is
            the role.
        rows: The values for each of several runs; None for one run, with ``values``.
        has_run_listeners: Whether the listeners to ``do_orm_execute`` were called.
    """

    query: Query[Any]
    statement: Any
    values: Mapping[str, Any]
    extracted: Sequence[BindParameter[Any]] | None = None
    settings: Settings = ()
    rows: Sequence[Mapping[str, Any]] | None = None
    has_run_listeners: bool = False


SIZE = 500
"""Forms that are kept, as many as SQLAlchemy's own cache keeps."""


class AdHocQueries:
    """The forms of statements that were seen, the one that was not used for longest dropped first.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._queries: OrderedDict[Any, Query[Any]] = OrderedDict()

    def call(self, statement: Any, values: Mapping[str, Any]) -> Call:
        """Return a call of the query for a statement's form.

        Args:
            statement: What is to be run.
            values: Of its named parameters.

        Raises:
            QueryRefused: As :func:`query` says.
        """
        form = getattr(statement, "_generate_cache_key", lambda: None)()
        if form is None:
            return Call(query(statement), statement, values)
        # Of which parameters a value has to be given is no part of the form, nor are other schemas.
        key = form.key, tuple([bind.required for bind in form.bindparams]), schemas_of(statement)
        known = self._queries.get(key)
        if known is None:
            known = self._queries[key] = query(statement)
            if len(self._queries) > self._size:
                self._queries.popitem(last=False)
        else:
            refuse_options(statement)  # which are no part of its form
            self._queries.move_to_end(key)
        return Call(known, statement, values, form.bindparams)
