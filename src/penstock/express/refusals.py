"""What the express lane cannot run as a session would, told before anything is sent."""

import contextlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import CompoundSelect, Insert, Select, TextClause, TextualSelect, Update
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import FromStatement, Mapper
from sqlalchemy.sql.dml import UpdateBase

from penstock.drivers.effects import Effect, effects_of
from penstock.express.errors import QueryRefused
from penstock.express.plan import Plan, refuse_control

__all__ = ["is_open", "refuse_options", "refuse_unfit"]

_DIALECT: Dialect = asyncpg.dialect(dbapi=asyncpg.dialect.import_dbapi())  # type: ignore[no-untyped-call]  # SQLAlchemy's
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
    """Tell whether a statement's columns are named by the values, as in ``insert(table)`` alone."""
    if not isinstance(statement, Insert | Update):
        return False
    given: Any = statement
    return not (
        given._values  # noqa: SLF001 - there is no public way to ask, in all four lines
        or given._multi_values  # noqa: SLF001
        or getattr(given, "_ordered_values", None)
        or getattr(given, "select", None) is not None
    )


def _refuse_mistakes(statement: Any) -> None:
    attributes: Mapping[str, Any] = getattr(statement, "_propagate_attrs", {})
    if attributes.get("compile_state_plugin") == "orm" and not isinstance(statement, UpdateBase):
        # Compiled and loaded of no rows, for SQLAlchemy to raise now what it would raise then.
        with contextlib.suppress(CompileError):  # as it may be another database's
            _ = Plan(statement, _DIALECT).takes_statements


_REFUSALS = (
    _refuse_control,
    refuse_options,
    _refuse_tables,
    _refuse_return_defaults,
    _refuse_mistakes,
)
