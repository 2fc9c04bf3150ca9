"""A statement that is compiled once, and everything about it that no database decides."""

from collections.abc import Iterable, Mapping
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
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import FromStatement, LoaderCriteriaOption, Mapper
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert, ReturningUpdate, UpdateBase
from sqlalchemy.sql.elements import BindParameter, ClauseElement

from penstock.express.attributes import Attributes
from penstock.express.errors import ExpressError, ParameterError
from penstock.express.one_row import is_of_one_row
from penstock.express.own_columns import OwnColumns
from penstock.express.plan import Plan
from penstock.express.refusals import is_open, refuse_unfit

__all__ = ["Mapped", "Query", "Statement", "as_query", "existence_of", "query"]

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

    Attributes:
        statement: As it was given.
        writes: Whether it is an INSERT, UPDATE or DELETE.
        required: Names of the parameters that every call has to give.
        count: How many these are.
        optional: Names of those that have a value of their own.
        is_open: Whether its columns are named by the values, as ``insert(table)`` alone.
    """

    def __init__(self, statement: Statement) -> None:
        self.statement: Any = statement
        self.writes = isinstance(statement, UpdateBase)
        named = [bind for bind in _binds(statement) if not bind.unique]
        self.required = frozenset(b.key for b in named if b.required)
        self.optional = frozenset(b.key for b in named if not b.required)
        self.count = len(self.required)
        self.is_open = is_open(statement)
        self._plans: dict[tuple[int, tuple[str, ...]], tuple[Dialect, Plan]] = {}
        self._dialect: Dialect | None = None
        self._plan: Plan | None = None
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
    def own_columns(self) -> OwnColumns:
        """What its rows are found by, and those of another statement of the same form."""
        return OwnColumns(self.statement)

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
        if dialect is self._dialect and self._plan is not None:
            return self._plan
        columns: tuple[str, ...] = ()
        if self.is_open:
            columns = tuple(name for name in names if name not in self.required | self.optional)
        key = (id(dialect), columns)
        if key not in self._plans:
            keys = {name: self.attributes.columns[name] for name in columns}
            plan = Plan(self.statement, dialect, keys if self.is_open else None)
            self._plans[key] = dialect, plan
        plan = self._plans[key][1]
        if not self.is_open:
            self._dialect, self._plan = dialect, plan
        return plan

    def existence(self) -> "Query[Any]":
        """Return the query that tells whether this one has a result.

        Raises:
            ExpressError: This is no ``select()``.
        """
        if self._existence is None:
            self._existence = query(existence_of(self.statement))
        return self._existence

    def spread(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a call's values, those of an open statement each for one column.

        Raises:
            ParameterError: Some are missing or unknown, or a value is none of its attribute's.
        """
        self.check(values)
        if not self.is_open:
            return values
        return self.attributes.spread(values, self.required | self.optional)

    def check(self, values: Mapping[str, Any]) -> None:
        """Hold the names of some values against the statement's parameters.

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
def query(statement: Select[_M]) -> Query[_M]: ...  # type: ignore[overload-overlap]  # the first that fits
@overload
def query(statement: Select[_T]) -> Query[Row[_T]]: ...
@overload
def query(statement: Select[_T1, _T2, *_Ts]) -> Query[Row[_T1, _T2, *_Ts]]: ...
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
def query(statement: CompoundSelect[*_Ts]) -> Query[Row[*_Ts]]: ...
@overload
def query(
    statement: TextClause | TextualSelect | FromStatement[*_Ts] | Insert | Update | Delete,
) -> Query[Any]: ...


def query(statement: Any) -> Query[Any]:
    """Prepare a statement for the express lane, once, at import.

    Args:
        statement: A ``select()``, also of mapped classes, a ``union()``, a ``text()``, or an
            ``insert()``, ``update()`` or ``delete()``. What differs from call to call is a named
            ``bindparam("name")``; for ``text()``, ``:name``.

    Returns:
        What :class:`Reader` and :class:`Writer` run. One mapped class gives its instances,
        detached; anything else gives rows.

    Raises:
        QueryRefused: The express lane cannot run it as a session would; the message says why.
    """
    refuse_unfit(statement)
    return Query(statement)


def existence_of(statement: Any) -> Select[bool]:
    """Return the statement that tells whether another one has a result.

    Raises:
        ExpressError: That is no ``select()``.
    """
    if not isinstance(statement, Select):
        shown = " ".join(str(statement).split())
        raise ExpressError(f"exists() takes a select(), and this is {shown}")
    criteria = [
        option
        for option in statement._with_options  # noqa: SLF001 - no public way to them
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
    for option in getattr(statement, "_with_options", ()):
        expressions = [getattr(option, "where_criteria", None)]
        for element in getattr(option, "context", ()):
            expressions += element._extra_criteria  # noqa: SLF001 - no public way to them
        yield from (e for e in expressions if isinstance(e, ClauseElement))
