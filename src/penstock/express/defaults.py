"""The defaults that Python makes for columns which an INSERT or UPDATE leaves out."""

from typing import Any

from sqlalchemy.sql.compiler import SQLCompiler

from penstock.express.errors import QueryRefused

__all__ = ["Defaults", "OtherValues"]


class Defaults:
    """What a session would fill in for ``default=`` and ``onupdate=``.

    Args:
        compiled: The statement.

    Raises:
        QueryRefused: A default is to be fetched from the server by a statement of its own.
    """

    def __init__(self, compiled: SQLCompiler) -> None:
        self._state: Any = compiled.compile_state
        inserted, updated = compiled.insert_prefetch or (), compiled.update_prefetch or ()
        described = [
            *((column, column._default_description_tuple) for column in inserted),  # noqa: SLF001 - as SQLAlchemy's own execution, here and below
            *((column, column._onupdate_description_tuple) for column in updated),  # noqa: SLF001
        ]
        self._columns = [
            (column, compiled._within_exec_param_key_getter(column), *made[:3])  # noqa: SLF001
            for column, made in described
        ]
        for column, _, _, is_scalar, is_callable in self._columns:
            if not is_scalar and not is_callable:
                raise QueryRefused(
                    f"The default of {column} is fetched by a statement of its own: give the "
                    "column a server_default, or write by a session."
                )

    def add_to(self, bound: dict[str, Any]) -> None:
        """Add the defaults to the values of one row."""
        for column, key, default, is_scalar, _ in self._columns:
            bound[key] = default if is_scalar else default(OtherValues(bound, column, self._state))


class OtherValues:
    """What a default that looks at the row's other values is told.

    Args:
        parameters: The values, by the keys of their columns.
        column: Whose default it is.
        state: What SQLAlchemy knows of the statement; None where it has but one row.
    """

    def __init__(self, parameters: dict[str, Any], column: Any = None, state: Any = None) -> None:
        self.current_parameters = parameters
        self.current_column = column
        self._has_rows = getattr(state, "_has_multi_parameters", False)
        self._keys = list(state._dict_parameters) if self._has_rows else []  # noqa: SLF001 - as above

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:
        """Return the values: of the same row alone, where the statement has several."""
        if not (self._has_rows and isolate_multiinsert_groups):
            return self.current_parameters
        column = self.current_column
        row = column.index + 1 if column._is_multiparam_column else 0  # noqa: SLF001 - as above
        values = {key: self.current_parameters.get(f"{key}_m{row}") for key in map(str, self._keys)}
        return {key: value for key, value in values.items() if key != str(column.key)}
