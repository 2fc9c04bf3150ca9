"""How PostgreSQL writes the JSON of a value as Pydantic does, by the value's kind."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from pydantic import ValidationError
from pydantic_core import SchemaSerializer, SchemaValidator
from sqlalchemy import (
    ARRAY,
    CHAR,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    String,
    Time,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY as PG_ARRAY
from sqlalchemy.dialects.postgresql import CITEXT, ENUM

from penstock.drivers import sqlalchemy_internals as internals
from penstock.express.query import DIALECT


class Unwritable(Exception):  # noqa: N818 - it says what is
    """PostgreSQL is not known to write something as Pydantic does; the message says what."""


@dataclass(frozen=True)
class Kind:
    """Values that are written in one way. In its SQL ``{c}`` is the column.

    Args:
        declared: What the column is declared as.
        oids: Of the types that it may have on the server.
        text: SQL for the JSON of a value.
        guard: SQL for whether Pydantic writes the value so; empty for any value.
        is_set: SQL for whether the server's settings have it written so.
    """

    declared: type
    oids: Sequence[int]
    text: str
    guard: str = ""
    is_set: str = ""

    def written(self, column: str, *, optional: bool) -> str:
        """Return the SQL for the JSON of a value; NULL where it has to be made of the row.

        Args:
            column: Where the value is.
            optional: Whether a NULL is one.
        """
        text = f"CASE WHEN {self.guard} THEN {self.text} END" if self.guard else self.text
        null = "CASE WHEN {c} IS NULL THEN 'null' ELSE " + text + " END"
        return (null if optional else text).format(c=column)

    def type_of(self, column: str) -> str:
        """Return the SQL for the oid of a column's type; 0 where its values are not written so.

        Args:
            column: In the rows that are aggregated.
        """
        value = f"(array_agg({column})){'' if self.declared is ARRAY else '[1]'}"
        found = f"pg_typeof(CASE WHEN false THEN {value} END)::oid"
        return f"CASE WHEN {self.is_set} THEN {found} ELSE 0 END" if self.is_set else found

    def is_of(self, oid: int) -> bool:
        """Return whether the column may have a type on the server."""
        return oid in self.oids or (self.declared is Enum and oid >= _FIRST_OWN)


_FIRST_OWN = 16384
"""The first oid that is given to what users make (FirstNormalObjectId), such as native enums."""
_QUOTED = """'"' || {c}::text || '"'"""
_YEARS = "{c} >= '0001-01-01%s' AND {c} < '10000-01-01%s'"
"""Those that Python has; infinity is in none of them."""


def _with_fraction(server: str, length: int, end: str = '"', value: str = "{c}") -> str:
    """Return the SQL for a time with all six digits of its fraction, or none.

    PostgreSQL leaves out the zeros at the end.

    Args:
        server: The name of the type.
        length: Of the JSON up to the seconds.
        end: Of the JSON.
        value: SQL for what is written.
    """
    json, whole = f"to_json({value})", length + len(".123456")
    return (
        f"CASE WHEN {{c}} = {{c}}::{server}(0) THEN {json}::varchar({length}) "
        f"WHEN {{c}} <> {{c}}::{server}(5) THEN {json}::varchar({whole}) "
        f"ELSE rpad(rtrim({json}::text, '\"'), {whole}, '0') END || '{end}'"
    )


_TEXT = (25, 1043)
_KINDS: Mapping[str, Kind] = {
    "bool": Kind(Boolean, (16,), "{c}::text"),
    "int": Kind(Integer, (20, 21, 23), "{c}::text"),
    "str": Kind(String, _TEXT, "to_json({c})::text"),
    "uuid": Kind(Uuid, (2950,), _QUOTED),
    # Without an exponent, which Python begins elsewhere.
    "float": Kind(
        Float,
        (700, 701),
        "{c}::float8::text || CASE WHEN {c} = trunc({c}) THEN '.0' ELSE '' END",
        "{c} = 0 OR abs({c}::float8) >= 1e-4 AND abs({c}::float8) < 1e15",
        "current_setting('extra_float_digits')::int > 0",
    ),
    # asyncpg gives an integer with zeros at its end an exponent, and Python what is near zero.
    "decimal": Kind(
        Numeric,
        (1700,),
        _QUOTED,
        "CASE WHEN scale({c}) = 0 THEN {c} % 10000 <> 0 OR {c} = 0 "
        "ELSE scale({c}) <= 6 OR scale({c}) > 6 AND abs({c}) >= 0.000001 END",
    ),
    "date": Kind(Date, (1082,), "to_json({c})::text", _YEARS % ("", "")),
    "time": Kind(Time, (1083,), _with_fraction("time", len('"12:34:56')), "{c} < '24:00'"),
    "datetime": Kind(
        DateTime,
        (1114,),
        _with_fraction("timestamp", len('"2026-01-01T12:34:56')),
        _YEARS % ("", ""),
    ),
}
"""By the type of Pydantic's core schema. The oids are those of pg_type.dat."""
_AWARE = Kind(
    DateTime,
    (1184,),
    _with_fraction("timestamptz", len('"2026-01-01T12:34:56'), 'Z"', "{c} AT TIME ZONE 'UTC'"),
    _YEARS % ("+00", "+00"),
)
_ARRAYS: Mapping[str, Sequence[int]] = {
    "bool": (1000,),
    "int": (1005, 1007, 1016),
    "str": (1009, 1015),
    "uuid": (2951,),
}
"""Of what lists may be, whose JSON PostgreSQL writes as it is, and the types of their arrays."""
_LIST = Kind(
    ARRAY,
    (),
    "to_json({c})::text",
    "CASE array_ndims({c}) WHEN 1 THEN array_position({c}, NULL) IS NULL "
    "ELSE cardinality({c}) = 0 END",
)
_LIMITS: Mapping[str, str] = {
    "ge": "{c} >= %s",
    "gt": "{c} > %s",
    "le": "{c} <= %s",
    "lt": "{c} < %s",
    "min_length": "char_length({c}) >= %s",
    "max_length": "char_length({c}) <= %s",
}


def kind_of(schema: Mapping[str, Any], declared: Any) -> Kind:
    """Return how a column's values are written for a field.

    Args:
        schema: Pydantic's core schema of the field, of whose keys all are known.
        declared: SQLAlchemy's type of the column.

    Raises:
        Unwritable: It is not known that PostgreSQL writes the same.
    """
    name, stored = schema["type"], _stored(declared)
    if name == "list":
        return _list(schema["items_schema"], declared)
    is_choice = name in ("enum", "literal")
    kind = _KINDS.get("str" if is_choice else name)
    if kind is None:
        raise Unwritable(f"it has a {name} there")
    if type(declared) in (Enum, ENUM) and isinstance(stored, Enum):
        convert = internals.result_converter(declared, DIALECT)
        return _choice(schema, {label: convert(label) for label in stored.enums})
    has_zone = bool(getattr(stored, "timezone", False))
    if name == "datetime" and has_zone:
        kind = _AWARE
    if (
        not isinstance(stored, kind.declared)
        or isinstance(stored, CHAR | CITEXT | Enum)
        or has_zone is not (kind is _AWARE)
        or schema.get("tz_constraint") not in (None, "aware" if has_zone else "naive")
        or any(internals.result_converter(declared, DIALECT, oid) for oid in kind.oids)
    ):
        raise Unwritable(f"its column is {declared!r}, of which Python makes a value for {name}")
    if is_choice:
        values = schema.get("expected") or [member.value for member in schema["members"]]
        return _choice(schema, {value: value for value in values if type(value) is str})
    limits = [_limit(sql, schema[key]) for key, sql in _LIMITS.items() if key in schema]
    if not limits:
        return kind
    return replace(kind, guard=" AND ".join([*limits, f"({kind.guard or 'true'})"]))


def _list(items: Mapping[str, Any], declared: Any) -> Kind:
    name = items["type"]
    is_known = name in _ARRAYS and items.keys() <= {"type", "metadata"}
    if (
        not is_known
        or type(declared) not in (ARRAY, PG_ARRAY)
        or declared.as_tuple
        or kind_of(items, declared.item_type) is not _KINDS[name]
    ):
        raise Unwritable(f"it is a list of {name}, and its column is {declared!r}")
    return replace(_LIST, oids=_ARRAYS[name])


def _stored(declared: Any) -> Any:
    """Return what a type is on PostgreSQL, below what Python makes of it."""
    stored = declared.dialect_impl(DIALECT)
    while isinstance(stored, TypeDecorator):
        stored = stored.impl_instance
    return stored


def _choice(schema: Any, values: Mapping[str, Any]) -> Kind:
    """Return how values are written of which there are few.

    Args:
        schema: Of the field.
        values: What Pydantic is given, by the text in the database.
    """
    validator, serializer = SchemaValidator(schema), SchemaSerializer(schema)
    written = {}
    for label, value in values.items():
        with suppress(ValidationError):
            written[label] = serializer.to_json(validator.validate_python(value)).decode()
    if not written:
        raise Unwritable("it takes none of the values that its column may have")
    cases = " ".join(f"WHEN {literal(label)} THEN {literal(j)}" for label, j in written.items())
    escaped = cases.replace("{", "{{").replace("}", "}}")
    return Kind(Enum, _TEXT, f"CASE {{c}}::text {escaped} END")


def _limit(sql: str, limit: Any) -> str:
    if type(limit) is int or (type(limit) is Decimal and limit.is_finite()):
        return sql % limit
    raise Unwritable(f"it has the limit {limit!r}")


def literal(text: str) -> str:
    """Return a text in SQL, whatever ``standard_conforming_strings`` is."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
