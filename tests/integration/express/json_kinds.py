"""Columns and fields whose values PostgreSQL writes as JSON, and values that are read instead."""

import datetime as dt
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field, NaiveDatetime, TypeAdapter, create_model
from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ENUM

from penstock import Query
from penstock.express import JsonQuery, Reader


class Color(enum.Enum):
    """Stored by name, written by value."""

    RED = "scarlet"
    BLUE = "b\"l\\eu'\n{c}"


class Size(enum.IntEnum):
    """Written as numbers."""

    SMALL = 1
    LARGE = 2


class Bound(TypeDecorator[str]):
    """Converts nothing that is read."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value


@dataclass(frozen=True)
class Kind:
    """Values of one type of column, for one type of field.

    Args:
        declared: The column's type.
        field: What ``create_model()`` takes for the field: a type, or that and a ``Field()``.
        server: The name of the type on the server.
        written: SQL of values that PostgreSQL writes by itself.
        read: SQL of values that it writes otherwise, or that are none for the field.
        values: Any at random.
    """

    declared: Any
    field: Any
    server: str
    written: Sequence[str]
    read: Sequence[str] = ()
    values: Any = None

    def model(self, *, optional: bool = False) -> type[BaseModel]:
        """Return a model with the one field ``value``."""
        kind, field = self.field if isinstance(self.field, tuple) else (self.field, ...)
        return create_model("Out", value=(kind | None if optional else kind, field))


def quoted(values: Iterable[str]) -> list[str]:
    return [f"'{value}'" for value in values]


FRACTIONS = ["1", "12", "123", "1234", "12345", "123456", "000001", "00001", "5", "100001"]
STAMPS = [
    "2026-01-01 00:00:00",
    "2026-12-31 23:59:59.999999",
    "0001-01-01",
    "9999-12-31 23:59:59.999999",
    *(f"2026-01-01 00:00:00.{digits}" for digits in FRACTIONS),
]
FAR = quoted(["infinity", "-infinity", "0001-01-01 BC", "10000-01-01", "294276-01-01"])
TEXTS = [
    "''",
    "'a'",
    r"E'\"\\\\/\b\f\n\r\t\x01\x1f\x7f'",
    "'\u2028\u2029é😀</script>'",
    "'{c}%s:x$1'",
]
DOUBLES = ["0", "'-0'", "1", "0.0001", "-0.1", "123456789012345", "999999999999999.9", "0.1 + 0.2"]
NUMBERS = ["0", "0.000000", "1.50", "100", "10000.0", "120000000000001", "-0.000001", "1e-6"]
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
integers = st.integers(-(2**31), 2**31 - 1)

KINDS: dict[str, Kind] = {
    "smallint": Kind(
        SmallInteger(), int, "smallint", ["'-32768'", "32767"], (), st.integers(-(2**15), 2**15 - 1)
    ),
    "integer": Kind(Integer(), int, "integer", ["'-2147483648'", "0"], (), integers),
    "bigint": Kind(
        BigInteger().with_variant(Integer, "sqlite"),
        int,
        "bigint",
        ["'-9223372036854775808'", "9223372036854775807"],
        (),
        st.integers(-(2**63), 2**63 - 1),
    ),
    "integer with limits": Kind(
        Integer(), (int, Field(ge=1, lt=10)), "integer", ["1", "9"], ["0", "10"], integers
    ),
    "text": Kind(Text(), str, "text", TEXTS, (), text),
    "varchar": Kind(String(50), str, "varchar", TEXTS),
    "decorated": Kind(Bound(), str, "varchar", TEXTS),
    "text with limits": Kind(
        Text(),
        (str, Field(min_length=1, max_length=2)),
        "text",
        ["'é'", "'😀😀'"],
        ["''", "'abc'"],
    ),
    "boolean": Kind(Boolean(), bool, "boolean", ["true", "false"], (), st.booleans()),
    "double": Kind(
        Double(),
        float,
        "double precision",
        DOUBLES,
        [*quoted(["NaN", "Infinity", "-Infinity"]), "1e15", "1e16", "1e-5", "1e300", "5e-324"],
        st.floats(),
    ),
    "real": Kind(
        REAL(), float, "real", ["0.1", "16777216", "1e14"], ["'NaN'", "1e20"], st.floats(width=32)
    ),
    "numeric": Kind(
        Numeric(),
        Decimal,
        "numeric",
        NUMBERS,
        ["'NaN'", "'Infinity'", "0.0000001", "0.0000000", "1e-20", "10000", "1e20"],
        st.decimals(min_value=-(10**30), max_value=10**30),
    ),
    "numeric with limits": Kind(
        Numeric(),
        (Decimal, Field(ge=Decimal("-0.5"), lt=100)),
        "numeric",
        ["0", "-0.50", "99.99"],
        ["-0.51", "100", "'NaN'"],
    ),
    "uuid": Kind(Uuid(), UUID, "uuid", ["'ABCDEFAB-1234-1234-1234-ABCDEFABCDEF'"], (), st.uuids()),
    "date": Kind(Date(), dt.date, "date", quoted(["0001-01-01", "9999-12-31"]), FAR, st.dates()),
    "time": Kind(
        Time(),
        dt.time,
        "time",
        quoted(["00:00", "23:59:59.999999", *(f"12:00:00.{digits}" for digits in FRACTIONS)]),
        ["'24:00'"],
        st.times(),
    ),
    "timestamp": Kind(DateTime(), dt.datetime, "timestamp", quoted(STAMPS), FAR, st.datetimes()),
    "naive": Kind(DateTime(), NaiveDatetime, "timestamp", quoted(STAMPS)),
    "timestamptz": Kind(
        DateTime(timezone=True),
        dt.datetime,
        "timestamptz",
        quoted(f"{stamp}+00" for stamp in STAMPS),
        FAR,
        st.datetimes(timezones=st.just(dt.UTC)),
    ),
    "aware": Kind(DateTime(timezone=True), AwareDatetime, "timestamptz", ["'2026-07-01 12:00-07'"]),
    "enum by name": Kind(
        Enum(Color), Color, "text", quoted(Color.__members__), ["'scarlet'"], st.sampled_from(Color)
    ),
    "enum of numbers": Kind(Enum(Size), int, "text", ["'SMALL'"], ["'1'"]),
    "enum by value": Kind(String(), Color, "text", ["'scarlet'"], ["'RED'", "'pink'"]),
    "enum of text": Kind(Enum("a", "b", native_enum=False), str, "varchar", ["'a'"], ["'c'"]),
    "native enum": Kind(
        ENUM("sad", "happy {x}", name="mood"), str, "mood", ["'sad'", "'happy {x}'"]
    ),
    "literal": Kind(Text(), Literal["a", "b\\'"], "text", ["'a'", r"'b\'''"], ["'c'"]),
    "integers": Kind(
        ARRAY(Integer),
        list[int],
        "integer[]",
        quoted(["{}", "{1,2}", "[5:6]={1,2}"]),
        quoted(["{1,NULL}", "{{1,2},{3,4}}"]),
        st.lists(integers),
    ),
    "texts": Kind(
        ARRAY(Text), list[str], "text[]", [f"ARRAY[{', '.join(TEXTS)}]"], (), st.lists(text)
    ),
    "uuids": Kind(ARRAY(Uuid), list[UUID], "uuid[]", ["'{}'"], (), st.lists(st.uuids())),
    "booleans": Kind(
        ARRAY(Boolean), list[bool], "boolean[]", ["'{t,f}'"], (), st.lists(st.booleans())
    ),
}


async def by_model(reader: Reader, rows: Query[Any], model: Any, **values: Any) -> Any:
    """Return what the response model makes of the rows, or the class of the error."""
    adapter = TypeAdapter(list[model])
    try:
        found = adapter.validate_python(await reader.all(rows, values), from_attributes=True)
    except Exception as error:  # noqa: BLE001 - whichever it is
        return type(error)
    return adapter.dump_json(found, by_alias=True)


async def by_server(
    reader: Reader, rows: Query[Any] | JsonQuery, model: Any = None, **values: Any
) -> Any:
    """Return what ``json()`` returns, or the class of the error."""
    try:
        return await reader.json(rows, model, values)
    except Exception as error:  # noqa: BLE001 - whichever it is
        return type(error)


def readings(caplog: pytest.LogCaptureFixture) -> int:
    """Return how often rows were read a second time."""
    return sum(record.name == "penstock.express.json" for record in caplog.records)
