"""The types that PostgreSQL alone has."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.mutable import MutableDict, MutableList
from tests.integration.express.column_kind import NO_BINARY, NO_EQUALITY, PG_TEXT, Kind
from tests.integration.express.decorated_types import Coerced, Colour, Expressed
from tests.integration.express.general_types import (
    AWARE,
    JSON_OBJECTS,
    JSON_VALUES,
    decimals,
)

INTEGERS = st.integers(-(2**31) + 1, 2**31 - 2)
NULLABLE = st.integers(-9, 9) | st.none()
OCTETS = st.lists(st.integers(0, 255), min_size=4, max_size=4)
DATES = st.dates(dt.date(1, 1, 2), dt.date(9999, 12, 30))
NAIVE = st.datetimes()
TEXT_ONLY = {
    "hstore",
    "citext",
    "domain_text",
    "macaddr",
    "macaddr8",
    "money",
    "regclass",
    "regconfig",
    "tsvector",
    "tsquery",
}
NO_CAST = {"echo": "no cast is written around its parameter, which the server takes for text"}
BOUNDS = st.sampled_from(["[)", "(]", "[]", "()"])


def _ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def make(ends: list[Any], bounds: Any) -> Any:
        low, high = sorted(ends)
        return pg.Range(low, high, bounds=bounds)

    closed = st.builds(make, st.lists(values, min_size=2, max_size=2), BOUNDS)
    open_above = st.builds(lambda low: pg.Range(low, None, bounds="[)"), values)
    open_below = st.builds(lambda high: pg.Range(None, high, bounds="()"), values)
    return closed | open_above | open_below | st.just(pg.Range(empty=True))


def _multiranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(_ranges(values), max_size=3).map(pg.ranges.MultiRange)


def _range_kinds() -> list[Kind]:
    values = {
        "INT4": INTEGERS,
        "INT8": st.integers(-(2**62), 2**62),
        "NUM": decimals(6, 2),
        "DATE": DATES,
        "TS": NAIVE,
        "TSTZ": AWARE,
    }
    return [
        Kind(f"{name}{kind}".lower(), getattr(pg, f"{name}{kind}")(), make(ends))
        for name, ends in values.items()
        for kind, make in (("RANGE", _ranges), ("MULTIRANGE", _multiranges))
    ]


def _mac(octets: int) -> st.SearchStrategy[str]:
    parts = st.lists(st.integers(0, 255), min_size=octets, max_size=octets)
    return parts.map(lambda numbers: ":".join(f"{number:02x}" for number in numbers))


def _arrays() -> list[Kind]:
    make: list[tuple[str, Callable[[], Any], st.SearchStrategy[Any]]] = [
        ("array", lambda: sa.ARRAY(sa.Integer), st.lists(NULLABLE, max_size=4)),
        ("array_text", lambda: pg.ARRAY(sa.Text), st.lists(PG_TEXT | st.none(), max_size=4)),
        ("array_tuple", lambda: pg.ARRAY(sa.Integer, as_tuple=True), st.lists(NULLABLE).map(tuple)),
        (
            "array_2d",
            lambda: pg.ARRAY(sa.Integer, dimensions=2),
            st.lists(st.lists(NULLABLE, min_size=2, max_size=2), min_size=1, max_size=3),
        ),
        (
            "array_nd",
            lambda: pg.ARRAY(sa.Text),
            st.lists(
                st.lists(st.lists(PG_TEXT, min_size=1, max_size=1), min_size=2, max_size=2),
                min_size=1,
                max_size=2,
            ),
        ),
        (
            "array_enum",
            lambda: pg.ARRAY(sa.Enum(Colour, name="array_colour")),
            st.lists(st.sampled_from(Colour) | st.none(), max_size=3),
        ),
        ("array_date", lambda: pg.ARRAY(sa.Date), st.lists(st.dates(), max_size=3)),
        ("array_uuid", lambda: pg.ARRAY(sa.Uuid), st.lists(st.uuids(), max_size=3)),
        ("array_numeric", lambda: pg.ARRAY(sa.Numeric(9, 2)), st.lists(decimals(5, 2), max_size=3)),
        ("array_decorated", lambda: pg.ARRAY(Coerced(3)), st.lists(NULLABLE, max_size=3)),
        ("array_jsonb", lambda: pg.ARRAY(pg.JSONB), st.lists(JSON_OBJECTS, max_size=3)),
        ("array_inet", lambda: pg.ARRAY(pg.INET), st.lists(st.just("10.0.0.1"), max_size=3)),
        ("array_range", lambda: pg.ARRAY(pg.INT4RANGE), st.lists(_ranges(INTEGERS), max_size=2)),
        (
            "mutable_array",
            lambda: MutableList.as_mutable(pg.ARRAY(sa.Integer)),
            st.lists(NULLABLE, max_size=4),
        ),
    ]
    kinds = [Kind(name, type_(), values) for name, type_, values in make]
    json = Kind(
        "array_json",
        pg.ARRAY(sa.JSON),
        st.lists(JSON_OBJECTS, max_size=3),
        session_cannot=NO_EQUALITY,
    )
    return [*kinds, json]


def _others() -> list[Kind]:
    make: list[tuple[str, Callable[[], Any], st.SearchStrategy[Any]]] = [
        ("jsonb", pg.JSONB, JSON_VALUES),
        ("jsonb_no_null", lambda: pg.JSONB(none_as_null=True), JSON_VALUES),
        ("jsonb_mutable", lambda: MutableDict.as_mutable(pg.JSONB()), JSON_OBJECTS),
        ("hstore", pg.HSTORE, st.dictionaries(PG_TEXT, PG_TEXT | st.none(), max_size=3)),
        ("inet", pg.INET, OCTETS.map(lambda n: ".".join(map(str, n)))),
        ("cidr", pg.CIDR, OCTETS.map(lambda n: ".".join(map(str, n)) + "/32")),
        ("macaddr", pg.MACADDR, _mac(6)),
        ("macaddr8", pg.MACADDR8, _mac(8)),
        ("bit", lambda: pg.BIT(5), st.text("01", min_size=5, max_size=5).map(pg.BitString)),
        ("varbit", lambda: pg.BIT(9, varying=True), st.text("01", max_size=9).map(pg.BitString)),
        (
            "money",
            pg.MONEY,
            st.integers(0, 999).map(lambda cents: f"${cents // 100}.{cents % 100:02}"),
        ),
        ("oid", pg.OID, st.integers(0, 2**32 - 1)),
        ("regclass", pg.REGCLASS, st.sampled_from(["pg_class", "pg_type"])),
        ("regconfig", pg.REGCONFIG, st.sampled_from(["english", "simple"])),
        ("tsvector", pg.TSVECTOR, st.sampled_from(["'cat':3 'fat':2", "'a'", ""])),
        ("tsquery", pg.TSQUERY, st.sampled_from(["'fat' & 'rat'", "'a'"])),
        ("citext", pg.CITEXT, st.text("aAbB ", max_size=5)),
        (
            "domain_text",
            lambda: pg.DOMAIN("email", pg.CITEXT, check="VALUE ~ '@'"),
            st.sampled_from(["a@b", "A@b"]),
        ),
        ("enum_native", lambda: pg.ENUM(Colour, name="tint"), st.sampled_from(Colour)),
        ("interval_days", lambda: pg.INTERVAL(fields="DAY"), st.integers(0, 99).map(dt.timedelta)),
        (
            "interval_seconds",
            lambda: pg.INTERVAL(precision=0),
            st.integers(0, 99).map(dt.timedelta),
        ),
        ("timestamp", lambda: pg.TIMESTAMP(precision=3), NAIVE),
        ("double_precision", pg.DOUBLE_PRECISION, st.floats(allow_nan=False)),
        ("bytea", pg.BYTEA, st.binary(max_size=9)),
    ]
    positive = pg.DOMAIN("positive", sa.Integer, check="VALUE > 0")
    domain = Kind("domain", positive, st.integers(1, 99), session_cannot=NO_CAST)
    others = [
        Kind(name, type_(), values, copy_cannot=NO_BINARY if name in TEXT_ONLY else "")
        for name, type_, values in make
    ]
    return [domain, *others]


class Plain(sa.types.UserDefinedType[Any]):
    """A type of the server's that SQLAlchemy does not know.

    Args:
        name: The server's.
    """

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


def _plain() -> list[Kind]:
    # No xml: PostgreSQL is mostly built without the library for it, and then nobody can write it.
    make: dict[str, st.SearchStrategy[Any]] = {
        "point": st.tuples(st.integers(0, 9), st.integers(0, 9)).map(
            lambda p: tuple(map(float, p))
        ),
        "pg_lsn": st.integers(0, 2**40),
        "name": st.text("abc", max_size=9),
        "bigint[]": st.lists(st.integers(-9, 9), max_size=3),
        "jsonpath": st.sampled_from(['$."a"', "$"]),
    }
    no_equality = ("point", "jsonpath")
    return [
        Kind(
            f"plain_{name.strip('[]')}",
            Plain(name),
            values,
            session_cannot={
                **(NO_EQUALITY if name in no_equality else {}),
                **(NO_CAST if name not in {"name", "jsonpath"} else {}),
            },
        )
        for name, values in make.items()
    ]


_EXPRESSED = Kind(
    "expressed",
    Expressed(),
    st.text("abc", max_size=5),
    session_cannot={"in_list": "its bind_expression() is around the values of no list"},
    copy_cannot="COPY computes nothing, which its bind_expression() is for",
)
POSTGRES_KINDS = [*_others(), *_arrays(), *_range_kinds(), *_plain(), _EXPRESSED]
