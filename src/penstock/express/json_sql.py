"""The SQL that writes a statement's rows as the JSON of a response model's list.

Pydantic's core schema of the model says what it does, to validate and to serialize: all that is in
it has to be known here, and what is not is refused.
"""

from collections.abc import Mapping
from inspect import getattr_static
from typing import Any

from pydantic import BaseModel
from pydantic_core import SchemaSerializer, to_json
from sqlalchemy import CompoundSelect, Row, Select, Table, inspect
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.selectable import Alias

from penstock.drivers import sqlalchemy_internals as internals
from penstock.express.compiled import Plan
from penstock.express.errors import QueryRefused
from penstock.express.json_values import Kind, Unwritable, kind_of, literal
from penstock.express.query import DIALECT

_MARK = b"\x01"
"""Stands for a row that has to be read; in a value JSON escapes it."""

_AROUND = r"""
)
SELECT concat_ws(' ', {types}), convert_to(
    '[' || COALESCE(string_agg(COALESCE({row}, E'\x01'), ','), '') || ']', 'UTF8'
) FROM (SELECT * FROM penstock_rows OFFSET 0) AS penstock_rows"""
"""What a value is joined with is NULL where the value is. The OFFSET has each value computed once,
however often it is looked at."""


class JsonSql:
    """What is around a statement, to have its rows written.

    Args:
        statement: What gives the rows.
        model: The response model of one.

    Raises:
        QueryRefused: It is not known that PostgreSQL writes the same as the model.
    """

    def __init__(self, statement: Any, model: type[BaseModel]) -> None:
        if not isinstance(statement, Select | CompoundSelect) or not issubclass(model, BaseModel):
            raise QueryRefused(
                "JSON is written of a select() or union() and a BaseModel, which "
                f"{type(statement).__name__} and {model.__name__} are not: use all()."
            )
        named = model.__name__
        parts: list[str] = []
        self._kinds: dict[str, Kind] = {}
        types, required = [], set[str]()
        try:
            sample, fields = _Sample(statement), _Fields(model)
            for field in fields.schemas:
                named = f"{model.__name__}.{field}"
                parts.append(literal(f"{',' if parts else ''}{fields.key(field)}:"))
                found = fields.column(field, sample)
                if found is None:
                    parts.append(literal(fields.default(field)))
                    continue
                column, kind, optional = found
                self._kinds[field] = kind
                types.append(kind.type_of(column))
                parts.append(kind.written(column, optional=optional))
                required |= set() if optional else {column}
        except Unwritable as error:
            raise QueryRefused(
                f"PostgreSQL is not known to write {named} as the response model does: {error}. "
                "Use all()."
            ) from error
        key = [f"CASE WHEN {c} IS NOT NULL THEN '' END" for c in sample.key if c not in required]
        columns = ", ".join(f"c{number}" for number in range(sample.width))
        self._begin = f"WITH penstock_rows ({columns}) AS NOT MATERIALIZED (\n"
        self._end = _AROUND.format(
            types=", ".join(types) or "''", row=" || ".join([*key, "'{'", *parts, "'}'"])
        )
        self._known: set[str] = set()

    def around(self, sql: str) -> str:
        """Return the SQL for the JSON of a statement's rows.

        Args:
            sql: The statement.
        """
        return f"{self._begin}{sql}{self._end}"

    def unlike(self, types: str, written: bytes) -> str | None:
        """Return what PostgreSQL has that it does not write as the model does; None for nothing.

        Args:
            types: What it says of the columns.
            written: The JSON.
        """
        if types not in self._known:
            for (field, kind), oid in zip(self._kinds.items(), types.split(), strict=True):
                if not kind.is_of(int(oid)):
                    return f"the type of {field}"
            self._known.add(types)
        return "a value" if _MARK in written else None


class _Sample:
    """A result of a statement, each of whose values tells the column that it is read from.

    Args:
        statement: What gives the rows.

    Attributes:
        width: How many columns there are.
        key: Those without which there is no instance.

    Raises:
        Unwritable: A result is not read from the columns of one row alone.
    """

    def __init__(self, statement: Any) -> None:
        plan = Plan(statement, DIALECT)
        shape = plan.expected
        if shape.takes_statements or shape.is_collected or not shape.cursor.is_fixed:
            raise Unwritable("a result takes several rows or statements, or what SELECT * finds")
        self._columns = internals.result_columns(plan.compiled)
        self.width = len(self._columns)
        self._values = [object() for _ in self._columns]
        try:
            (self._result,) = shape.results([tuple(self._values)], statement)
        except Exception as error:
            raise Unwritable(f"of the columns' values Python makes others: {error!r}") from error
        self.key: list[str] = []
        if not isinstance(self._result, Row):
            _refuse_class(type(self._result), statement)
            self.key = [f"c{self._number(value)}" for value in inspect(self._result).identity]

    def column(self, attribute: str) -> tuple[str, Any] | None:
        """Return the name and the type of the column that an attribute is read from.

        Returns:
            None where there is no such attribute.

        Raises:
            Unwritable: It is read from something else.
        """
        try:
            number = self._number(self._value(attribute))
        except AttributeError:
            return None
        return f"c{number}", self._columns[number].type

    def _value(self, attribute: str) -> Any:
        result = self._result
        if isinstance(result, Row):
            return getattr(result, attribute)
        static = getattr_static(type(result), attribute)
        return vars(result).get(attribute) if type(static) is InstrumentedAttribute else None

    def _number(self, value: Any) -> int:
        for number, each in enumerate(self._values):
            if each is value:
                return number
        raise Unwritable("it is read from no column that the statement loads")


def _refuse_class(kind: type, statement: Any) -> None:
    selected = inspect(statement.column_descriptions[0]["entity"]).selectable
    table = selected.element if isinstance(selected, Alias) else selected
    if not isinstance(table, Table):
        # Of several rows with one primary key a session makes one instance.
        raise Unwritable(f"{kind.__name__} is not read from a table")
    own = [name for each in kind.__mro__[:-1] for name in vars(each)]
    if "__getattribute__" in own or "__getattr__" in own or issubclass(kind, BaseModel):
        raise Unwritable(f"{kind.__name__} says by itself what its attributes are")


_KNOWN: Mapping[str, frozenset[str]] = {
    kind: frozenset({"type", "metadata", "ref", *keys.split()})
    for kind, keys in {
        "model": "cls config custom_init root_model schema",
        "model-fields": "computed_fields fields model_name",
        "model-field": "frozen schema serialization_alias validation_alias",
        "default": "default schema",
        "nullable": "schema",
        "bool": "",
        "int": "ge gt le lt",
        "str": "max_length min_length",
        "uuid": "",
        "float": "",
        "decimal": "ge gt le lt",
        "date": "",
        "time": "microseconds_precision",
        "datetime": "microseconds_precision tz_constraint",
        "enum": "cls members sub_type",
        "literal": "expected",
        "list": "items_schema",
    }.items()
}
"""Pydantic's core schemas that are known, and their keys."""
_CONFIG = frozenset(
    {
        "extra_fields_behavior",
        "from_attributes",
        "frozen",
        "hide_input_in_errors",
        "populate_by_name",
        "serialize_by_alias",
        "title",
        "validate_assignment",
        "validate_by_alias",
        "validate_by_name",
    }
)
"""What is known of a model's configuration; all but the aliases' changes nothing for rows."""


class _Fields:
    """The fields of a response model.

    Args:
        model: Of one row.

    Attributes:
        schemas: Pydantic's core schema of each, by name.

    Raises:
        Unwritable: The model does more than read and write them.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        model.model_rebuild()  # where it refers to what came later
        schema: Any = model.__pydantic_core_schema__
        self._definitions: Mapping[str, Any] = {}
        if schema["type"] == "definitions":
            self._definitions = {each["ref"]: each for each in schema["definitions"]}
            schema = schema["schema"]
        whole = self._known(schema)
        fields = self._known(whole["schema"])
        self._config: Mapping[str, Any] = whole.get("config", {})
        if unknown := self._config.keys() - _CONFIG:
            raise Unwritable(f"its configuration has {', '.join(sorted(unknown))}")
        if self._config.get("extra_fields_behavior", "ignore") != "ignore":
            raise Unwritable("it keeps or forbids extra fields")
        if whole.get("custom_init") or whole.get("root_model") or fields.get("computed_fields"):
            raise Unwritable("it has an __init__, a root or computed fields")
        self.schemas: Mapping[str, Any] = fields["fields"]

    def _known(self, schema: Any) -> Any:
        if schema["type"] == "definition-ref":
            schema = self._definitions[schema["schema_ref"]]
        kind = schema["type"]
        if kind not in _KNOWN:
            raise Unwritable(f"it has a {kind} there")
        if more := schema.keys() - _KNOWN[kind]:
            raise Unwritable(f"its {kind} there has {', '.join(sorted(more))}")
        return schema

    def key(self, field: str) -> str:
        """Return what a field is called in JSON, quoted."""
        return to_json(self.schemas[field].get("serialization_alias", field)).decode()

    def column(self, field: str, sample: _Sample) -> tuple[str, Kind, bool] | None:
        """Return where a field is read from, how it is written, and whether a NULL is.

        Args:
            field: Its name.
            sample: Says which column it is read from.

        Returns:
            None where it is always its default.

        Raises:
            Unwritable: It is not known to be written the same.
        """
        whole = self._known(self.schemas[field])
        schema, defaults, optional = self._leaf(whole["schema"])
        found = self._found(whole.get("validation_alias", field), field, sample)
        if found is not None:
            return found[0], kind_of(schema, found[1]), optional
        if not defaults:
            raise Unwritable("the statement selects nothing of that name")
        if defaults[0] is not None and schema["type"] in ("model", "list"):
            raise Unwritable(f"its default is a {schema['type']}")
        return None

    def default(self, field: str) -> str:
        """Return the JSON of a field's default."""
        schema, (value,), _ = self._leaf(self.schemas[field]["schema"])
        return "null" if value is None else SchemaSerializer(schema).to_json(value).decode()

    def _leaf(self, schema: Any) -> tuple[Any, list[Any], bool]:
        """Return the schema of a field's values, its default if it has one, and if None is one."""
        schema, defaults = self._known(schema), []
        if schema["type"] == "default":
            defaults, schema = [schema["default"]], self._known(schema["schema"])
        optional = schema["type"] == "nullable"
        return self._known(schema["schema"]) if optional else schema, defaults, optional

    def _found(self, alias: Any, field: str, sample: _Sample) -> tuple[str, Any] | None:
        """Return the column of the first name by which Pydantic finds a field."""
        if not isinstance(alias, str):
            raise Unwritable("it has a path or several names for its alias")
        config = self._config
        by_name = config.get("validate_by_name", config.get("populate_by_name", False))
        names = [alias] if config.get("validate_by_alias", True) else []
        found = map(sample.column, [*names, *([field] if by_name else [])])
        return next((column for column in found if column is not None), None)
