"""What the express lane reads of SQLAlchemy's statements, plans and results without a public name.

SQLAlchemy's own execution reads the same. :mod:`penstock.drivers.capabilities` checks that it is
there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import QueuePool, Row
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.base import CompileState

# Statements.


def cache_key(statement: Any) -> Any:
    """Return the key by which SQLAlchemy keeps a statement compiled; None where it does not."""
    return statement._generate_cache_key()


def values(statement: Any) -> Mapping[Any, Any] | None:
    """Return the values that an INSERT or UPDATE was given by name; None for none."""
    return statement._values  # type: ignore[no-any-return]  # untyped


def all_row_values(statement: Any) -> Sequence[Any]:
    """Return the rows of values that an INSERT was given; empty for none."""
    return statement._multi_values  # type: ignore[no-any-return]  # untyped


def criteria(statement: Any) -> Iterable[Any]:
    """Return the expressions of a statement's WHERE."""
    return statement._where_criteria  # type: ignore[no-any-return]  # untyped


def returned_columns(statement: Any) -> Sequence[Any]:
    """Return the columns of a write's RETURNING; empty for none."""
    return statement._returning  # type: ignore[no-any-return]  # untyped


def raw_columns(statement: Any) -> Sequence[Any]:
    """Return the columns of a statement as they were given to it."""
    return statement._raw_columns  # type: ignore[no-any-return]  # untyped


def selected_columns(statement: Any) -> Iterable[Any]:
    """Return the columns of a statement, those of its entities among them."""
    return statement._all_selected_columns  # type: ignore[no-any-return]  # untyped


def options(statement: Any) -> Iterable[Any]:
    """Return what a statement was given by ``options()``."""
    return getattr(statement, "_with_options", ())


def extra_criteria(element: Any) -> Sequence[Any]:
    """Return the expressions that a loader option adds.

    Args:
        element: Of the option's ``context``.
    """
    return element._extra_criteria  # type: ignore[no-any-return]  # untyped


def runs_by_orm(statement: Any) -> bool:
    """Return whether a session has the ORM run a statement."""
    return statement._propagate_attrs.get("compile_state_plugin") == "orm"  # type: ignore[no-any-return]  # untyped


def annotated_for_orm(statement: Any) -> Any:
    """Return an INSERT as a session compiles it."""
    return statement._annotate({"dml_strategy": "orm"})


def orm_state_class(statement: Any) -> Any:
    """Return the class by which the ORM runs a statement."""
    return CompileState._get_plugin_class_for_plugin(statement, "orm")


def composite_values(composite: Any, value: Any) -> Sequence[Any]:
    """Return the values of a composite's columns.

    Args:
        composite: The attribute.
        value: An instance of its class.
    """
    return composite._composite_values_from_instance(value)  # type: ignore[no-any-return]  # untyped


# Compiled statements.


def bind_converters(compiled: Any) -> Mapping[str, Any]:
    """Return what makes the driver's values, by the names of parameters."""
    return compiled._bind_processors  # type: ignore[no-any-return]  # untyped


def result_columns(compiled: Any) -> Sequence[Any]:
    """Return the columns that a compiled statement returns."""
    return compiled._result_columns  # type: ignore[no-any-return]  # untyped


def column_structure(compiled: Any) -> tuple[Any, ...]:
    """Return what a result's metadata takes of a compiled statement."""
    return (
        compiled._result_columns,
        compiled._ordered_columns,
        compiled._textual_ordered_columns,
        compiled._ad_hoc_textual,
        compiled._loose_column_name_matching,
    )


def default_columns(compiled: Any) -> list[tuple[Any, ...]]:
    """Return the columns for which a write makes defaults.

    Returns:
        Of each the column, its key among the values, the default, and what kind it is of.
    """
    described = [
        *((column, column._default_description_tuple) for column in compiled.insert_prefetch or ()),
        *(
            (column, column._onupdate_description_tuple)
            for column in compiled.update_prefetch or ()
        ),
    ]
    return [
        (column, compiled._within_exec_param_key_getter(column), *made[:3])
        for column, made in described
    ]


def row_keys(state: Any) -> list[Any]:
    """Return the keys of an INSERT's rows of values; empty where it has none.

    Args:
        state: Of the compiled statement.
    """
    return list(state._dict_parameters) if getattr(state, "_has_multi_parameters", False) else []


def is_column_of_rows(column: Any) -> bool:
    """Return whether a column stands for a later row of an INSERT of several."""
    return column._is_multiparam_column  # type: ignore[no-any-return]  # untyped


def has_bind_expression(kind: Any) -> bool:
    """Return whether a type wraps its values in SQL."""
    return kind._has_bind_expression  # type: ignore[no-any-return]  # untyped


def bind_converter(kind: Any, dialect: Dialect) -> Any:
    """Return what makes a type's values the driver's; None where they are."""
    return kind._cached_bind_processor(dialect)


def result_converter(kind: Any, dialect: Dialect, coltype: Any = None) -> Any:
    """Return what makes the driver's values a type's; None where they are."""
    return kind._cached_result_processor(dialect, coltype)


# Results.


def key_to_index(metadata: Any) -> dict[Any, int]:
    """Return where a row's values are, by key; a row's own metadata is taken as well."""
    return metadata._key_to_index  # type: ignore[no-any-return]  # untyped


def result_converters(metadata: Any) -> Sequence[Any]:
    """Return what converts the values of each column."""
    return metadata._processors  # type: ignore[no-any-return]  # untyped


def safe_for_cache(metadata: Any) -> bool:
    """Return whether metadata may serve for other results of the same statement."""
    return metadata._safe_for_cache  # type: ignore[no-any-return]  # untyped


def rows_with_keys(rows: Sequence[Any], index: dict[Any, int]) -> list[Any]:
    """Return the same rows with other keys.

    Args:
        rows: At least one.
        index: Where the values are, by key.
    """
    parent = rows[0]._parent
    return [Row(parent, None, index, row._data) for row in rows]


def needs_unique(result: Any) -> bool:
    """Return whether a result has several rows for one entity."""
    return result._unique_filter_state is not None


def is_single_entity(result: Any) -> bool:
    """Return whether a result's rows are entities by themselves."""
    return result._attributes.get("is_single_entity", False)  # type: ignore[no-any-return]  # untyped


def shared_result(result: Any) -> Any:
    """Return what all views of a streamed result share."""
    return result._real_result


def is_read(result: Any) -> bool:
    """Return whether a streamed result was read to its end, or closed."""
    return result._soft_closed  # type: ignore[no-any-return]  # untyped


# The ORM's loading.


def entities(state: Any) -> Sequence[Any]:
    """Return the entities of an ORM statement's state; empty where it has none."""
    return getattr(state, "_entities", ())


def is_star(state: Any) -> bool:
    """Return whether an ORM statement selects ``*``."""
    return state.compile_options._is_star  # type: ignore[no-any-return]  # untyped


def entity_columns(entity: Any, state: Any) -> Any:
    """Return what finds an entity's columns in its statement; None where they are its own."""
    return entity._get_entity_clauses(state)


def identity_class(mapper: Any) -> type:
    """Return the class by which a session knows a mapper's instances."""
    return mapper._identity_class  # type: ignore[no-any-return]  # untyped


def set_listener_number(state: Any, number: int) -> None:
    """Record which ``do_orm_execute`` listener is called next, as a session does."""
    state._starting_event_idx = number


def updated_options(state: Any) -> Mapping[str, Any]:
    """Return the execution options that ``do_orm_execute`` listeners have added."""
    return state._update_execution_options  # type: ignore[no-any-return]  # untyped


# The pool and its connections.


def adapted_error(adapter: Any, error: Exception) -> Exception:
    """Return the error that SQLAlchemy's adapter raises for one of its driver's.

    Args:
        adapter: Around the driver's connection.
        error: What the driver raised.

    Returns:
        The same error where the adapter does not know its class.
    """
    try:
        adapter._handle_exception(error)
    except Exception as adapted:  # noqa: BLE001 - that is how it answers
        return adapted
    return error


def max_overflow(pool: QueuePool) -> int:
    """Return how many connections a pool may open beyond its size."""
    return pool._max_overflow


def record_of(checkout: Any) -> Any:
    """Return the pool's record of a checked-out connection; None where it was detached."""
    return checkout._connection_record
