"""SQLAlchemy's own types, which every database has in some form."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.ext.mutable import MutableDict, MutableList
from tests.integration.express.column_kind import NO_EQUALITY, PG_TEXT, Kind
from tests.integration.express.decorated_types import (
    Coerced,
    Colour,
    Grade,
    Joined,
    Level,
    Processed,
    ReadOnlyUpper,
    Sealed,
    Varying,
)

BYTES = st.binary(max_size=20)
WORDS = st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), max_size=3).map(tuple)
AWARE = st.datetimes(
    dt.datetime(1900, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
    dt.datetime(2100, 1, 1),  # noqa: DTZ001 - as above
    timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))]),
)
FLOATS = st.floats(allow_nan=False)
SINGLE = st.floats(width=32, allow_nan=False)
INTERVALS = st.timedeltas(dt.timedelta(days=-9999), dt.timedelta(days=9999))
JSON_TEXT = PG_TEXT.filter(lambda text: "\x00" not in text)
JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | JSON_TEXT | st.none(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(JSON_TEXT, parts, max_size=3),
    max_leaves=6,
).filter(lambda value: value is not None)
JSON_OBJECTS = st.dictionaries(JSON_TEXT, JSON_VALUES, max_size=3)


def decimals(whole: int, places: int) -> st.SearchStrategy[Decimal]:
    """Return decimals with so many digits before and after the point."""
    bound = Decimal(10) ** whole - Decimal(1)
    return st.decimals(-bound, bound, places=places, allow_nan=False, allow_infinity=False)


def _by_value(members: Any) -> list[str]:
    return [member.value for member in members]


def _kinds() -> list[Kind]:
    make: list[tuple[str, Callable[[], Any], st.SearchStrategy[Any]]] = [
        ("integer", sa.Integer, st.integers(-(2**31), 2**31 - 1)),
        ("small_integer", sa.SmallInteger, st.integers(-(2**15), 2**15 - 1)),
        ("big_integer", sa.BigInteger, st.integers(-(2**63), 2**63 - 1)),
        ("numeric", sa.Numeric, decimals(12, 6)),
        ("numeric_scale", lambda: sa.Numeric(20, 4), decimals(12, 4)),
        ("numeric_nan", sa.Numeric, st.just(Decimal("NaN"))),
        ("numeric_float", lambda: sa.Numeric(20, 4, asdecimal=False), decimals(9, 4)),
        ("float", sa.Float, FLOATS),
        ("float_nan", sa.Float, st.sampled_from([float("nan"), float("inf")])),
        ("float_decimal", lambda: sa.Float(53, asdecimal=True), st.floats(-1e6, 1e6)),
        (
            "float_scale",
            lambda: sa.Float(asdecimal=True, decimal_return_scale=3),
            st.floats(-1e6, 1e6),
        ),
        ("double", sa.Double, FLOATS),
        ("real", sa.REAL, SINGLE),
        ("boolean", sa.Boolean, st.booleans()),
        ("boolean_checked", lambda: sa.Boolean(create_constraint=True), st.booleans()),
        ("string", lambda: sa.String(50), PG_TEXT),
        ("text", sa.Text, PG_TEXT),
        ("unicode", lambda: sa.Unicode(50), PG_TEXT),
        ("unicode_text", sa.UnicodeText, PG_TEXT),
        ("char", lambda: sa.CHAR(8), st.text("abc ", max_size=8)),
        ("collated", lambda: sa.String(50, collation="C"), PG_TEXT),
        ("large_binary", sa.LargeBinary, BYTES),
        ("date", sa.Date, st.dates()),
        ("time", sa.Time, st.times()),
        ("time_zone", lambda: sa.Time(timezone=True), st.times(timezones=st.just(dt.UTC))),
        ("datetime", sa.DateTime, st.datetimes()),
        ("datetime_zone", lambda: sa.DateTime(timezone=True), AWARE),
        ("interval", sa.Interval, INTERVALS),
        (
            "interval_epoch",
            lambda: sa.Interval(native=False),
            st.timedeltas(dt.timedelta(0), dt.timedelta(days=9999)),
        ),
        ("enum", lambda: sa.Enum(Colour, name="colour"), st.sampled_from(Colour)),
        ("enum_int", lambda: sa.Enum(Level, name="level"), st.sampled_from(Level)),
        (
            "enum_text",
            lambda: sa.Enum("a b", "it's", name="words"),
            st.sampled_from(["a b", "it's"]),
        ),
        ("enum_by_name", lambda: sa.Enum(Colour, name="hue"), st.sampled_from(["RED", "BLUE"])),
        (
            "enum_values",
            lambda: sa.Enum(Grade, name="grade", values_callable=_by_value),
            st.sampled_from(Grade),
        ),
        (
            "enum_text_column",
            lambda: sa.Enum(Colour, native_enum=False, create_constraint=True, name="plain"),
            st.sampled_from(Colour),
        ),
        ("uuid", sa.Uuid, st.uuids()),
        ("uuid_text", lambda: sa.Uuid(as_uuid=False), st.uuids().map(str)),
        ("uuid_plain", lambda: sa.Uuid(native_uuid=False), st.uuids()),
        ("pickle", sa.PickleType, st.tuples(st.integers(), st.dates())),
        ("decorated", Joined, WORDS),
        ("decorated_null", Sealed, PG_TEXT),
        ("decorated_read", ReadOnlyUpper, st.text("abc", max_size=5)),
        ("decorated_step", lambda: Coerced(7), st.integers(-(2**20), 2**20)),
        ("decorated_dialect", Varying, st.integers(-(2**31), 2**31)),
        ("processed", Processed, st.integers(-9999, 9999)),
        (
            "variant",
            lambda: sa.String(9).with_variant(sa.Integer(), "postgresql", "sqlite"),
            st.integers(0, 9),
        ),
    ]
    return [Kind(name, type_(), values) for name, type_, values in make]


def _json_kinds() -> list[Kind]:
    make: list[tuple[str, Any, st.SearchStrategy[Any]]] = [
        ("json", sa.JSON(), JSON_VALUES),
        ("json_no_null", sa.JSON(none_as_null=True), JSON_VALUES),
        ("mutable_dict", MutableDict.as_mutable(sa.JSON()), JSON_OBJECTS),
        ("mutable_list", MutableList.as_mutable(sa.JSON()), st.lists(JSON_VALUES, max_size=3)),
    ]
    return [Kind(*parts, session_cannot=NO_EQUALITY) for parts in make]


GENERAL_KINDS = [*_kinds(), *_json_kinds()]
