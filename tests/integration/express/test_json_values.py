"""JSON that PostgreSQL writes: byte for byte what the response model makes of any value."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import ARRAY, bindparam, column, func, select, text
from tests.integration.express.json_kinds import KINDS, Kind, by_model, by_server, readings

from penstock import Database, Query, query

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHOSEN_BY_NOBODY = [name for name, kind in KINDS.items() if kind.values is not None]
HOSTILE = {
    "TimeZone": "America/St_Johns",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "standard_conforming_strings": "off",
}
"""Settings by which PostgreSQL writes values, or reads literals, in other ways."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with Database.from_url(module_url, environment="testing") as database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE TYPE mood AS ENUM ('sad', 'happy {x}')"))
        yield database


def of_constants(kind: Kind, values: Sequence[str]) -> Query[Any]:
    rows = [f"(({value})::{kind.server}, {number})" for number, value in enumerate(values)]
    source = f"(VALUES {', '.join(rows)}) AS v (value, number)"
    found = select(column("value", kind.declared)).select_from(text(source))
    return query(found.order_by(text("number")))


def of_arguments(kind: Kind) -> Query[Any]:
    if isinstance(kind.declared, ARRAY):
        return query(select(bindparam("values", type_=kind.declared).label("value")))
    values = bindparam("values", type_=ARRAY(kind.declared))
    return query(select(func.unnest(values, type_=kind.declared).label("value")))


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("name", KINDS)
async def test_each_kind_is_written_as_the_response_model_writes_it(
    database: Database, name: str, optional: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kind = KINDS[name]
    model = kind.model(optional=optional)
    written = [*kind.written, "NULL"] if optional else kind.written
    rows = of_constants(kind, written)
    expected = await by_model(database.reader, rows, model)

    assert isinstance(expected, bytes)
    assert await by_server(database.reader, rows, model) == expected
    hostile = database.reader.with_context(settings=HOSTILE)
    assert await by_server(hostile, rows, model) == expected
    assert not readings(caplog)

    for number, value in enumerate(kind.read if optional else [*kind.read, "NULL"], 1):
        rows = of_constants(kind, [*kind.written, value])
        expected = await by_model(database.reader, rows, model)
        assert await by_server(database.reader, rows, model) == expected, value
        assert readings(caplog) == number, value


ROWS = {name: of_arguments(KINDS[name]) for name in CHOSEN_BY_NOBODY}


@pytest.mark.parametrize("name", CHOSEN_BY_NOBODY)
@settings(max_examples=12, database=None, derandomize=True)
@given(data=st.data())
async def test_so_are_values_that_nobody_chose(
    database: Database, name: str, data: st.DataObject
) -> None:
    kind, rows = KINDS[name], ROWS[name]
    is_list = isinstance(kind.declared, ARRAY)
    values = data.draw(kind.values if is_list else st.lists(kind.values, min_size=1))
    expected = await by_model(database.reader, rows, kind.model(), values=values)

    assert await by_server(database.reader, rows, kind.model(), values=values) == expected


async def test_floats_are_read_where_the_server_shortens_them(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    kind = KINDS["double"]
    rows = of_constants(kind, kind.written)
    short = database.reader.with_context(settings={"extra_float_digits": "0"})

    assert await by_server(short, rows, kind.model()) == await by_model(short, rows, kind.model())
    assert readings(caplog) == 1


@pytest.mark.parametrize(
    ("name", "other", "value"),
    [
        ("timestamp", "timestamptz", "'2026-01-01 00:00+05'"),
        ("timestamptz", "timestamp", "'2026-01-01'"),
        ("date", "timestamp", "'2026-01-01'"),
        ("text", "uuid", "'ABCDEFAB-1234-1234-1234-ABCDEFABCDEF'"),
        ("text", "json", """'{"a": 1}'"""),
        ("text", "char(3)", "'a'"),
        ("integer", "numeric", "1.0"),
        ("integer", "text", "'1'"),
        ("double", "numeric", "1.50"),
        ("boolean", "text", "'true'"),
        ("enum by name", "date", "'2026-01-01'"),
        ("integers", "numeric[]", "'{1.0}'"),
        ("uuid", "text", "'ABCDEFAB-1234-1234-1234-ABCDEFABCDEF'"),
    ],
)
async def test_a_column_of_another_type_than_it_is_declared_as_is_read(
    database: Database, name: str, other: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind = KINDS[name]
    drifted = Kind(kind.declared, kind.field, other, [value])
    rows = of_constants(drifted, drifted.written)

    expected = await by_model(database.reader, rows, kind.model())
    assert await by_server(database.reader, rows, kind.model()) == expected
    assert readings(caplog) == 1
